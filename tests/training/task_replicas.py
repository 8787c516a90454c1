"""What a tagger with a weight a word and a class trains to, on one device and on two: for `replicas.run`."""

import contextlib
import tempfile

import keras
import tiny

from tfxformer import tasks

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
