"""The search: recipes are checked, KerasTuner's three methods end where they should, and what was stopped goes on."""

import json
import math

import numpy as np
import pytest

from tfxformer import samples
from tfxformer.data.files import rows as files
from tfxformer.recipes.sweep import tuning
from tfxformer.recipes.sweep.tuning import results, searching, training
from tfxformer.recipes.sweep.tuning.reading import make_recipe
from tfxformer.recipes.sweep.tuning.recipe import Dial

SPACE = {"learning_rate": {"min": 1e-5, "max": 1e-1, "log": True}, "batch_size": [8, 16, 32]}
RECIPE = {"model": "tiny", "data": {"train": "train.csv"}, "space": SPACE}


def recipe(folder, **search):
    (folder / "train.csv").write_text("text,label\n" + "a film,pos\nno film,neg\n" * 20, encoding="utf-8")
    made = make_recipe({**RECIPE, "search": {"objective": "val_accuracy", **search}}, folder)
    return make_recipe({**RECIPE, "data": {"train": str(folder / "train.csv")}, "search": made.search})


class Trained(list):
    """Stands in for the training of trials: a score that is known, best at a learning rate of 1e-3; keeps the dials."""

    def __init__(self, monkeypatch):
        monkeypatch.setattr(searching.Trainer, "__call__", lambda _, dials: self.train(dials))
        self.stop_at = self.error = None

    def train(self, dials):
        if len(self) == self.stop_at:
            raise self.error
        self.append(dials)
        score = 1.0 - (math.log10(dials["learning_rate"]) + 3.0) ** 2 / 10.0
        return {"score": score, "training": 1.0, "epoch": dials.get("epochs", 3), "seconds": 0.5}


@pytest.fixture
def trained(monkeypatch):
    return Trained(monkeypatch)


def run(recipe, folder, said=None):
    return tuning.run(recipe, folder, verbose=0, progress=(said if said is not None else []).append)


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({"space": {"lerning_rate": [1e-3]}}, "unknown 'lerning_rate' (did you mean learning_rate?); known: learning"),
        ({"space": {"learning_rate": 1e-3}}, "space.learning_rate: wanted a list of values such as [16, 32], or an"),
        ({"space": {"learning_rate": [0]}}, "space.learning_rate: wanted numbers above 0, got 0"),
        ({"space": {"batch_size": [16.5]}}, "space.batch_size: wanted integers from 1 on, got 16.5"),
        ({"space": {"batch_size": [True]}}, "space.batch_size: wanted integers from 1 on, got True"),
        ({"space": {"batch_size": [8, 8]}}, "space.batch_size: a value stands there twice in [8, 8]"),
        ({"space": {"epochs": {"min": 4, "max": 2}}}, "space.epochs: min 4 must be below max 2"),
        ({"space": {"weight_decay": {"min": 0, "max": 1, "log": True}}}, "with log, min must be above 0, got 0"),
        (
            {"space": {"warmup": {"min": 0, "max": 1}}},
            "space.warmup.max: wanted shares of the steps, from 0 and below 1",
        ),
        ({"space": {}}, "space is empty: give at least one of learning_rate, batch_size"),
        ({"search": {"method": "grid"}}, "search.method='grid' must be one of random, hyperband, bayesian"),
        ({"search": {"trials": 0}}, "search.trials=0 must be between 1 and 1000"),
        ({"search": {"method": "hyperband", "trials": 3}}, "search: trials is not for hyperband"),
        ({"search": {"method": "hyperband", "epochs": 2}}, "epochs=2 must be 3 or more for hyperband"),
        ({"search": {"objective": "accuracy"}}, "search.objective='accuracy' must be one of val_loss, val_accuracy"),
        ({"search": {"epochs": 3}, "space": {"epochs": [1, 2]}}, "search.epochs and space.epochs are both given"),
        ({"data": "movies"}, "data: 'movies' is no labelled sample; known: bbc_topics"),
        ({"data": {"test": "a.csv"}}, "data: wanted {train: FILE}, {train: FILE, validation: FILE} or the name of a"),
        (
            {"data": {"train": "a", "validation": "b"}, "validation": 0.5},
            "validation and data.validation are both given",
        ),
        ({"validation": 1.5}, "validation=1.5 must be a share between 0 and 1"),
        ({"task": "token-classification", "problem_type": "regression"}, "problem_type is of text-classification"),
        ({"train_texts": 10}, "train_texts is for samples"),
    ],
)
def test_what_is_wrong_in_a_recipe_is_said_with_its_place(changes, wanted):
    with pytest.raises(ValueError) as error:
        make_recipe({**RECIPE, **changes})
    assert wanted in str(error.value)


