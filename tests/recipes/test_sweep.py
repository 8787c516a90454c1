"""The sweep on a tiny checkpoint: what it writes, that it goes on where it stopped, and how it chooses."""

import json
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st

from tfxformer import export, samples, tasks
from tfxformer.recipes import sweep
from tfxformer.recipes.sweep import results
from tfxformer.recipes.sweep.reading import make_recipe
from tfxformer.recipes.sweep.recipe import Choose

ROOT = Path(__file__).parent.parent.parent

WORDS = ["good", "bad", "film", "a", "the", "was", "it", "dull", "fine", "we", "saw", "is", "never", "said"]
RECIPE = {
    "name": "films",
    "model": "tiny",
    "data": "films",
    "sequence_length": 8,
    "validation": 0.25,
    "batch_size": 12,
    "latency_rounds": 2,
    "sweep": [
        {
            "tune": [{"epochs": 1, "learning_rate": 1e-2}],
            "vocabulary": ["trimmed"],
            "structure": [{"layers": 1, "heads": 2, "neurons": 32}],
            "distil": [{"epochs": 1, "learning_rate": 5e-3, "hidden_states": True}],
            "prune": [{"sparsity": 0.5, "learning_rate": 1e-3}],
        },
        {"tune": [{"epochs": 1, "learning_rate": 1e-2, "lora": 2}], "quantize": ["float16"]},
    ],
}


@pytest.fixture(scope="module")
def open_model(tmp_path_factory):
    folder = tiny.checkpoint(tmp_path_factory.mktemp("tiny"), WORDS, max_positions=16, dropout=0.0)
    return lambda: tasks.TextClassifier.from_pretrained(folder, labels=["neg", "pos"], sequence_length=8)


def films() -> samples.Split:
    rows = [
        (f"{article} film {verb} {word}", label)
        for article in ("the", "a")
        for verb in ("was", "is")
        for word, label in (("good", "pos"), ("fine", "pos"), ("dull", "neg"), ("bad", "neg"))
    ]
    texts, labels = map(list, zip(*rows, strict=True))
    return samples.Split(texts * 2, labels * 2, texts, labels, ["neg", "pos"])


@pytest.fixture(scope="module")
def done(open_model, tmp_path_factory):
    folder, said = tmp_path_factory.mktemp("sweep") / "films", []
    found = sweep.run(make_recipe(RECIPE), films(), open_model, folder, verbose=0, progress=said.append)
    return folder, found, said


@pytest.mark.road
def test_every_point_is_made_and_measured(done):
    folder, found, said = done
    assert [line.split(":")[0] for line in said[:-1]] == [
        *("tune", "exporting and measuring", "vocabulary", "structure", "distil", "prune", "exporting and measuring"),
        *("tune", "exporting and measuring"),
    ]
    baseline, pruned, lora = found["points"]
    assert baseline["smaller"] == baseline["faster"] == 1.0
    for part in ("validation", "test"):
        assert baseline["lost"][part] == baseline["standard_errors"][part] == 0.0
    assert pruned["parameters"] < baseline["parameters"] == lora["parameters"]
    assert pruned["bytes"] < lora["bytes"] < baseline["bytes"]
    (distilled,) = folder.glob("stages/distil-*/model.keras")
    kernels = [
        weight.numpy()
        for path in (distilled, *folder.glob("stages/prune-*/model.keras"))
        for weight in keras.saving.load_model(path).trainable_weights
        if weight.path.endswith("expand/kernel")
    ]
    assert [round(float(np.mean(kernel == 0)), 2) for kernel in kernels] == [0.0, 0.5]
    assert found["data"] == {"train_texts": 24, "validation_texts": 8, "test_texts": 16}
    assert json.loads((folder / "results.json").read_text(encoding="utf-8")) == {
        key: value for key, value in found.items() if key != "folder"
    }


@pytest.mark.road
def test_the_chosen_file_is_the_one_measured(done):
    folder, found, _ = done
    point, split = found["points"][found["chosen"]], films()
    file = export.LiteRTModel(folder / "films.tflite")
    answers = [file.labels[row.argmax()] for row in file.predict(split.test_texts)]
    assert np.mean(np.array(answers) == split.test_labels) == point["test"]
    assert (folder / "films.tflite").stat().st_size == point["bytes"]
    model = keras.saving.load_model(folder / "films.keras")
    assert model.count_params() == point["parameters"]
    page = (folder / "RESULTS.md").read_text(encoding="utf-8")
    assert f"{point['test']:.4f}" in page and "(chosen)" in page
    assert all((folder / f"score-over-{what}.png").stat().st_size > 1000 for what in ("size", "latency"))


