"""Pruning schedules, and a whole story on a tiny checkpoint."""

import json
import warnings

import batteries
import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st

from tfxformer import samples, tasks
from tfxformer.export import LiteRTModel
from tfxformer.recipes import pipeline, report, story

WORDS = ["Ada", "Bob", "sees", "meets", "Rome", "Oslo", "in"]


@given(steps=st.integers(2, 5000), sparsity=st.floats(0.01, 0.95))
def test_schedules_end_in_time_and_at_their_sparsity(steps, sparsity):
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # PolynomialDecay warns where it would not reach its end
        schedule = pipeline.pruning_schedule(sparsity, steps)
    assert 1 <= schedule.end_step <= max(1, steps * 2 // 3)
    assert schedule.end_step // schedule.frequency <= 9
    assert schedule.final_sparsity == sparsity


def test_one_step_is_no_schedule():
    with pytest.raises(ValueError, match="at least 2 training steps"):
        pipeline.pruning_schedule(0.5, 1)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    words = [word.lower() for word in WORDS]
    return tiny.checkpoint(tmp_path_factory.mktemp("tiny"), words, num_layers=1, max_positions=16, dropout=0.0)


def sentences():
    texts = [[who, verb, "in", where] for who in WORDS[:2] for verb in WORDS[2:4] for where in WORDS[4:6]]
    labels = [["person", "O", "O", "place"]] * len(texts)
    return samples.Split(texts * 8, labels * 8, texts, labels, ["O", "person", "place"])


@pytest.mark.road
def test_a_story_is_told_to_the_end(checkpoint, tmp_path):
    settings = pipeline.Settings(
        sequence_length=8,
        epochs=8,
        learning_rate=2e-2,
        prune_learning_rate=5e-3,
        batch_size=8,
        validation_split=0.25,
        test_texts=4,
        latency_rounds=2,
    )
    told = story.Story(
        name="people",
        title="People and places",
        task=tasks.TokenClassifier,
        checkpoint=lambda: checkpoint,
        split=sentences,
        full=settings,
        quick=settings,
        data="Made up.",
        limits="All.",
    )
    home = tmp_path / "home"
    home.mkdir()
    (home / "README.md").write_text(f"{report.BEGIN}\n{report.END}\n", encoding="utf-8")
    with batteries.steps(eager=False):
        results = story.main(told, home, ["--output", str(tmp_path / "out")])
    assert set(results["variants"]) == {"keras", "keras-pruned", "litert-float32", "litert-dynamic_int8"}
    assert results["main_score"] == "f1"
    assert results["variants"]["keras"]["scores"]["f1"] == 1.0
    assert results["variants"]["litert-float32"]["scores"] == results["variants"]["keras-pruned"]["scores"]
    assert results["variants"]["keras-pruned"]["sparsity"] == pytest.approx(0.5, abs=1e-3)
    assert results["data"] == {"train_texts": 64, "test_texts": 4}
    assert json.loads((home / "results.json").read_text())["variants"] == results["variants"]
    assert report.markdown_table(results) in (home / "README.md").read_text(encoding="utf-8")
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"people.keras", "people-float32.tflite", "people-int8.tflite", "config.json", "README.md"} <= names
    assert {"training-curve.png", "size-latency-accuracy.png", "results.json"} <= names
    tagger = LiteRTModel(tmp_path / "out" / "people-float32.tflite")
    assert tagger.predict(["Bob sees in Rome"]) == [["person", "O", "O", "place"]]
