"""Packages that the base install does not bring: what needs one says so here, with the pip line that brings it."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import sys

# What is imported -> the extra of setup.py that brings it.
EXTRAS = {
    "keras": "train",
    "jax": "jax",
    "tensorflow": "train",
    "tensorflow_model_optimization": "train",
    "matplotlib": "train",
    "unearth": "train",
    "yaml": "train",
    "ai_edge_quantizer": "int4",
    "apache_beam": "beam",
    "gguf": "gguf",
    "keras_tuner": "tune",
    "litert_lm_builder": "litertlm",
    "pyarrow": "parquet",
    "rouge_score": "metrics",
    "sacrebleu": "metrics",
    "scipy": "tune",
    "sklearn": "tune",
    "tensorboard": "tensorboard",
    "tensorflow_text": "text",
}


def needs(use: str, *packages: str) -> None:
    """Says which pip line helps, before an import would only say what is missing.

    Args:
        use: what needs them, the beginning of a sentence.
        packages: by the names they are imported by, of `EXTRAS`.

    Raises:
        ModuleNotFoundError: for the first that is not installed.
    """
    for package in packages:
        if not is_installed(package):
            line = f'pip install "tfxformer[{EXTRAS[package]}]"'
            if _on_tpu_host():  # what depends on `tensorflow` would be installed over `tensorflow-tpu`
                line += " (on a TPU host with --no-deps, as requirements-tpu.txt says)"
            raise ModuleNotFoundError(f"{use} needs {package}, which is not installed: {line}.", name=package)


def is_installed(package: str) -> bool:
    """Whether a package can be imported, by the name it is imported by; it is not imported."""
    if package in sys.modules:
        return sys.modules[package] is not None
    try:
        return importlib.util.find_spec(package) is not None
    except ModuleNotFoundError:  # of a finder that somebody has put in
        return False


def _on_tpu_host() -> bool:
    try:
        importlib.metadata.version("tensorflow-tpu")
    except importlib.metadata.PackageNotFoundError:
        return False
    return True
