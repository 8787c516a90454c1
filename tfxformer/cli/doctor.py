"""The commands doctor and models: what is installed, whether it runs, and which models there are to begin from."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tfxformer import __version__
from tfxformer.extras import EXTRAS, is_installed

# Distributions by the names that pip knows; what is not there is said, with the extra that brings it.
PACKAGES = {
    "ai-edge-litert": "ai_edge_litert",
    "tokenizers": "tokenizers",
    "keras": "keras",
    "tensorflow": "tensorflow",
    "jax": "jax",
    "tensorflow-model-optimization": "tensorflow_model_optimization",
    "tensorflow-text": "tensorflow_text",
}
WIDTH = 1024  # of the matrices that are multiplied


def doctor(seconds: float = 1.0) -> dict:
    """Versions, backend and devices, and what came of working on each for a while.

    Args:
        seconds: float, how long each device multiplies matrices.

    Returns:
        dict: versions, and "checks" by their names: "ok", and what was measured or the error's first line. "failure"
        says which of them failed.
    """
    found = {
        "tfxformer": __version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}, {os.cpu_count()} processors",
        "packages": {name: _version(name, module) for name, module in PACKAGES.items()},
        "checks": {},
    }
    if is_installed("keras"):
        import keras

        found["backend"] = f"Keras {keras.__version__} on {keras.backend.backend()}"
        for device in keras.distribution.list_devices():
            found["checks"][device] = _checked(lambda device=device: _multiply(device, seconds))
        if keras.backend.backend() == "tensorflow":
            found["checks"]["export and run a file"] = _checked(_export)
    else:
        found["backend"] = 'none: pip install "tfxformer[train]" trains and exports; files run without'
    found["checks"]["LiteRT"] = _checked(_runtime)
    failed = [name for name, check in found["checks"].items() if not check["ok"]]
    return {**found, **({"failure": f"failed: {', '.join(failed)}"} if failed else {})}


def _version(name: str, module: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        if is_installed(module):  # of another distribution, such as tensorflow-cpu or tensorflow-tpu
            return "installed"
        extra = EXTRAS.get(module)
        return f'not installed: pip install "tfxformer[{extra}]"' if extra else "not installed: pip install tfxformer"


def _checked(work: Callable[[], dict]) -> dict:
    """What a piece of work measured; any error is what the command is there to find."""
    try:
        return {"ok": True, **work()}
    except Exception as error:
        return {"ok": False, "error": f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"}


def _multiply(device: str, seconds: float) -> dict:
    import keras
    from keras import ops

    with keras.device(device):
        x = ops.ones((WIDTH, WIDTH)) / WIDTH
        float(ops.sum(ops.matmul(x, x)))  # what a first product compiles is no work
        start, count = time.perf_counter(), 0
        while time.perf_counter() - start < seconds:
            total = float(ops.sum(ops.matmul(x, x)))  # a number on the host: the product is done
            count += 1
        spent = time.perf_counter() - start
    if abs(total - WIDTH) > 0.01 * WIDTH:
        raise ArithmeticError(f"a product of ones sums to {total}, wanted {WIDTH}")
    return {"float32_gflops": 2 * WIDTH**3 * count / spent / 1e9}


def _export() -> dict:
    import keras
    import numpy as np

    from tfxformer.export import LiteRTModel, export_litert

    inputs = keras.Input((8,), name="features")
    model = keras.Model(inputs, keras.layers.Dense(2, name="output")(inputs))
    x = np.linspace(-1.0, 1.0, 8, dtype="float32")[None]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "dense.tflite"
        export_litert(model, path, "float32")
        (signature,) = (file := LiteRTModel(path)).signatures
        (output,) = file.run(signature, {"features": x}).values()
    return {"error_of_the_file": float(np.abs(output - np.asarray(model(x))).max())}


def _runtime() -> dict:
    from ai_edge_litert.interpreter import Interpreter

    return {"interpreter": Interpreter.__module__}


def models() -> dict:
    """The presets, families and small files: what zoo.json holds; "text" is a table of them."""
    from tfxformer.recipes.zoo import in_words, zoo

    found = zoo()
    rows = [
        (row["name"], in_words(row["parameters"]), row["use"], row["hub"] or "trained here", row["licence"] or "")
        for row in found["presets"]
    ]
    rows = [("preset", "parameters", "for", "weights", "licence"), *rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    small = [f"{row['name']}: {row['title']}, {row['bytes']:,} bytes, {row['task']}" for row in found["saved"]]
    lines += ["", *(["In saved_models/ of a clone:", *small, ""] if small else [])]
    return {**found, "text": "\n".join([*lines, f"Families: {', '.join(row['name'] for row in found['families'])}"])}
