"""The command line, on a tiny checkpoint."""

import json
import subprocess
import sys

import batteries
import keras
import pytest
from typer.testing import CliRunner

import tfxformer
from tfxformer.cli import console
from tfxformer.cli.main import app

COMMANDS = [
    "compress", "demo", "finetune", "evaluate", "prune", "export", "predict", "inspect", "train-lm", "train-seq2seq",
    "generate", "chat", "prepare", "tpu-check", "fit-estimate", "doctor", "page", "app", "models", "tune",
]  # fmt: skip


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def run_json(*arguments):
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def failure(*arguments):
    """The one line that a command says when it fails."""
    result = run(*arguments)
    assert result.exit_code == 1
    assert result.stdout == ""
    lines = [line for line in result.stderr.splitlines() if not line.startswith("warning: ")]
    assert len(lines) == 1, result.stderr
    return lines[0]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "films.csv"
    rows = [f"{article} film was {word}" for article in ("the", "a") for word in ("good,pos", "dull,neg")]
    path.write_text("\n".join(["text,label", *rows * 16]), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def tuned(tiny, data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tuned") / "films"
    options = ["--epochs", 10, "--learning-rate", "1e-2", "--batch-size", 8, "--validation", "0.25"]
    with batteries.steps(eager=False):
        return folder, run_json("finetune", tiny, data, "--output", folder, *options)


def test_version():
    assert run("--version").stdout == f"tfxformer {tfxformer.__version__}\n"


def test_doctor(monkeypatch):
    found = run_json("doctor")
    assert found["packages"]["keras"] == keras.__version__
    assert {"cpu:0", "export and run a file", "LiteRT"} <= found["checks"].keys()
    assert all(check["ok"] for check in found["checks"].values())
    assert found["checks"]["cpu:0"]["float32_gflops"] > 0
    assert found["checks"]["export and run a file"]["error_of_the_file"] < 1e-6
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    assert "failed: export and run a file, LiteRT" in run("doctor").stderr


def test_help_imports_nothing_heavy():
    heavy = ("tensorflow", "keras", "numpy", "matplotlib", "tokenizers", "huggingface_hub", "ai_edge_litert")
    code = (
        "import sys; from tfxformer.cli.main import main; sys.argv[1:] = ['finetune', '--help']\n"
        "try: main()\n"
        f"finally: print([name for name in {heavy} if name in sys.modules], file=sys.stderr)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "--sequence-length" in run.stdout
    assert run.stderr.strip() == "[]"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_and_json(command):
    result = run(command, "--help")
    assert result.exit_code == 0
    assert "--json" in result.stdout


def test_finetune_learns_and_writes_everything(tuned):
    folder, result = tuned
    assert result["labels"] == ["neg", "pos"]
    assert result["training_texts"] == 48
    assert result["last_epoch"]["val_accuracy"] > 0.9
    found = {path.name for path in folder.iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "model.keras", "results.json"} <= found
    assert (folder / "training-curve.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads((folder / "results.json").read_text())["history"]["loss"]


def test_words_are_explained(tuned):
    (found,) = run_json("predict", tuned[0], "the film was good", "--explain")["predictions"]
    words = {word["text"]: word for word in found["words"]}
    assert (found["label"], list(words)) == ("pos", ["the", "film", "was", "good"])
    assert max(words.values(), key=lambda word: word["weight"]) == words["good"]
    assert sum(word["weight"] for word in found["words"]) == pytest.approx(
        found["score"] - found["baseline_score"], abs=0.05
    )
    shown = run("predict", tuned[0], "the film was good", "--explain").stdout.splitlines()
    assert shown[0].startswith("pos ") and shown[0].endswith("the film was good")
    assert shown[-1] == f"{words['good']['weight']:+.3f}\tgood\t13-17"


def test_export_for_integers_behind_a_gate(tuned, data, tmp_path):
    folder, file = tuned[0], tmp_path / "films.tflite"
    options = ["--representative", data, "--calibration", "mse", "--accuracy-gate", data, "--tolerance", 0.9]
    report = run_json("export", folder, file, "--quantization", "int8", "--sequence-length", 8, *options)
    scored = run_json("evaluate", file, data)
    assert report["score"] == scored["scores"]["accuracy"]
    assert report["keras_score"] == run_json("evaluate", folder, data)["scores"]["accuracy"]
    wrong = failure("export", folder, file, "--calibration", "median", "--quantization", "int8")
    assert "median" in wrong and "percentile" in wrong
    assert "a LiteRT file, which has no gradients" in failure("predict", file, "the film was good", "--explain")


@pytest.mark.road
def test_the_road_to_a_file_that_says_the_same(tuned, data, tmp_path):
    folder, _ = tuned
    file = tmp_path / "films.tflite"
    report = run_json("export", folder, file, "--quantization", "float32", "--sequence-lengths", "8,16")
    assert report["signatures"] == ["classify_8", "classify_16"]
    texts = ["the film was good", "a film was [dull]"]
    predictions = [run_json("predict", model, *texts)["predictions"] for model in (folder / "model.keras", file)]
    for ours, litert in zip(*predictions, strict=True):
        assert ours["label"] == litert["label"]
        assert ours["probabilities"] == pytest.approx(litert["probabilities"], abs=1e-4)
    scores = [run_json("evaluate", model, data)["scores"] for model in (folder, file)]
    assert scores[0] == pytest.approx(scores[1])
    assert scores[0]["accuracy"] > 0.9
    assert set(run_json("inspect", file)["signatures"]) == {"classify_8", "classify_16"}
    app = run("app", file, "--platform", "android", "--output", tmp_path / "app", "--text", "a fine film")
    assert app.exit_code == 0, app.stderr
    assert "Next: open the folder in Android Studio" in app.stdout
    vectors = json.loads((tmp_path / "app/answers/src/test/resources/vectors.json").read_text(encoding="utf-8"))
    assert vectors["answers"][0]["text"] == "a fine film"
    assert "is not empty" in failure("app", file, "--platform", "ios", "--output", tmp_path / "app")


def test_prune_leaves_the_zeros_it_promises(tuned, data, tmp_path):
    result = run_json("prune", tuned[0], data, "-o", tmp_path / "pruned", "--sparsity", "0.5", "--batch-size", 32)
    assert result["sparsity"] == pytest.approx(0.5, abs=1e-3)
    inspected = run_json("inspect", tmp_path / "pruned")
    assert inspected["sparsity"]["kernels"]["sparsity"] == result["sparsity"]
    assert inspected["config"]["encoder"]["num_layers"] == 1


@pytest.mark.road
def test_words_are_tagged(tiny, tmp_path):
    data = tmp_path / "words.jsonl"
    record = {"text": "the film was good", "label": "O FILM O O"}
    data.write_text("\n".join([json.dumps(record)] * 16), encoding="utf-8")
    options = ["--task", "token-classification", "--epochs", 8, "--learning-rate", "1e-2", "--batch-size", 4]
    with batteries.steps(eager=False):
        run_json("finetune", tiny, data, "-o", tmp_path / "tagger", *options)
    (prediction,) = run_json("predict", tmp_path / "tagger", "the film was good")["predictions"]
    assert prediction == {"words": ["the", "film", "was", "good"], "labels": ["O", "FILM", "O", "O"]}
    (found,) = run_json("predict", tmp_path / "tagger", "the film, it was good", "--entities")["predictions"]
    assert [(e["text"], e["label"], e["start"], e["end"]) for e in found["entities"]] == [("film", "FILM", 4, 8)]
    assert "FILM\tfilm\t" in run("predict", tmp_path / "tagger", "the film", "--entities").stdout
    assert run_json("evaluate", tmp_path / "tagger", data)["scores"]["f1"] == 1.0
    conll = tmp_path / "words.conll"
    conll.write_text("the DT O\nfilm NN FILM\nwas VB O\ngood JJ O\n", encoding="utf-8")
    result = run("evaluate", tmp_path / "tagger", conll, "--json")
    assert json.loads(result.stdout)["scores"]["f1"] == 1.0
    assert "1 rows, text from 'words', label from 'tags'; not read: '2'" in result.stderr
    assert "'DT' is not among the labels" in failure("evaluate", tmp_path / "tagger", conll, "--label-column", "2")


def test_results_for_people_are_tables(tuned, tiny):
    shown = run("predict", tuned[0], "the film was [bold]good[/bold]")
    assert "[bold]good[/bold]" in shown.stdout
    assert "encoder_block_0/feed_forward/expand/kernel" in run("inspect", tuned[0]).stdout
    assert len(run_json("predict", tiny, "good")["predictions"][0]["embedding"]) == 32


def test_errors_are_one_line_and_leave_nothing(tuned, tiny, data, tmp_path):
    folder, _ = tuned
    bad = tmp_path / "bad.csv"
    bad.write_text("text,label\ngood,pos\ndull,meh\n", encoding="utf-8")
    output = tmp_path / "never"
    assert failure("evaluate", folder, bad) == (
        f"error: {bad}, line 3, column 'label': 'meh' is not among the labels neg, pos."
    )
    assert "no file" in failure("predict", tmp_path / "gone.keras", "a")
    assert "gone.tflite" in failure("predict", tmp_path / "gone.tflite", "a")
    assert "one of the two" in failure("predict", folder)
    assert "Unknown task 'sorting'; known: " in failure("finetune", tiny, data, "-o", output, "--task", "sorting")
    wrong = run("export", folder, tmp_path / "a.tflite", "--quantization", "int2")
    assert (
        wrong.exit_code == 2 and "--quantization" in wrong.stderr and "'int2'" in wrong.stderr
    )  # wrong use, not a failure
    assert "wanted numbers and commas" in failure("export", folder, tmp_path / "a.tflite", "--sequence-lengths", "8;9")
    assert "leaves 0 to validate on" in failure("finetune", tiny, data, "-o", output, "--validation", "0.001")
    assert "for text-classification, not for masked-lm" in failure(
        "finetune", folder / "model.keras", data, "-o", output, "--task", "masked-lm"
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.csv"]


def test_debug_shows_where_it_failed(tmp_path):
    result = run("predict", tmp_path / "gone.keras", "a", "--debug")
    assert isinstance(result.exception, FileNotFoundError)


def test_next_steps_of_a_file(capsys):
    console.say_next_steps("my files/a.tflite")
    said = capsys.readouterr().err.splitlines()
    assert [line.split(":", 1)[0].strip() for line in said] == ["Next, run it", "in a browser", "on Android", "on iOS"]
    assert "tfxformer page 'my files/a.tflite' --output page" in said[1]


def test_page_of_no_file(tmp_path):
    assert "name a .tflite file" in failure("page", tmp_path / "none.tflite", "--output", tmp_path / "page")
