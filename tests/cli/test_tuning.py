"""The command tune, and that the line it prints trains what the best trial has trained."""

import json
import shlex

import keras
import numpy as np
import pytest
from typer.testing import CliRunner

from tfxformer.cli.main import app
from tfxformer.recipes.pipeline import hold_out

RECIPE = """
model: {model}
data: {{train: train.csv}}
sequence_length: 8
validation: 0.25
search: {{trials: 2, objective: val_accuracy, epochs: 3, early_stopping: 1, seed: 3}}
space: {{learning_rate: [3e-2, 1e-5], batch_size: [12], weight_decay: {{min: 0.0, max: 0.1}}, warmup: [0.2]}}
"""
WORDS = (("good", "pos"), ("fine", "pos"), ("dull", "neg"), ("bad", "neg"))


@pytest.fixture
def recipe(tiny, tmp_path):
    rows = [
        f"{article} film {verb} {word},{label}"
        for article in ("the", "a", "it", "we")
        for verb in ("was", "is", "saw")
        for word, label in WORDS
    ]
    (tmp_path / "train.csv").write_text("\n".join(["text,label", *rows]), encoding="utf-8")
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE.format(model=tiny), encoding="utf-8")
    return path


def run(*arguments):
    return CliRunner().invoke(app, [*map(str, arguments)])


@pytest.mark.slow
def test_the_line_of_the_best_setting_gives_its_score_again(recipe, tmp_path):
    result = run("tune", recipe, "--output", tmp_path / "found")
    assert result.exit_code == 0, result.stderr
    found = json.loads((tmp_path / "found" / "results.json").read_text(encoding="utf-8"))
    best = found["trials"][found["best"]]
    assert found["command"] in result.stdout and len(found["trials"]) == 2
    program, *arguments = shlex.split(found["command"])
    again = run(*arguments)
    assert program == "tfxformer" and again.exit_code == 0, again.stderr
    folder = tmp_path / "found" / "best"
    trained = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    assert trained["best_epoch"]["val_accuracy"] == best["score"] and trained["best_epoch"]["epoch"] == best["epoch"]
    # The weights are those of that epoch: counted by hand on the held-out texts.
    lines = [line.rsplit(",", 1) for line in (tmp_path / "train.csv").read_text(encoding="utf-8").splitlines()[1:]]
    _, (texts, labels) = hold_out([text for text, _ in lines], [label for _, label in lines], 0.25, 3, "")
    model = keras.saving.load_model(folder / "model.keras")
    answers = [model.labels[row.argmax()] for row in model.predict(texts, verbose=0)]
    assert np.mean(np.array(answers) == labels) == pytest.approx(best["score"], abs=1e-6)


def test_errors_are_one_line(recipe, tmp_path):
    text = recipe.read_text(encoding="utf-8")
    recipe.write_text(text.replace("[3e-2, 1e-5]", "fast"), encoding="utf-8")
    said = run("tune", recipe, "--output", tmp_path / "found").stderr
    assert said.count("\n") == 1 and "space.learning_rate: wanted a list of values" in said and "got 'fast'" in said
    recipe.write_text(text.replace("val_accuracy", "val_span_accuracy"), encoding="utf-8")
    said = run("tune", recipe, "--output", tmp_path / "found").stderr
    assert "'val_span_accuracy' is not measured by text-classification here; wanted one of val_loss, val_acc" in said


def test_early_stopping_wants_something_to_validate_on(recipe, tiny, tmp_path):
    given = ["finetune", tiny, tmp_path / "train.csv", "--output", tmp_path / "out"]
    assert "Early stopping needs validation data: --validation FILE" in run(*given, "--early-stopping", 1).stderr
    assert "must be one of val_loss" in run(*given, "--monitor", "accuracy").stderr
