"""Prints as JSON what a tagger with a weight a word and a class trains to, on one device and on two.

A process of its own: devices are split before TensorFlow is used.

    python task_replicas.py
"""

import json
import sys
from pathlib import Path

import keras
import tensorflow as tf

sys.path.insert(0, str(Path(__file__).parents[1]))

import tempfile

import tiny

from tfxformer import tasks
from tfxformer.layers.kernels import formulas as kernels

WORDS = [["ada", "wrote", "it"], ["london"], ["the", "cat", "sat", "on"], ["good", "film"]]
TAGS = [["P", "O", "O"], ["Q"], ["O", "P", -100, "O"], ["O", "Q"]]
WEIGHTS = [[1.0, 2.0, 0.5], [3.0], [1.0, 1.0, 1.0, 0.0], [0.25, 2.0]]


def history(strategy) -> dict:
    """Of two epochs of batches whose halves have other numbers of words and other weights."""
    with strategy.scope():
        backbone = tiny.backbone(encoder__num_layers=1)
        task = tasks.TokenClassifier(backbone, ["O", "P", "Q"], tokenizer=TOKENIZER, sequence_length=16)
        tiny.perturb(task)
        metrics = ["accuracy", keras.metrics.AUC(name="auc"), keras.metrics.F1Score(average="macro", name="f1")]
        task.compile(keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy", metrics, jit_compile=False)
    options = {"sample_weight": WEIGHTS, "class_weight": {"O": 0.5}, "batch_size": 4, "shuffle": False, "verbose": 0}
    return task.fit(WORDS, TAGS, epochs=2, validation_data=(WORDS, TAGS, WEIGHTS), **options).history


kernels.use_clusters = lambda: False
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
)
with tempfile.TemporaryDirectory() as folder:
    TOKENIZER = tiny.tokenizer(folder)
two = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
assert two.num_replicas_in_sync == 2
print(json.dumps([history(strategy) for strategy in (tf.distribute.get_strategy(), two)]))
