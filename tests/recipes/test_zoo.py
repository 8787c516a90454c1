"""The list of models: what it says is what is there."""

import importlib.util
from pathlib import Path

import pytest

import tfxformer
from tfxformer.recipes import zoo

ROOT = Path(__file__).parent.parent.parent
# As transformers counts encoders without heads, and the others with their output layers.
PUBLISHED = {
    "bert-base": 109_482_240,
    "distilbert-base": 66_362_880,
    "flan-t5-small": 76_961_152,
    "gpt2": 124_439_808,
    "llama-3.2-1b": 1_235_814_400,
    "mistral-7b": 7_241_732_096,
    "pythia-70m": 70_426_624,
    "qwen2.5-0.5b": 494_032_768,
    "t5-small": 60_506_624,
}


@pytest.fixture(scope="module")
def models():
    """The script that writes the list."""
    spec = importlib.util.spec_from_file_location("models_page", ROOT / "docs" / "models.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_list_and_page_are_as_the_script_writes_them(models):
    found = models.gather()
    assert found == zoo.zoo()
    assert models.page(found) == (ROOT / "docs" / "models.md").read_text(encoding="utf-8")


def test_parameters(models):
    rows = {row["name"]: row["parameters"] for row in zoo.zoo()["presets"]}
    assert {name: rows[name] for name in PUBLISHED} == PUBLISHED
    assert rows["bert-tiny"] == tfxformer.build("bert-tiny").count_params() == models.parameters("bert-tiny")


def test_numbers_in_words():
    assert [zoo.in_words(count) for count in (4_385_920, 124_439_808, 7_241_732_096, 999)] == [
        "4.4M", "124M", "7.2B", "999",
    ]  # fmt: skip


def test_every_preset_says_where_its_weights_come_from():
    for row in zoo.zoo()["presets"]:
        assert row["use"]
        assert bool(row["hub"]) == bool(row["licence"]), row["name"]  # weights, and who may use them
