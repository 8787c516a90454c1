"""What a newcomer copies works: the README's Python snippets in their order, and its command lines.

The slow tests run both on real inputs; the others run the snippets on tiny models and texts, op by op, and read the
command lines without running them. Only the sizes below are quick ones: fewer texts, epochs and tokens, shorter caches.
Every replaced piece must stand in the README, so that none is forgotten there.
"""

import importlib.util
import inspect
import re
import shlex
import shutil
from pathlib import Path

import pytest
import tiny
from language_cases import chat_tokenizer

from tfxformer import samples, tasks

pytestmark = pytest.mark.usefixtures("plain_kernels")
README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
FEW = 48  # texts
STACKS = ("encoder", "decoder")

QUICK = {
    "news = samples.bbc_topics()": "news = few(samples.bbc_topics())",
    "epochs=2,\n    batch_size=32,": "epochs=1,\n    batch_size=16,",
    "begin_step=20, end_step=80, frequency=10": "begin_step=1, end_step=2, frequency=1",
    "distiller.fit(texts, labels, epochs=3)": "distiller.fit(texts, labels, epochs=1)",
    "classifier.fit(texts, labels, epochs=3)": "classifier.fit(texts, labels, epochs=1)",
    "sequence_length=128)\nprint": "sequence_length=32)\nprint",
    "texts[:200]": "texts[:16]",
    # So little trained, a file in int8 may lose any number of points.
    "AccuracyGate(news.test_texts, news.test_labels)": "AccuracyGate(news.test_texts, news.test_labels, 100)",
    "tolerance=0.3": "tolerance=0.99",
    "jit_compile=True)": "jit_compile=False)",
    'sequence_length=128, kind="masked"': 'sequence_length=32, kind="masked"',
    "256": "4",
    "epochs=10,": "epochs=1,",
    "max_new_tokens=20": "max_new_tokens=2",
    "max_new_tokens=50": "max_new_tokens=2",
    "max_new_tokens=60": "max_new_tokens=4",
    "cache_length=1040, prefill_lengths=(16, 128)": "cache_length=128, prefill_lengths=(32,)",
}
QUICK_COMMANDS = {
    "applications/shrink_sentiment/recipe.yaml": "recipe.yaml",
    "--sequence-length 128": "--sequence-length 32",
    "--max-new-tokens 50": "--max-new-tokens 2",
    "--cache-length 1040 --prefill-lengths 16,128": "--cache-length 128 --prefill-lengths 32",
    "finetune MODEL": "finetune MODEL --epochs 1",
    "prune saved_models/mine train.csv": "prune saved_models/mine train.csv --epochs 1 --batch-size 4",
}
RECIPE = """
name: films
model: MODEL
data: {train: train.csv, test: test.csv}
sequence_length: 16
latency_rounds: 2
sweep: {tune: [{epochs: 1}], quantize: [dynamic_int8]}
choose: {most_points_lost: 100}
"""


def blocks(language: str) -> str:
    """The README's fenced blocks of a language, in their order, as one text."""
    return "\n".join(re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL))


def quickened(text: str, pieces: dict) -> str:
    for piece, quick in pieces.items():
        assert piece in text, f"The README has no {piece!r} any more: mend the list of quick settings."
        text = text.replace(piece, quick)
    return text


def few(news):
    """The first texts of each part, cut short."""
    parts = {name: getattr(news, name)[:FEW] for name in ("train_labels", "test_labels")}
    short = {name: [text[:100] for text in getattr(news, name)[:FEW]] for name in ("train_texts", "test_texts")}
    return news._replace(**parts, **short)


def run_snippets(folder):
    """Executes them in a folder of their own, and looks for what they write."""
    code = quickened(blocks("python"), QUICK)
    if importlib.util.find_spec("litert_lm_builder") is None:
        code = code.replace("export.bundle_litertlm(", "(lambda *arguments: None)(")
    names = {"few": few, "__name__": "readme"}
    exec(compile(code, "README.md", "exec"), names)
    assert names["classifier"].predict(["The striker scored twice."]).shape == (1, 5)
    for written in ("topics.keras", "topics.tflite", "int8.tflite", "lm.tflite", "reviews-adapter", "records", "run"):
        assert (folder / written).exists(), written


def tiny_news() -> samples.Split:
    """Texts of five topics."""
    labels = ["business", "entertainment", "politics", "sport", "tech"]
    texts = [f"{text} {word}" for word in ("film", "cat", "engine", "code", "alan") for text in tiny.TEXTS[:4]]
    named = [label for label in labels for _ in range(4)]
    return samples.Split(texts, named, texts[::2], named[::2], labels)


