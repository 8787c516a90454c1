"""What watching sees of two replicas, and of one device: functions for `replicas.run`.

As a script it is one of two workers, and prints one JSON object: python watching_behaviour.py FOLDER
"""

import contextlib
import json
import os
import sys
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from watch import Watch

from tfxformer import training

RNG = np.random.default_rng(0)
IDS = RNG.integers(0, 20, (20, 8)).astype("int32")
MASK = (np.arange(8) < RNG.integers(1, 9, (20, 1))).astype("int32")
LABELS = IDS[:, 0] % 4


def train(scope, folder, base=training.DistributedModel):
    with scope():
        keras.utils.set_random_seed(0)
        inputs = {name: keras.Input((8,), dtype="int32", name=name) for name in ("token_ids", "padding_mask")}
        x = keras.layers.Embedding(20, 16)(inputs["token_ids"])
        x = x * keras.ops.cast(inputs["padding_mask"], "float32")[..., None]
        model = base(inputs, keras.layers.Dense(4)(keras.layers.Dense(8, "tanh")(x)[:, 0]))
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        accumulates = {"gradient_accumulation_steps": 2} if base is training.DistributedModel else {}
        model.compile(keras.optimizers.SGD(0.5, global_clipnorm=0.01, **accumulates), loss)
    watch, throughput = Watch(), training.Throughput(peak_flops=1e6)
    board = training.TensorBoard(folder, update_freq=1, gradient_norms=True, weight_norms=True)
    found = model.fit(
        {"token_ids": IDS, "padding_mask": MASK},
        LABELS,
        validation_data=({"token_ids": IDS, "padding_mask": MASK}, LABELS),
        batch_size=4,
        epochs=2,
        shuffle=False,
        verbose=0,
        callbacks=[watch, throughput, board, training.HistoryFiles(folder / "history")],
    ).history
    return watch.norms, found, throughput


def scalars(folder, tag):
    """The values of a scalar in event files."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "train")).Reload()
    return [float(tf.make_ndarray(one.tensor_proto)) for one in events.Tensors(tag)]


def watched(strategy, folder):
    """What is seen under the strategy, and what is to be seen."""
    folder = Path(folder) / str(json.loads(os.environ.get("TF_CONFIG", "{}")).get("task", {}).get("index", 0))
    norms, found, throughput = train(strategy.scope, folder / "two")
    expected_norms, expected, _ = train(contextlib.nullcontext, folder / "one")
    flops = 6 * (8 * 16 * 8 + 8 * 4)
    history = folder / "two" / "history" / "history.json"
    assert history.exists() == (folder.name == "0")  # the first worker alone writes it
    written = json.loads(history.read_text()) if history.exists() else expected
    return {
        "tokens": found["tokens_per_second"],
        "expected_tokens": [float(MASK[4:].sum() / 4), float(MASK.sum() / 5)],
        "mfu": found["mfu"],
        "expected_mfu": [4 * flops / (2 * throughput.peak_flops)] * 2,
        "norms": norms,
        "expected_norms": expected_norms,
        "board": [scalars(folder / "two", f"{what}_gradient_norm") for what in ("batch", "epoch")],
        "weights": [scalars(folder / one, "epoch_weight_norm") for one in ("two", "one")],
        "losses": [written["loss"], expected["loss"]],
    }


def message_of_keras(strategy, folder):
    """What a model is told whose step is Keras' own."""
    try:
        train(strategy.scope, Path(folder) / "keras", keras.Model)
    except ValueError as error:
        return str(error)
    return "no error"


if __name__ == "__main__":
    print(json.dumps(watched(training.strategy("multiworker"), sys.argv[1])))
