"""The command compress, on a tiny checkpoint and two data files."""

import json

import pytest
from typer.testing import CliRunner

from tfxformer.cli.main import app

RECIPE = """
name: films
model: {model}
data: {{train: train.csv, test: test.csv}}
sequence_length: 8
validation: 0.25
latency_rounds: 2
sweep: {{tune: [{{epochs: 1}}], quantize: [dynamic_int8]}}
choose: {{most_points_lost: 100}}
"""


@pytest.fixture
def recipe(tiny, tmp_path):
    rows = [f"{article} film was {word}" for article in ("the", "a") for word in ("good,pos", "dull,neg")]
    (tmp_path / "train.csv").write_text("\n".join(["text,label", *rows * 8]), encoding="utf-8")
    (tmp_path / "test.csv").write_text("\n".join(["text,label", *rows]), encoding="utf-8")
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE.format(model=tiny), encoding="utf-8")
    return path


def run(*arguments):
    return CliRunner().invoke(app, ["compress", *map(str, arguments)])


@pytest.mark.slow
def test_a_recipe_becomes_a_table_and_a_file(recipe, tmp_path):
    result = run(recipe, "--output", tmp_path / "small")
    assert result.exit_code == 0, result.stderr
    found = json.loads((tmp_path / "small" / "results.json").read_text(encoding="utf-8"))
    assert found["data"] == {"train_texts": 24, "validation_texts": 8, "test_texts": 4}
    assert [point["name"] for point in found["points"]] == ["float32", "dynamic_int8"]
    # Which of the two it is, so short a training leaves to luck: the 8-bit file may be refused as too inexact.
    able = [point for point in found["points"] if "refused" not in point]
    chosen = found["points"][found["chosen"]]
    assert chosen["bytes"] == min(point["bytes"] for point in able)
    assert f"{found['chosen']} (chosen): {chosen['name']}" in result.stdout
    assert (tmp_path / "small" / "films.tflite").stat().st_size == chosen["bytes"]


def test_errors_are_one_line(recipe, tmp_path):
    output = ["--output", tmp_path / "small"]
    result = run(tmp_path / "no.yaml", *output)
    assert result.exit_code == 1 and "no.yaml" in result.stderr
    text = recipe.read_text(encoding="utf-8")
    recipe.write_text(text.replace("train: train.csv, test: test.csv", "train: train.csv"), encoding="utf-8")
    assert "data: files are {train: FILE, test: FILE}" in run(recipe, *output).stderr
    recipe.write_text(text.replace("{train: train.csv, test: test.csv}", "movies"), encoding="utf-8")
    assert "'movies' is no labelled sample; known: bbc_topics, chinese_reviews" in run(recipe, *output).stderr
    (tmp_path / "test.csv").write_text("text,label\na film,odd\n", encoding="utf-8")
    recipe.write_text(text, encoding="utf-8")
    assert "test.csv, line 2, column 'label': 'odd' is not among the labels neg, pos" in run(recipe, *output).stderr
    assert not (tmp_path / "small").exists()
