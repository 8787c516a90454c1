"""What tasks train to on one device and on two: a tagger with weights, a writer of targets; for `replicas.run`."""

import contextlib
import tempfile

import keras
import numpy as np
import tiny

from tfxformer import tasks
from tfxformer.text import Tokenizer

WORDS = [["ada", "wrote", "it"], ["london"], ["the", "cat", "sat", "on"], ["good", "film"]]
TAGS = [["P", "O", "O"], ["Q"], ["O", "P", -100, "O"], ["O", "Q"]]
WEIGHTS = [[1.0, 2.0, 0.5], [3.0], [1.0, 1.0, 1.0, 0.0], [0.25, 2.0]]


def history(scope, tokenizer) -> dict:
    """Of two epochs of batches whose halves have other numbers of words and other weights."""
    with scope():
        backbone = tiny.backbone(encoder__num_layers=1)
        task = tasks.TokenClassifier(backbone, ["O", "P", "Q"], tokenizer=tokenizer, sequence_length=16)
        tiny.perturb(task)
        metrics = ["accuracy", keras.metrics.AUC(name="auc"), keras.metrics.F1Score(average="macro", name="f1")]
        eager = scope is contextlib.nullcontext  # numbers to compare with, which need no graph
        task.compile(
            keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy", metrics, jit_compile=False, run_eagerly=eager
        )
    options = {"sample_weight": WEIGHTS, "class_weight": {"O": 0.5}, "batch_size": 4, "shuffle": False, "verbose": 0}
    return task.fit(WORDS, TAGS, epochs=2, validation_data=(WORDS, TAGS, WEIGHTS), **options).history


def histories(strategy) -> list[dict]:
    """Of one device, and of two."""
    with tempfile.TemporaryDirectory() as folder:
        tokenizer = tiny.tokenizer(folder)
    return [history(scope, tokenizer) for scope in (contextlib.nullcontext, strategy.scope)]


def written_history(scope) -> tuple[dict, list]:
    """Of targets of 2 to 20 tokens, so that the halves of a batch have other numbers of them, with label smoothing."""
    words = Tokenizer.train_byte_level_bpe(tiny.TEXTS, 280)
    sizes = {"num_layers": 1, "max_positions": 48}
    stacks = {f"{stack}__{name}": value for stack in ("encoder", "decoder") for name, value in sizes.items()}
    with scope():
        backbone = tiny.backbone("marian", vocabulary_size=290, **stacks)
        task = tiny.perturb(tasks.Seq2SeqLM(backbone, tokenizer=words, label_smoothing=0.1))
        eager = scope is contextlib.nullcontext
        task.compile(keras.optimizers.SGD(0.1), jit_compile=False, run_eagerly=eager)
    targets = [text[: 2 + 7 * (index % 4)] for index, text in enumerate(tiny.TEXTS[:10])]
    options = {"batch_size": 4, "shuffle": False, "verbose": 0}
    found = task.fit(tiny.TEXTS[:10], targets, sample_weight=np.linspace(0.5, 2.0, 10), epochs=2, **options).history
    return found, [np.asarray(weight).ravel()[:50].tolist() for weight in task.trainable_weights]


def written_histories(strategy) -> list[tuple]:
    """Of one device, and of two."""
    return [written_history(scope) for scope in (contextlib.nullcontext, strategy.scope)]
