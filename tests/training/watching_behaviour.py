"""What watching sees of two replicas, and of one device, in a process of its own; prints one JSON object."""

import contextlib
import json

import keras
import numpy as np

from tfxformer import training
from tfxformer.training.gradient_norms import GradientNorms

STRATEGY = training.strategy("cpu:2")  # before anything else uses TensorFlow
RNG = np.random.default_rng(0)
IDS = RNG.integers(0, 20, (20, 8)).astype("int32")
MASK = (np.arange(8) < RNG.integers(1, 9, (20, 1))).astype("int32")
LABELS = IDS[:, 0] % 4


class Watch(keras.callbacks.Callback):
    """The norms of each update; a clock on which each batch takes a second."""

    def on_train_begin(self, logs=None):
        self.watched, self.norms, self.now = GradientNorms(self.model, by_layer=True), [], 0.0
        training.throughput.time.perf_counter = lambda: self.now

    def on_train_batch_end(self, batch, logs=None):
        self.now += 1.0
        sums, updates = self.watched.take()
        if updates:
            self.norms.append([*sums.tolist(), updates])

    def on_train_end(self, logs=None):
        self.watched.end()


def train(scope, base=training.DistributedModel):
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
    found = model.fit(
        {"token_ids": IDS, "padding_mask": MASK},
        LABELS,
        batch_size=4,
        epochs=2,
        shuffle=False,
        verbose=0,
        callbacks=[watch, throughput],
    ).history
    return watch.norms, found, throughput


def main():
    norms, found, throughput = train(STRATEGY.scope)
    expected_norms, _, _ = train(contextlib.nullcontext)
    message = "no error"
    try:
        train(STRATEGY.scope, keras.Model)
    except ValueError as error:
        message = str(error)
    flops = 6 * (8 * 16 * 8 + 8 * 4)
    print(
        json.dumps(
            {
                "tokens": found["tokens_per_second"],
                "expected_tokens": [float(MASK[4:].sum() / 4), float(MASK.sum() / 5)],
                "mfu": found["mfu"],
                "expected_mfu": [4 * flops / (2 * throughput.peak_flops)] * 2,
                "norms": norms,
                "expected_norms": expected_norms,
                "keras_model": message,
            }
        )
    )


if __name__ == "__main__":
    main()