def tiny_samples(folder, monkeypatch):
    """Puts tiny models and texts in the place of the samples that the snippets name."""
    sizes = {"num_layers": 1, "attention__heads": 12, "hidden_size": 48, "feed_forward__size": 800, "max_positions": 64}
    encoder = tiny.backbone(**{f"encoder__{name}": value for name, value in sizes.items()})
    written = tasks.MaskedLM(encoder, tokenizer=tiny.tokenizer(folder)).save_pretrained(folder / "minilm")
    decoder = tasks.CausalLM(
        tiny.backbone("llama", vocabulary_size=400, decoder__num_layers=1, decoder__max_positions=160),
        tokenizer=chat_tokenizer(),
    ).save_pretrained(folder / "smollm2")
    both = tasks.Seq2SeqLM(
        tiny.backbone(
            "t5",
            vocabulary_size=400,
            **{
                f"{stack}__{name}": n for stack in STACKS for name, n in {"num_layers": 1, "max_positions": 128}.items()
            },
        ),
        tokenizer=chat_tokenizer(),
    ).save_pretrained(folder / "flan-t5-small")
    stand_ins = {
        "minilm": lambda: written,
        "smollm2": lambda: decoder,
        "flan_t5_small": lambda: both,
        "bbc_topics": tiny_news,
    }
    for name, stand_in in stand_ins.items():
        assert (
            inspect.signature(getattr(samples, name)).parameters.keys() == inspect.signature(stand_in).parameters.keys()
        )
        monkeypatch.setattr(samples, name, stand_in)


@pytest.mark.road
def test_the_snippets_in_their_order_on_tiny_models(tmp_path, monkeypatch, eager):
    (tmp_path / "samples").mkdir()
    (tmp_path / "here").mkdir()
    tiny_samples(tmp_path / "samples", monkeypatch)
    monkeypatch.chdir(tmp_path / "here")
    run_snippets(tmp_path / "here")


@pytest.mark.slow
@pytest.mark.samples
def test_the_snippets_in_their_order(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run_snippets(tmp_path)


def commands(lines: str) -> list[list[str]]:
    """The words after `tfxformer` of every command line."""
    return [shlex.split(line)[1:] for line in lines.splitlines() if line.startswith("tfxformer ")]


def test_the_command_lines_are_understood(tmp_path, monkeypatch):
    """Commands, options and their values, as the program itself reads them."""
    from typer.main import get_command

    from tfxformer.cli.main import app

    monkeypatch.chdir(tmp_path)
    program, found = get_command(app), commands(blocks("sh"))
    assert {command[0] for command in found} >= {"compress", "finetune", "export", "predict", "chat", "prepare"}
    for name, *arguments in found:
        read = program.commands[name].make_context(name, arguments)
        assert read.params and not read.args


@pytest.fixture
def desk(tmp_path, monkeypatch):
    """A working folder with the files that the README's command lines name."""
    monkeypatch.chdir(tmp_path)
    rows = [f"{article} film was {word}" for article in ("the", "a") for word in ("good,pos", "dull,neg")]
    for name in ("train.csv", "test.csv"):
        (tmp_path / name).write_text("\n".join(["text,label", *rows * 4]), encoding="utf-8")
    lines = ["source\ttarget", *["a film\tun film", "a cat\tun chat"] * 10]
    (tmp_path / "pairs.tsv").write_text("\n".join(lines), encoding="utf-8")
    for name in ("corpus.txt", "novels.txt"):
        lines = ["It is a truth universally acknowledged, that a single man must be in want of a wife."] * 40
        (tmp_path / name).write_text("\n\n".join(lines), encoding="utf-8")
    (tmp_path / "recipe.yaml").write_text(RECIPE.replace("MODEL", str(samples.minilm())), encoding="utf-8")
    shutil.copy(samples.smollm2(), tmp_path / "smollm2.gguf")
    return tmp_path


@pytest.mark.slow
@pytest.mark.samples
def test_the_command_lines_in_their_order(desk):
    from typer.testing import CliRunner

    from tfxformer.cli.main import app

    found = commands(quickened(blocks("sh"), QUICK_COMMANDS))
    for command in sorted(found, key=lambda one: one[0] == "compress"):  # the others tell sooner
        if command[0] == "tpu-check" and importlib.util.find_spec("libtpu") is None:
            continue  # an extra, as the README says
        if command[0] in ("train-lm", "train-seq2seq"):
            command += ["--epochs", "1"]
        arguments = [str(samples.minilm()) if word == "MODEL" else word for word in command]
        result = CliRunner().invoke(app, arguments, input="Hello.\n")
        assert result.exit_code == 0, f"tfxformer {' '.join(command)}: {result.stderr}\n{result.exception!r}"
    assert (desk / "mine.tflite").exists() and (desk / "smollm2.tflite").exists()