@pytest.mark.road
def test_a_sweep_goes_on_where_it_stopped(done, open_model, tmp_path):
    _, found, _ = done
    folder = shutil.copytree(done[0], tmp_path / "films")
    before = {path: path.read_bytes() for path in folder.glob("points/*/model.tflite")}
    (pruned,) = folder.glob("stages/prune-*")
    lost = next(path for path in before if len(before[path]) == found["points"][1]["bytes"])
    lost.with_name("point.json").unlink()
    (pruned / "model.keras").unlink()
    said = []
    again = sweep.run(make_recipe(RECIPE), films(), open_model, folder, verbose=0, progress=said.append)
    assert [line.split(":")[0] for line in said[:-1]] == ["prune", "exporting and measuring"]
    assert {path: path.read_bytes() for path in folder.glob("points/*/model.tflite")} == before
    assert [point["test"] for point in again["points"]] == [point["test"] for point in found["points"]]


@pytest.mark.road
def test_what_cannot_be_exported_is_refused_and_a_sweep_that_has_grown_goes_on(done, open_model, tmp_path, monkeypatch):
    def refuse(model, path, quantization, **options):
        if quantization == "float16":
            raise export.ExportError("relative L2 error 1.0, but float16 allows 0.005")
        return export.export_litert(model, path, quantization, **options)

    monkeypatch.setattr(sweep.running, "export_litert", refuse)
    folder, said = shutil.copytree(done[0], tmp_path / "films"), []
    recipe = {**RECIPE, "sweep": {"tune": RECIPE["sweep"][0]["tune"], "quantize": ["float16"]}}
    found = sweep.run(make_recipe(recipe), films(), open_model, folder, verbose=0, progress=said.append)
    assert [line.split(":")[0] for line in said[:-1]] == ["exporting and measuring"]
    assert "refused" in found["points"][1] and found["chosen"] == 0
    assert "- 1. was refused: relative L2 error 1.0" in (folder / "RESULTS.md").read_text(encoding="utf-8")


def test_nothing_is_held_out_of_nothing(open_model, tmp_path):
    split = films()._replace(train_texts=["a film"], train_labels=["pos"])
    with pytest.raises(ValueError, match=r"validation 0.25 of 1 texts leaves 0 to validate on"):
        sweep.run(make_recipe(RECIPE), split, open_model, tmp_path)


def point(size, score):
    return {"bytes": size, "latency": {"median_ms": size}, "lost": {"validation": 100 * (1 - score)}, "test": score}


POINTS = st.lists(st.builds(point, st.integers(1, 6), st.integers(0, 6).map(lambda n: n / 6)), min_size=1)


@given(POINTS, st.sampled_from(["bytes", "median_ms"]))
def test_the_front_is_what_nothing_beats(points, size):
    front = results.pareto(points, size)

    def beats(one, other):
        a, b = ((results.measure(p, size), -p["test"]) for p in (one, other))
        return a != b and a[0] <= b[0] and a[1] <= b[1]

    unbeaten = [p for p in points if not any(beats(q, p) for q in points)]
    assert {(points[i]["bytes"], points[i]["test"]) for i in front} == {(p["bytes"], p["test"]) for p in unbeaten}


@given(POINTS, st.floats(0, 100), st.floats(0, 30))
def test_the_choice_is_the_smallest_that_is_good_enough(points, within, error):
    points = [{**p, "standard_errors": {"validation": error}} for p in points]
    chosen = results.choose(points, Choose(within))
    good = [p for p in points if 100 * (1 - p["test"]) - error <= within]
    assert (chosen is None) == (not good)
    if good:
        assert points[chosen] in good and points[chosen]["bytes"] == min(p["bytes"] for p in good)


def test_errors_are_those_of_paired_answers():
    points = [{"bytes": 4, "latency": {"median_ms": 2.0}, "validation": 0.5, "test": 0.75} for _ in range(2)]
    points[0]["right"] = {"validation": "0101", "test": "1110"}
    points[1]["right"] = {"validation": "0101", "test": "1011"}
    errors = results.compared(points)[1]["standard_errors"]
    differences = np.array([0, 1, 0, -1])
    assert errors == {"validation": 0.0, "test": pytest.approx(100 * np.sqrt(np.mean(differences**2) / 4))}


def test_a_picture_names_its_points_and_its_limit(monkeypatch):
    """Of the story's own results, kept in its folder."""
    found = json.loads((ROOT / "applications" / "shrink_sentiment" / "results.json").read_text(encoding="utf-8"))
    drawn = []
    monkeypatch.setattr(results, "save_figure", lambda figure, path: drawn.append(figure))
    results.plot(found, "bytes", None)
    (panel,) = drawn[0].axes
    assert [text.get_text().replace("\n", " ") for text in panel.texts] == [one["name"] for one in found["points"]]
    legend = [text.get_text() for text in panel.get_legend().get_texts()]
    assert "chosen" in legend and "1 point below float32" in legend
    limit = next(line for line in panel.lines if line.get_label() == "1 point below float32")
    assert set(limit.get_ydata()) == {found["points"][0]["test"] - 0.01}
