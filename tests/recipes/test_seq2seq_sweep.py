"""A sweep over an encoder-decoder, on a tiny checkpoint and two files of pairs."""

import json

import keras
import pytest
import sacrebleu
import tiny

from tfxformer import export, samples, tasks
from tfxformer.recipes import sweep
from tfxformer.recipes.sweep import inputs
from tfxformer.recipes.sweep.recipe import Distil, Recipe, Structure, Tune
from tfxformer.recipes.sweep.stages import Context, distil, restructure
from tfxformer.text import Tokenizer

pytestmark = pytest.mark.usefixtures("plain_kernels")
WORDS = {"good": "bon", "bad": "mauvais", "old": "vieux", "new": "neuf"}
PAIRS = [
    (f"{word} {noun}", f"{nom} {mot}")
    for word, mot in WORDS.items()
    for noun, nom in (("film", "film"), ("cat", "chat"))
]
RECIPE = """
name: words
model: {model}
task: seq2seq-lm
data: {{train: train.tsv, test: test.tsv}}
sequence_length: 16
validation: 0.25
batch_size: 8
latency_rounds: 2
sweep:
  - tune: [{{epochs: 1, learning_rate: 1.0e-3}}]
    vocabulary: [trimmed]
    structure: [{{layers: 1, stack: decoder}}]
    distil: [{{epochs: 1, beams: 2}}]
    prune: [{{sparsity: 0.5}}]
    quantize: [float32]
choose: {{most_points_lost: 100}}
"""


@pytest.fixture
def model():
    sources, targets = zip(*PAIRS, strict=True)
    learned = Tokenizer.train_byte_level_bpe([*sources, *targets], 270)
    backbone = tiny.backbone("marian", vocabulary_size=learned.vocabulary_size, padding_id=learned.padding_id)
    return tasks.Seq2SeqLM(backbone, tokenizer=learned, sequence_length=16, target_length=12)


@pytest.fixture
def recipe(model, tmp_path):
    rows = ["\t".join(pair) for pair in PAIRS]
    (tmp_path / "train.tsv").write_text("\n".join(["source\ttarget", *rows * 2]), encoding="utf-8")
    (tmp_path / "test.tsv").write_text("\n".join(["source\ttarget", *rows[:2]]), encoding="utf-8")
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE.format(model=model.save_pretrained(tmp_path / "model")), encoding="utf-8")
    return path


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*targets were longer than 12 tokens")  # a teacher without an end writes on
def test_a_sweep_over_pairs(recipe, tmp_path):
    found = sweep.run_recipe(recipe, tmp_path / "small", verbose=0, progress=lambda line: None)
    assert found["data"] == {"train_texts": 12, "validation_texts": 4, "test_texts": 2}
    assert [point["main_score"] for point in found["points"]] == ["chrf", "chrf"]
    chosen = found["points"][1]
    assert found["chosen"] == 1 and chosen["bytes"] < found["points"][0]["bytes"]
    assert chosen["lost"]["test"] == pytest.approx(found["points"][0]["test"] - chosen["test"])  # points of chrF
    assert chosen["latency"]["median_ms"] > 0  # how much faster is measured on an idle machine, not asserted
    written = export.LiteRTGenerator(tmp_path / "small" / "words.tflite").generate([pair[0] for pair in PAIRS[:2]])
    wanted = [pair[1] for pair in PAIRS[:2]]
    assert chosen["test"] == pytest.approx(sacrebleu.corpus_chrf(written, [wanted]).score)
    small = keras.saving.load_model(tmp_path / "small" / "words.keras")
    assert [stack.num_layers for stack in small.backbone.config.stacks.values()] == [2, 1]
    page = (tmp_path / "small" / "RESULTS.md").read_text(encoding="utf-8")
    assert "Losses are points of chrf" in page and "on targets of 2 beams" in page
    assert json.loads((tmp_path / "small" / "results.json").read_text())["points"][1]["test"] == chosen["test"]


def test_both_stacks_become_smaller_or_one(model):
    sources, targets = map(list, zip(*PAIRS, strict=True))
    recipe = Recipe("words", "model", {"train": "a", "test": "b"}, ({"tune": (Tune(),)},), task="seq2seq-lm")
    context = Context(recipe, sources, targets, lambda: model, lambda: model, 0)
    both = restructure(model, Structure(layers=1, heads=2, neurons=16), context).backbone.config
    for stack in both.stacks.values():
        assert (stack.num_layers, stack.heads, stack.feed_forward.size) == (1, 2, 16)
    one = restructure(model, Structure(neurons=16, stack="encoder"), context).backbone.config
    assert [stack.feed_forward.size for stack in one.stacks.values()] == [16, 48]


def test_a_student_learns_what_its_teacher_writes(model, monkeypatch):
    from tfxformer import compression

    seen, written = [], ["bon film"] * len(PAIRS)
    monkeypatch.setattr(compression, "teacher_targets", lambda *given, **options: seen.append(given[2]) or written)
    monkeypatch.setattr(
        compression.Distiller, "fit", lambda self, x, y, **options: seen.append(y) or keras.callbacks.History()
    )
    recipe = Recipe("words", "model", {"train": "a", "test": "b"}, ({"tune": (Tune(),)},), task="seq2seq-lm")
    context = Context(recipe, [pair[0] for pair in PAIRS], [pair[1] for pair in PAIRS], None, lambda: model, 0)
    student = compression.student_from(model, keep=1, stack="decoder")
    assert distil(student, Distil(beams=3), context) is student
    assert seen[0].num_beams == 3 and seen[1] is written


def test_the_model_is_told_its_languages(monkeypatch):
    told = {"source_language": "en_XX", "target_language": "fr_XX", "target_length": 12}
    files = {"train": "a", "test": "b"}
    recipe = Recipe("words", "folder", files, ({"tune": (Tune(),)},), task="seq2seq-lm", **told)
    monkeypatch.setattr(inputs, "open_task", lambda folder, task, **given: (folder, task, given))
    folder, task, given = inputs.model_opener(recipe, samples.Split([], [], [], [], []))()
    assert (folder, task) == ("folder", "seq2seq-lm") and told.items() <= given.items()


def test_a_source_that_no_file_would_read_is_said_first(recipe, tmp_path):
    (tmp_path / "test.tsv").write_text(f"source\ttarget\n{'good ' * 30}\tbon\n", encoding="utf-8")
    with pytest.raises(ValueError, match="16"):
        sweep.run_recipe(recipe, tmp_path / "small", verbose=0, progress=print)
    assert not (tmp_path / "small").exists()
