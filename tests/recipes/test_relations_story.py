"""applications/relations: its rows and baselines, and the whole story on a few rows."""

import importlib
import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import tiny

from tfxformer import data
from tfxformer.samples.formats.wordnet import Relation

STORY = Path(__file__).parents[2] / "applications" / "relations"
ROWS = [
    Relation(f"{head}: a {tail} of the {kind}", (0, len(head)), (len(head) + 4, len(head) + 4 + len(tail)), label)
    for kind, tail, label in (
        ("london", "cat", "hypernym"),
        ("paris", "film", "part_of"),
        ("machine", "dog", "derived"),
    )
    for head in ("good", "bad", "red", "blue", "fast", "slow", "mat", "plot", "code", "engine")
]


@pytest.fixture(scope="module")
def story():
    """The story's module, imported as its command does."""
    pytest.importorskip("sklearn", reason="the story's baseline: pip install scikit-learn")
    sys.path.insert(0, str(STORY))
    try:
        yield importlib.import_module("run")
    finally:
        sys.path.remove(str(STORY))
        sys.modules.pop("run", None)


def test_rows_are_of_the_relations_named_and_not_too_long(story, tiny_tokenizer):
    settings = replace(story.QUICK, most=8, sequence_length=16)
    rows = story.rows_of(ROWS, tiny_tokenizer, settings)
    assert {row.label for row in rows} == {"hypernym", "part_of"}
    lengths = tiny_tokenizer.with_tokens(data.ENTITY_MARKERS).token_counts([story.marked(row) for row in rows])
    assert lengths.max() <= 16
    assert all(sum(row.label == label for row in rows) == 8 for label in ("hypernym", "part_of"))
    assert not story.rows_of(ROWS, tiny_tokenizer, replace(settings, sequence_length=8))


def test_a_gloss_is_in_one_part(story):
    twice = [*ROWS, *(row._replace(label="has_part") for row in ROWS)]
    learned, held_out = story.split(twice)
    assert len(learned) + len(held_out) == len(twice) and len(held_out) == 12
    assert not {row.text for row in learned} & {row.text for row in held_out}


def test_texts_and_scores(story):
    (row,) = [row for row in ROWS if row.text.startswith("red: a film")]
    assert story.marked(row) == "[E1] red [/E1]: a [E2] film [/E2] of the paris"
    assert story.masked(row) == "HEADWORD: a TAILWORD of the paris"
    found = story.scored(["hypernym"] * 30, ROWS)
    assert found["accuracy"] == pytest.approx(1 / 3)
    assert found["macro_f1"] == pytest.approx((2 * (1 / 3) / (4 / 3) + 0 + 0) / 3)
    learned, held_out = story.split(ROWS)
    baselines = story.baselines(learned, held_out)
    assert baselines["tfidf"]["accuracy"] == 1.0 > baselines["majority"]["accuracy"]


@pytest.mark.road
def test_the_whole_story(story, tmp_path, monkeypatch):
    words = sorted({word.strip(":").lower() for row in ROWS for word in row.text.split()})
    (tmp_path / "model").mkdir()
    checkpoint = tiny.checkpoint(tmp_path / "model", words)
    monkeypatch.setattr(story.samples, "minilm", lambda: checkpoint)
    monkeypatch.setattr(story.samples, "wordnet_relations", lambda: ROWS)
    settings = replace(story.QUICK, sequence_length=16, dtype="float32")
    results = story.run(tmp_path, settings, verbose=0)
    assert {path.name for path in tmp_path.iterdir()} >= {story.MODEL, story.FILE}
    assert set(results["variants"]) == set(story.NAMES)
    page = story.section(json.loads(json.dumps(results)))
    assert all(name in page for name in story.NAMES.values())
    assert results["data"]["learned"] + results["data"]["held_out"] == 20