def test_a_file_is_read_from_its_own_folder(tmp_path):
    (tmp_path / "train.csv").write_text("text,label\na,b\n", encoding="utf-8")
    path = tmp_path / "recipe.yaml"
    lines = ["model: tiny", "data: {train: train.csv}", "space: {learning_rate: {min: 1e-5, max: 1e-3, log: true}}"]
    path.write_text("\n".join(lines), encoding="utf-8")
    found = tuning.read_recipe(path)
    assert found.data == {"train": str(tmp_path / "train.csv")} and found.held_out == "0.1"
    assert found.space == {"learning_rate": Dial(low=1e-5, high=1e-3, log=True)}  # YAML reads 1e-5 as a text
    path.write_text("\n".join([*lines[:1], "data: {train: no.csv}", *lines[2:]]), encoding="utf-8")
    with pytest.raises(ValueError, match=r"recipe.yaml: data.train: there is no file .*no.csv"):
        tuning.read_recipe(path)


@pytest.mark.parametrize("method", ["random", "bayesian"])
def test_so_many_settings_within_the_space_are_tried_and_the_best_named(method, trained, tmp_path):
    found = run(recipe(tmp_path, method=method, trials=6), tmp_path / "out")
    dials, scores = [trial["dials"] for trial in found["trials"]], [trial["score"] for trial in found["trials"]]
    assert dials == list(trained) and len({str(one) for one in dials}) == 6
    assert all(1e-5 <= one["learning_rate"] <= 1e-1 and one["batch_size"] in (8, 16, 32) for one in dials)
    assert found["best"] == int(np.argmax(scores))
    assert found["data"] == {"training_texts": 36, "validation_texts": 4}
    rate = dials[found["best"]]["learning_rate"]
    assert f"--learning-rate {rate!r} " in found["command"] and "--monitor val_accuracy" in found["command"]
    assert json.loads((tmp_path / "out" / "results.json").read_text(encoding="utf-8"))["trials"] == found["trials"]
    page = (tmp_path / "out" / "RESULTS.md").read_text(encoding="utf-8")
    assert found["command"] in page and f"| {found['best'] + 1} (best) |" in page
    assert (tmp_path / "out" / "search.png").stat().st_size > 1000


def test_the_bayesian_search_learns_from_the_scores(trained, tmp_path):
    wanted = recipe(tmp_path, method="bayesian", trials=5)
    first = [trial["dials"] for trial in run(wanted, tmp_path / "first")["trials"]]
    score, trained.train = trained.train, lambda dials: {**score(dials), "score": dials["learning_rate"]}
    other = [trial["dials"] for trial in run(wanted, tmp_path / "other")["trials"]]
    assert first[:3] == other[:3] and first[3:] != other[3:]  # three are drawn by chance


def test_hyperband_gives_the_better_settings_more_epochs(trained, tmp_path):
    found = run(recipe(tmp_path, method="hyperband", epochs=9), tmp_path / "out")
    by_epochs = {}
    for trial in found["trials"]:
        by_epochs.setdefault(trial["dials"]["epochs"], []).append(trial)
    assert sorted(by_epochs) == [1, 3, 9]  # a third of the epochs for three times as many settings
    first = sorted(by_epochs[1], key=lambda trial: -trial["score"])
    going_on = {trial["dials"]["learning_rate"] for trial in by_epochs[3]}
    assert {trial["dials"]["learning_rate"] for trial in first[:2]} <= going_on
    assert f"--epochs {found['trials'][found['best']]['dials']['epochs']} " in found["command"]


