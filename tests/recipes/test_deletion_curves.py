"""applications/sentiment/explain.py: texts without words, areas under curves, and all of it on a tiny classifier."""

import importlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny

from tfxformer import tasks
from tfxformer.tasks.explaining.words import WordWeight

STORY = Path(__file__).parents[2] / "applications" / "sentiment"
TEXT = "a dull film, and a long one"
WORDS = [
    WordWeight(TEXT[a:b], weight, a, b) for a, b, weight in ((0, 1, 0.1), (2, 6, 0.9), (7, 11, 0.4), (17, 18, 0.2))
]


@pytest.fixture(scope="module")
def script():
    """The script's module, imported as its command does."""
    sys.path.insert(0, str(STORY))
    try:
        yield importlib.import_module("explain")
    finally:
        sys.path.remove(str(STORY))
        for name in ("explain", "run"):
            sys.modules.pop(name, None)


def test_words_are_taken_out(script):
    assert script.without(TEXT, []) == TEXT
    assert script.without(TEXT, [WORDS[2], WORDS[1]]) == "a , and a long one"
    order = script.by_weight(WORDS)
    assert [word.text for word in order] == ["dull", "film", "a", "a"]
    texts = script.shortened(TEXT, order)
    assert len(texts) == len(script.SHARES) and texts[0] == TEXT
    assert texts[-1] == script.without(TEXT, order[:2])  # half of them


def test_areas(script):
    assert script.area(np.ones(len(script.SHARES))) == pytest.approx(1.0)
    assert script.area(1.0 - np.array(script.SHARES)) == pytest.approx(0.75)
    ours, others = np.full((4, 6), 0.2), np.full((4, 6), 0.5)
    found = script.advantage(ours, others)
    assert found["mean"] == pytest.approx(0.3) and found["interval"] == pytest.approx([0.3, 0.3])


def test_a_classifier_of_one_word_falls_where_that_word_goes(script, tiny_tokenizer, monkeypatch, tmp_path):
    """A head that reads whether "good" is there: by gradients it goes first, by chance later."""
    model = tasks.TextClassifier(
        tiny.backbone("distilbert"), ["no", "yes"], tokenizer=tiny_tokenizer, sequence_length=16
    )
    tiny.perturb(model)
    texts = ["the film was very good and fast", "the cat sat on the good mat", "a good dog ran in london and paris"]

    def predict(given, **options):
        yes = np.array([0.95 if "good" in text else 0.05 for text in given])
        return np.stack([1.0 - yes, yes], -1)

    def explain(given, **options):
        found = type(model).explain(model, given, **options)
        return [
            one.__class__(
                **{
                    **vars(one),
                    "words": [WordWeight(w.text, float(w.text == "good"), w.start, w.end) for w in one.words],
                }
            )
            for one in found
        ]

    monkeypatch.setattr(model, "predict", predict)
    monkeypatch.setattr(model, "explain", explain)
    found, _ = script.orders(model, texts, seed=0)
    drawn = script.curves(model, texts, found)
    assert drawn["integrated_gradients"][:, 0] == pytest.approx(0.95)
    assert drawn["integrated_gradients"][:, 2:] == pytest.approx(0.05)  # with one word of five gone
    assert script.advantage(drawn["integrated_gradients"], drawn["random"])["mean"] > 0.1


def test_page_and_picture(script, tmp_path):
    curve = {"probability": [0.9, 0.7, 0.5, 0.4, 0.3, 0.2], "area": 0.5}
    gap = {"integrated_gradients_is_lower_by": {"mean": 0.1, "interval": [0.05, 0.15]}}
    methods = {name: {**curve, **({} if name == "integrated_gradients" else gap)} for name in script.METHODS}
    results = {
        "texts": 3, "words": 7.0, "shares": script.SHARES, "largest_gap_of_completeness": 0.001, "methods": methods,
        "processor_seconds": 1.0, "accuracy": 0.9, "command": "python explain.py", "machine": "2 cores",
        "date": "today",
    }  # fmt: skip
    section = script.section(json.loads(json.dumps(results)))
    assert "| integrated gradients | 0.500 | 0.700 |" in section and "0.100 (0.050 to 0.150)" in section
    script.draw(results, tmp_path / "curve.png")
    assert (tmp_path / "curve.png").read_bytes()[:4] == b"\x89PNG"
