"""The notebooks run from the first cell to the last, as they are committed."""

import importlib.util
import os
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted(ROOT.glob("applications/*/*.ipynb"))
ABSENT = [name for name in ("nbclient", "nbformat", "ipykernel") if importlib.util.find_spec(name) is None]


def printed(cell) -> str:
    return "".join(output.get("text", "") for output in cell["outputs"])


@pytest.mark.slow
@pytest.mark.samples
@pytest.mark.skipif(bool(ABSENT), reason=f'{", ".join(ABSENT)} not installed: pip install -e ".[test]"')
def test_the_tpu_notebook_on_a_cpu(tmp_path, monkeypatch):
    import nbclient
    import nbformat

    for name in ("COLAB_TPU_ADDR", "TPU_NAME", "TPU_ACCELERATOR_TYPE", "TF_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TFXFORMER_OUTPUT", str(tmp_path / "out"))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setenv("JUPYTER_PLATFORM_DIRS", "1")
    notebook = nbformat.read(ROOT / "applications/colab_tpu/colab_tpu.ipynb", as_version=4)
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


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_no_outputs_are_committed(path):
    import json

    cells = [cell for cell in json.loads(path.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]
    assert cells
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in cells)
