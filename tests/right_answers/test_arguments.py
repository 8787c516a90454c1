"""Arguments that vanished: unknown keywords, an optimizer's arguments, names of batches, values of recipes."""

import pytest
from typer.testing import CliRunner

from tfxformer.cli.data_files import read_rows
from tfxformer.cli.main import app
from tfxformer.recipes.sweep import read_recipe

RECIPE = "name: small\nmodel: minilm\ndata: vader_movies\n"

# ---- recipes ----------------------------------------------------------------------------------------------------


def test_recipe_values_are_refused_when_read_all_at_once(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(
        RECIPE
        + """
batch_size: 0
dtype: float1
sweep:
  tune: [{epochs: 0, learning_rate: -1}, {learning_rate: .nan, lora: 0}]
  quantize: [int3]
""",
        encoding="utf-8",
    )
    with pytest.raises(ValueError) as refused:
        read_recipe(path)
    # Each value of the finding, by its key: none can be trained or written with.
    for wrong in (
        "sweep.tune[0].epochs=0 must be 1 or more",
        "sweep.tune[0].learning_rate=-1.0 must be a finite number above 0",
        "sweep.tune[1].learning_rate=nan must be a finite number above 0",
        "sweep.tune[1].lora=0 must be 1 or more",
        "sweep.quantize[0]='int3' must be one of float32, float16, dynamic_int8",
        "batch_size=0 must be 1 or more",
        "dtype='float1' must be one of float32",
        "7 errors",
        str(path),
    ):
        assert wrong in str(refused.value)


def test_a_recipe_of_100_4_combinations_is_refused_with_the_count(tmp_path):
    path = tmp_path / "recipe.yaml"
    numbers = ", ".join(f"{{epochs: {epochs}}}" for epochs in range(1, 101))
    layers = ", ".join(f"{{layers: {layers}}}" for layers in range(1, 101))
    path.write_text(
        f"{RECIPE}sweep: {{tune: [{numbers}], structure: [{layers}], distil: [{numbers}], prune: [{numbers}]}}",
        encoding="utf-8",
    )
    with pytest.raises(ValueError, match="100,000,000 combinations; at most 1,000"):
        read_recipe(path)


def test_nested_yaml_aliases_are_refused_with_the_count(tmp_path):
    path = tmp_path / "recipe.yaml"
    rows = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    rows += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 10)]
    path.write_text(RECIPE + "\n".join(rows), encoding="utf-8")
    with pytest.raises(ValueError, match=r"values where its aliases are written out; at most 20,000"):
        read_recipe(path)
    path.write_text(RECIPE + "sweep: &a [*a]", encoding="utf-8")
    with pytest.raises(ValueError, match="aliases"):
        read_recipe(path)


def test_recipe_files_must_be_there(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(
        "name: a\nmodel: minilm\ndata: {train: no.csv, test: none.csv}\nsweep: {quantize: [int8]}", encoding="utf-8"
    )
    with pytest.raises(ValueError, match=r"2 errors: data.train: there is no file .*no\.csv; data.test"):
        read_recipe(path)


# ---- the command line -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        ["finetune", "m", "d", "--learning-rate", "nan"],
        ["finetune", "m", "d", "--learning-rate", "-1"],
        ["finetune", "m", "d", "--epochs", "0"],
        ["finetune", "m", "d", "--batch-size", "0"],
        ["finetune", "m", "d", "--dtype", "float1"],
        ["finetune", "m", "d", "--validation", "1.5"],
        ["prune", "m", "d", "--sparsity", "2"],
        ["train-lm", "d", "--learning-rate", "inf"],
        ["export", "m", "o.tflite", "--quantization", "int3"],
        ["generate", "m", "hello", "--top-p", "1.5"],
    ],
    ids=lambda options: " ".join(options[-2:]),
)
def test_command_line_values_are_refused_by_the_name_of_their_option(options):
    output = [] if options[0] in ("export", "generate") else ["--output", "o"]
    result = CliRunner().invoke(app, [*options, *output])
    assert result.exit_code == 2  # as every wrong use of a command; nothing was opened
    assert f"'{options[-2]}'" in result.output


def test_a_column_near_to_a_known_one_is_not_left_out(tmp_path):
    path = tmp_path / "data.csv"
    path.write_text("text,textpair\na,b\n", encoding="utf-8")
    with pytest.raises(ValueError, match="column 'textpair' is not read; did you mean 'text_pair'"):
        read_rows(path, labelled=False)
    path = tmp_path / "data.jsonl"
    path.write_text('{"text": "a"}\n{"text": "a", "text_pair": "b"}\n', encoding="utf-8")
    with pytest.raises(ValueError, match="line 2: it has a 'text_pair'"):
        read_rows(path, labelled=False)