@pytest.mark.parametrize("search", [{"method": "random", "trials": 6}, {"method": "hyperband", "epochs": 9}])
def test_a_stopped_search_goes_on_as_if_it_had_not_been(search, trained, tmp_path):
    whole = run(recipe(tmp_path, **search), tmp_path / "whole")["trials"]
    trained.clear()
    trained.stop_at, trained.error = 4, KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        run(recipe(tmp_path, **search), tmp_path / "stopped")
    trained.stop_at = None
    said = []
    again = run(recipe(tmp_path, **search), tmp_path / "stopped", said)
    assert again["trials"] == whole
    assert len(trained) == len(whole)  # what was done is not done again, and what was running is
    assert "4 trials are done" in said[0]
    assert run(recipe(tmp_path, **search), tmp_path / "stopped")["trials"] == whole and len(trained) == len(whole)


def test_more_trials_go_on_and_another_seed_begins_anew(trained, tmp_path):
    first = run(recipe(tmp_path, trials=3), tmp_path)["trials"]
    assert run(recipe(tmp_path, trials=12), tmp_path)["trials"][:3] == first and len(trained) == 12
    other = run(recipe(tmp_path, trials=3, seed=1), tmp_path)["trials"]
    assert len(trained) == 15 and other != first


def test_trials_fail_alone_for_memory_and_scores_and_other_errors_end_the_search(trained, tmp_path):
    trained.stop_at, trained.error = 1, RuntimeError("RESOURCE_EXHAUSTED: out of memory while trying to allocate")
    with pytest.raises(ValueError, match="None of the 2 trials gave a finite val_accuracy"):
        trained.stop_at = 0
        run(recipe(tmp_path, trials=2), tmp_path / "none")
    trained.error = OSError("the disk is gone")
    with pytest.raises(OSError, match="the disk is gone"):
        run(recipe(tmp_path, trials=2), tmp_path / "disk")
    trained.stop_at = None
    score, trained.train = trained.train, lambda dials: {**score(dials), "score": math.nan if not trained[1:] else 0.5}
    found = run(recipe(tmp_path, trials=3), tmp_path / "nan")
    assert ["failed" in trial for trial in found["trials"]] == [True, False, False] and found["best"] == 1
    assert "val_accuracy is not finite" in results.page(found)


def test_a_search_that_was_damaged_is_named(trained, tmp_path):
    run(recipe(tmp_path, trials=2), tmp_path)
    (state,) = tmp_path.glob("search-*/oracle.json")
    state.write_text('{"ongoing', encoding="utf-8")
    with pytest.raises(ValueError, match=r"cannot be read .*: remove it, and it begins anew"):
        run(recipe(tmp_path, trials=2), tmp_path)


@pytest.mark.parametrize(
    ("texts", "labels", "task"),
    [
        (['a film, "good"', "né"], ["pos", "neg"], "text-classification"),
        ([["12", "High", "St"], ["Rome"]], [["no", "street", "street"], ["city"]], "token-classification"),
    ],
)
def test_a_sample_is_trained_on_from_a_file_that_reads_as_the_sample(texts, labels, task, tmp_path, monkeypatch):
    split = samples.Split(texts * 2, labels * 2, ["test"], ["pos"], [])
    monkeypatch.setattr(samples, "vader_movies", lambda: split)
    made = make_recipe({**RECIPE, "data": "vader_movies", "task": task, "train_texts": 3})
    rows = files.read_rows(searching._training_file(made, tmp_path), task)
    assert files.task_inputs(rows, task) == (texts * 2)[:3]
    assert files.task_targets(rows, task, "single_label_classification") == (labels * 2)[:3]


@pytest.mark.parametrize(
    ("monitor", "values", "best"),
    [("val_loss", [0.5, 0.4, 0.4], 1), ("val_accuracy", [0.5, 0.4, math.nan], 0), ("val_loss", [math.nan, 3.0], 1)],
)
def test_the_best_epoch_is_the_first_of_the_best(monitor, values, best):
    assert training.best_epoch(values, monitor) == best
