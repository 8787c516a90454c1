"""The notebooks run from the first cell to the last, as they are committed."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import cases
import pytest

ROOT = Path(__file__).parent.parent
JAX = os.environ.get("TFXFORMER_JAX_PYTHON")
NOTEBOOKS = sorted(ROOT.glob("applications/*/*.ipynb"))
ABSENT = [name for name in ("nbclient", "nbformat", "ipykernel") if importlib.util.find_spec(name) is None]


def printed(cell) -> str:
    return "".join(output.get("text", "") for output in cell["outputs"])


@pytest.mark.slow
@pytest.mark.samples
@pytest.mark.skipif(bool(ABSENT), reason=f'{", ".join(ABSENT)} not installed: pip install -e ".[test]"')
def test_the_notebook_of_tensorflow_on_a_cpu(tmp_path, monkeypatch):
    import nbclient
    import nbformat

    for name in ("COLAB_TPU_ADDR", "TPU_NAME", "TPU_ACCELERATOR_TYPE", "TF_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TFXFORMER_OUTPUT", str(tmp_path / "out"))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setenv("JUPYTER_PLATFORM_DIRS", "1")
    notebook = nbformat.read(ROOT / "applications/colab_tpu/tensorflow_tpu.ipynb", as_version=4)
    client = nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}})
    client.execute()
    install, devices, text, *_ = cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert "Skipped: this machine has no TPU" in printed(install)
    assert "strategy('auto')" in printed(devices)
    assert "characters to train on" in printed(text)
    losses = next(printed(cell) for cell in cells if "val_loss" in printed(cell))
    assert float(losses.rpartition("'val_loss': ")[2].split(",")[0].rstrip("}\n")) < 3.6  # of 4.6 at the start
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"config.json", "model.safetensors", "model.keras", "model.tflite"} <= names


def code_of(name: str) -> list[str]:
    cells = json.loads((ROOT / "applications/colab_tpu" / name).read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


@pytest.mark.slow
@pytest.mark.samples
@pytest.mark.client
@pytest.mark.skipif(not JAX, reason="TFXFORMER_JAX_PYTHON names no Python with JAX: see tests/backends")
def test_the_notebook_of_jax_on_eight_devices(tmp_path):
    """Trained with the image's versions and without TensorFlow; its last cell alone makes the files here."""
    cells = code_of("colab_tpu.ipynb")
    settings = {**cases.environment(), "TFXFORMER_OUTPUT": str(tmp_path / "out")}
    settings = {name: value for name, value in settings.items() if name != "KERAS_BACKEND"}  # the notebook sets it

    def run(python, code, **more):
        script = tmp_path / "cells.py"
        script.write_text(code, encoding="utf-8")
        command = [python, str(script)]
        done = subprocess.run(command, env={**settings, **more}, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    said = run(JAX, "\n\n".join(cells))
    assert "DataParallel, 8 replica(s)" in said and "TensorFlow is not here" in said
    assert float(said.rpartition("'val_loss': ")[2].split(",")[0].split("}")[0]) < 3.6  # of 4.6 at the start
    said = run(sys.executable, cells[-1], XLA_FLAGS="")
    assert "topics.tflite" in said and "gpt.tflite" in said
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"topics", "topics.tflite", "gpt", "gpt.keras", "gpt.tflite"} <= names


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_no_outputs_are_committed(path):
    cells = [cell for cell in json.loads(path.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]
    assert cells
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in cells)
