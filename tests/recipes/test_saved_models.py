"""The small files in saved_models/: they work from a bare clone, and say what their cards say."""

import json
import subprocess
from pathlib import Path

import pytest

from tfxformer.runtime import LiteRTGenerator, LiteRTModel

ROOT = Path(__file__).parent.parent.parent
SAVED = sorted(path.parent for path in (ROOT / "saved_models").glob("tiny-*/results.json"))


def test_saved_models_are_small():
    sizes = [path.stat().st_size for path in (ROOT / "saved_models").glob("tiny-*/*.tflite")]
    assert len(sizes) == len(SAVED) > 0
    assert max(sizes) <= 2_000_000
    assert sum(sizes) <= 10_000_000
    tracked = subprocess.run(
        ["git", "ls-files", "saved_models"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.split()
    if tracked:  # not in an unpacked archive
        assert {f"saved_models/{folder.name}/{folder.name}.tflite" for folder in SAVED} <= set(tracked)


@pytest.mark.parametrize("folder", SAVED, ids=lambda folder: folder.name)
def test_saved_model_says_of_its_example_what_its_card_says(folder):
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    path, example = folder / f"{folder.name}.tflite", results["example"]
    assert path.stat().st_size == results["bytes"]
    if results["task"] == "token-classification":
        said = " ".join(LiteRTModel(path).predict([example])[0])
    elif results["task"] == "text-classification":
        said = max(zip(LiteRTModel(path).predict([example])[0], LiteRTModel(path).labels, strict=True))[1]
    else:
        said = LiteRTGenerator(path).generate(example, 24)
    assert said == results["answer"]
    assert results["answer"] in (folder / "README.md").read_text(encoding="utf-8")
