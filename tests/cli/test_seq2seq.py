"""train-seq2seq, generate, evaluate, export and prune of a model that writes targets for sources."""

import json

import pytest
import sacrebleu
import spm_cases as cases
import tiny as tiny_models
from typer.testing import CliRunner

from tfxformer.cli.main import app
from tfxformer.export import LiteRTGenerator
from tfxformer.generation import Beams
from tfxformer.tasks import Seq2SeqLM
from tfxformer.text import Tokenizer

PAIRS = [("good film", "bon film"), ("bad film", "mauvais film"), ("good cat", "bon chat"), ("bad cat", "mauvais chat")]
SOURCES, TARGETS = map(list, zip(*PAIRS, strict=True))


def run(*arguments, input=None):
    return CliRunner().invoke(app, [str(argument) for argument in arguments], input=input, env={"COLUMNS": "160"})


def run_json(*arguments):
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def failure(*arguments, code=1, input=None):
    result = run(*arguments, input=input)
    assert result.exit_code == code and result.stdout == ""
    return result.stderr


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    path = tmp_path_factory.mktemp("pairs") / "pairs.tsv"
    path.write_text("\n".join(["source\ttarget", *("\t".join(pair) for pair in PAIRS * 6)]), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def few(pairs):
    """Each pair once."""
    path = pairs.parent / "few.tsv"
    path.write_text("\n".join(pairs.read_text(encoding="utf-8").split("\n")[:5]), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def trained(pairs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("seq2seq") / "model"
    options = ["--vocabulary-size", 270, "--epochs", 2, "--batch-size", 6, "--validation", "0.25"]
    lengths = ["--sequence-length", 24, "--target-length", 16, "--label-smoothing", 0.1]
    with pytest.MonkeyPatch.context() as patch:
        from tfxformer.layers.kernels import clusters
        from tfxformer.models import presets

        patch.setattr(clusters, "use_clusters", lambda: False)
        small = {"num_layers": 1, "hidden_size": 32, "feed_forward__size": 48, "max_positions": 40}
        small["embedding_scale"] = 32**0.5
        both = {f"{stack}__{name}": size for stack in ("encoder", "decoder") for name, size in small.items()}
        mini = presets.preset("transformer-mini").replace(**both)
        patch.setitem(presets.PRESETS, "transformer-mini", mini)
        return folder, run_json("train-seq2seq", pairs, "-o", folder, *options, *lengths)


def test_a_new_model_learns_and_is_written(trained):
    folder, result = trained
    history = json.loads((folder / "results.json").read_text())["history"]
    assert history["loss"][1] < history["loss"][0]
    assert result["last_epoch"]["val_perplexity"] == history["val_perplexity"][-1]
    assert (result["task"], result["training_texts"]) == ("seq2seq-lm", 18)
    opened = Seq2SeqLM.from_pretrained(folder)
    for found in (result, vars(opened)):
        assert (found["sequence_length"], found["target_length"]) == (24, 16)
    assert {"model.keras", "model.safetensors", "training-curve.png"} <= {path.name for path in folder.iterdir()}


def test_training_goes_on_from_a_folder(trained, pairs, tmp_path):
    options = ["--model", trained[0], "--epochs", 1, "--learning-rate", "1e-9", "--validation", pairs]
    result = run_json("train-seq2seq", pairs, "-o", tmp_path / "more", *options)
    assert (result["sequence_length"], result["target_length"], result["training_texts"]) == (24, 16, 24)
    _, wanted = Seq2SeqLM.from_pretrained(trained[0]).evaluate(*map(list, zip(*PAIRS * 6, strict=True)), verbose=0)
    assert result["last_epoch"]["val_perplexity"] == pytest.approx(wanted, rel=1e-4)


def test_targets_are_written(trained, pairs):
    folder, _ = trained
    model, few = Seq2SeqLM.from_pretrained(folder), ["--max-new-tokens", 4]
    wanted = model.generate(SOURCES, 4)
    assert run("generate", folder, SOURCES[0], *few).stdout == wanted[0] + "\n"
    rows = run_json("generate", folder, "--file", pairs, "--batch-size", 5, *few)["targets"]
    assert rows == [{"source": source, "target": text} for source, text in zip(SOURCES, wanted, strict=True)] * 6
    (beams,) = model.generate(SOURCES[1:2], 4, sampler=Beams(2))
    assert run_json("generate", folder, SOURCES[1], "--num-beams", 2, *few)["continuation"] == beams


def test_what_is_written_is_scored(trained, few):
    model = Seq2SeqLM.from_pretrained(trained[0])
    scores = run_json("evaluate", trained[0], few)["scores"]
    assert scores["chrf"] == sacrebleu.corpus_chrf(model.generate(SOURCES), [TARGETS]).score
    assert {"loss", "perplexity", "bleu", "rouge1", "rouge2", "rougeL"} < scores.keys()


def test_it_is_pruned_and_looked_into(trained, few, tmp_path):
    options = ["--epochs", 1, "--batch-size", 1]
    result = run_json("prune", trained[0], few, "-o", tmp_path / "pruned", *options)
    assert result["sparsity"] == pytest.approx(0.5, abs=1e-3)
    found = run_json("inspect", tmp_path / "pruned")
    assert found["task"] == "seq2seq-lm" and found["config"]["decoder"]["num_layers"] == 1
    assert "decoder_block_0/cross_attention/key/kernel" in run("inspect", tmp_path / "pruned").stdout


def test_errors_are_one_line_and_leave_nothing(trained, pairs, tiny, tmp_path):
    folder, output = trained[0], tmp_path / "never"
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"source": "a", "target": "b"}\n{"source": "a"}\n', encoding="utf-8")
    assert f"{bad}, line 2, column 'target': it is missing" in failure("train-seq2seq", bad, "-o", output)
    bad.write_text('{"text": "a", "label": "b"}\n', encoding="utf-8")
    assert "no column 'source'; there is 'text', 'label'" in failure("evaluate", folder, bad)
    assert "'gpt-nano' is decoder alone" in failure("train-seq2seq", pairs, "-o", output, "--preset", "gpt-nano")
    assert "this model has one of them" in failure("train-seq2seq", pairs, "-o", output, "--model", tiny)
    assert "one of the two" in failure("generate", folder)
    assert "draws nothing by chance" in failure("generate", folder, "a", "--num-beams", 2, "--top-k", 3)
    assert "has no conversations" in failure("chat", folder, input="good\n")
    assert "tfxformer generate runs it" in failure("predict", folder, "good film")
    smoothing = failure("train-seq2seq", pairs, "-o", output, "--label-smoothing", 1.5, code=2)
    assert "share between 0 and 1" in smoothing
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.jsonl"]


@pytest.fixture(scope="module")
def exported(trained, few, tmp_path_factory):
    """(its file, what the command says of it), behind a gate."""
    file = tmp_path_factory.mktemp("exported") / "model.tflite"
    options = ["--quantization", "float32", "--sequence-lengths", "16,32", "--cache-length", 16]
    return file, run_json("export", trained[0], file, *options, "--accuracy-gate", few)


def test_an_exported_file_writes_alike(trained, exported, few):
    folder, (file, report), short = trained[0], exported, ["--max-new-tokens", 4]
    assert {"encode_16", "encode_32", "decode"} <= set(report["signatures"])
    for extra in ([], ["--num-beams", 2]):
        said = [run_json("generate", model, SOURCES[0], *short, *extra)["continuation"] for model in (folder, file)]
        assert said[0] == said[1]
    said = [run_json("generate", model, "--file", few, *short)["targets"] for model in (folder, file)]
    assert said[0] == said[1]
    assert "tfxformer generate runs it" in failure("predict", file, "good film")
    assert "has no conversations" in failure("chat", file, input="good\n")


def test_a_gate_counts_points_of_chrf(exported, few):
    file, gated = exported
    assert gated["keras_score"] - gated["score"] <= 1.0
    scores = run_json("evaluate", file, few)["scores"]
    assert gated["score"] == scores["chrf"]
    assert scores["chrf"] == sacrebleu.corpus_chrf(LiteRTGenerator(file).generate(SOURCES), [TARGETS]).score


# ---- models of many languages ------------------------------------------------------------------------------------

CODES = {"source_language": "en_XX", "target_language": "fr_XX"}
TOLD, SHORT = ["--source-language", "en_XX", "--target-language", "fr_XX"], ["--max-new-tokens", 4]


@pytest.fixture(scope="module")
def multilingual(tmp_path_factory):
    """A tiny model with the tokenizer of mBART-50, to which nothing says its languages."""
    pytest.importorskip("sentencepiece")
    path = tmp_path_factory.mktemp("languages")
    tokenizer = Tokenizer.from_pretrained(cases.folder(path / "tokenizer", "MBart50Tokenizer"))
    # As many tokens are written, one after another, as a target may have.
    sizes = {"num_layers": 1, "max_positions": 16}
    stacks = {f"{stack}__{name}": value for stack in ("encoder", "decoder") for name, value in sizes.items()}
    backbone = tiny_models.backbone("marian", vocabulary_size=len(tokenizer.vocabulary()), **stacks)
    model = Seq2SeqLM(backbone, tokenizer=tokenizer, decoder_start_token_id=tokenizer.eos_id)
    return tiny_models.perturb(model).save_pretrained(path / "model")


@pytest.mark.usefixtures("plain_kernels")
def test_targets_are_written_in_a_language(multilingual, few, tmp_path):
    model = Seq2SeqLM.from_pretrained(multilingual)
    wanted = model.generate(SOURCES, 4, **CODES)
    assert run("generate", multilingual, SOURCES[0], *TOLD, *SHORT).stdout == wanted[0] + "\n"
    rows = run_json("generate", multilingual, "--file", few, *TOLD, *SHORT)["targets"]
    assert [row["target"] for row in rows] == wanted
    lengths = ["--sequence-length", 16, "--cache-length", 16, "--quantization", "float32"]
    run_json("export", multilingual, tmp_path / "m.tflite", *lengths, *TOLD)
    assert run("generate", tmp_path / "m.tflite", SOURCES[0], *SHORT).stdout == wanted[0] + "\n"
    assert "of the languages that it was exported with" in failure(
        "generate", tmp_path / "m.tflite", "a", "--target-language", "fr_XX"
    )


@pytest.mark.usefixtures("plain_kernels")
def test_a_model_learns_and_is_scored_in_a_language(multilingual, few, tmp_path):
    options = ["--epochs", 1, "--learning-rate", "1e-9", "--batch-size", 2]
    run_json("train-seq2seq", few, "-o", tmp_path / "more", "--model", multilingual, *options, *TOLD)
    again = Seq2SeqLM.from_pretrained(tmp_path / "more")
    assert {name: getattr(again, name) for name in CODES} == CODES
    told = Seq2SeqLM.from_pretrained(multilingual, **CODES)
    wanted = told.evaluate(SOURCES, TARGETS, verbose=0, return_dict=True)["loss"]
    assert run_json("evaluate", multilingual, few, *TOLD)["scores"]["loss"] == pytest.approx(wanted, rel=1e-4)
    # A .keras file keeps those of its training, and is told others.
    german = run_json("evaluate", tmp_path / "more" / "model.keras", few, "--target-language", "de_DE")["scores"]
    told.target_language = "de_DE"
    wanted = told.evaluate(SOURCES, TARGETS, verbose=0, return_dict=True)["loss"]
    assert german["loss"] == pytest.approx(wanted, rel=1e-3)


def test_codes_that_are_none_are_one_sentence(multilingual, few, tiny, tmp_path):
    french = ["--target-language", "french"]
    for command in (
        ["generate", multilingual, "a"],
        ["evaluate", multilingual, few],
        ["export", multilingual, tmp_path / "m.tflite"],
        ["train-seq2seq", few, "-o", tmp_path / "new", "--model", multilingual],
    ):
        assert "'french' is no language of this tokenizer, which knows" in failure(*command, *french)
    assert "say source_language=" in failure("generate", multilingual, "a")
    assert "--target-language: for models that write targets" in failure("export", tiny, tmp_path / "m.tflite", *french)
    new = failure("train-seq2seq", few, "-o", tmp_path / "new", "--vocabulary-size", 270, *french)
    assert "has no language codes, so 'french' says nothing" in new
    assert not list(tmp_path.iterdir())
