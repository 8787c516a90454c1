"""Trainings under one strategy, run in a process of their own: a failed MirroredStrategy run spoils its process.

    python distributed_cases.py STRATEGY CELLS.json OUTPUT.npz

CELLS.json is a list of `cell(...)`; OUTPUT.npz gets the weights, metrics and predictions of each. `reference` trains
the same on one device with a loop that shares nothing with the package: dense gradients, clipped with numpy.
"""

import json
import os
import sys
from pathlib import Path

import numpy as np

VOCABULARY, LENGTH, WIDTH, BATCH = 64, 12, 16, 16
CLIP = 0.05  # far below the norms met, 0.5 to 1.3: every update is clipped
DEFAULTS = {
    "optimizer": "sgd",
    "steps": 1,  # batches per update
    "jit": False,
    "steps_per_execution": 1,
    "clip": {"global_clipnorm": CLIP},
    "samples": 5 * BATCH,
    "epochs": 2,
    # "mean", "tokens" (weighted and divided by the weights), "samples" (sample weights), "sum", "two" outputs, or
    # "compare": each sample with all others of the batch
    "loss": "mean",
    "dropout": 0.0,
    "dtype": None,
    "eager": False,
    "ema": False,
    "on_batch": False,
    "regularize": 0.0,
    "fit_only": False,  # no evaluate and predict, which XLA would compile too
}


def cell(**options):
    """A training: the defaults above but for `options`."""
    assert set(options) <= set(DEFAULTS), options
    return {**DEFAULTS, **options}


def data(options):
    """(ids, targets, weights) of a cell, each row with another number of tokens that count."""
    rng = np.random.default_rng(1)
    ids = rng.integers(0, VOCABULARY, (options["samples"], LENGTH)).astype("int32")
    targets = rng.integers(0, VOCABULARY, ids.shape).astype("int32")
    lengths = rng.integers(1, LENGTH + 1, (len(ids), 1))
    tokens = (np.arange(LENGTH)[None] < lengths).astype("float32")
    tokens[len(ids) // 2 :: 3] = 0.0  # rows of which nothing counts
    samples = rng.uniform(0.0, 2.0, (len(ids), 1)).astype("float32")
    return ids, targets, {"tokens": tokens, "samples": samples}.get(options["loss"], tokens)


def model(options, base):
    """Embedding, attention of one head, feed-forward; the weights are drawn with numpy."""
    import keras

    layers = keras.layers
    inputs = keras.Input((LENGTH,), dtype="int32")
    policy = options["dtype"] and keras.DTypePolicy(options["dtype"])
    x = layers.Embedding(VOCABULARY, WIDTH, dtype=policy)(inputs)
    x = layers.Dropout(options["dropout"], dtype=policy)(x)
    y = layers.Attention(dtype=policy)([layers.Dense(WIDTH, dtype=policy)(x), x])
    x = layers.LayerNormalization(dtype=policy)(layers.Add(dtype=policy)([x, y]))
    regularizer = keras.regularizers.L2(options["regularize"]) if options["regularize"] else None
    hidden = layers.Dense(2 * WIDTH, "gelu", kernel_regularizer=regularizer, dtype=policy)(x)
    outputs = layers.Dense(VOCABULARY, dtype="float32", name="a")(hidden)
    if options["loss"] == "two":
        pooled = layers.GlobalAveragePooling1D(dtype=policy)(hidden)
        outputs = {"a": outputs, "b": layers.Dense(1, dtype="float32", name="b")(pooled)}
    made = base(inputs, outputs)
    rng = np.random.default_rng(0)
    for weight in made.trainable_weights:
        weight.assign(rng.normal(0.0, 0.2, weight.shape).astype("float32"))
    return made


def optimizer(options, clips=True):
    """The optimizer of a cell."""
    import keras

    from tfxformer.training import AdamW

    accumulates = {"gradient_accumulation_steps": options["steps"]} if options["steps"] > 1 else {}
    arguments = {**(options["clip"] if clips else {}), **(accumulates if clips else {})}
    if options["ema"]:
        arguments |= {"use_ema": True, "ema_momentum": 0.5}
    if options["optimizer"] == "sgd":
        return keras.optimizers.SGD(2.0, **arguments)
    make = {"adamw": keras.optimizers.AdamW, "ours": AdamW}[options["optimizer"]]
    # A large epsilon: with the usual one, updates of weights whose gradient is rounding noise alone would be noise too.
    return make(1e-3, weight_decay=0.01, epsilon=1e-4, **arguments)


def comparison(outputs):
    """A contrastive loss: the first half of a sample's mean logits is to find its own second half."""
    import tensorflow as tf

    halves = tf.split(tf.reduce_mean(outputs, axis=1), 2, axis=-1)
    return tf.reduce_mean(
        tf.nn.sparse_softmax_cross_entropy_with_logits(
            tf.range(tf.shape(outputs)[0]), tf.matmul(*halves, transpose_b=True)
        )
    )


def trained_class(options):
    """The class that a cell trains."""
    from tfxformer.training import DistributedModel

    class Comparing(DistributedModel):
        compares_samples = True

        def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
            return comparison(y_pred)

    return Comparing if options["loss"] == "compare" else DistributedModel


def losses(options):
    """(losses, weighted metrics) for compile()."""
    import keras

    if options["loss"] == "compare":
        return None, None
    reduction = {"tokens": "mean_with_sample_weight", "sum": "sum"}.get(options["loss"], "sum_over_batch_size")
    crossentropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction=reduction)
    if options["loss"] != "two":
        return crossentropy, [keras.metrics.SparseCategoricalAccuracy()]
    crossentropy.reduction = "mean_with_sample_weight"
    return {"a": crossentropy, "b": "mean_squared_error"}, None


def targets_and_weights(options, arrays):
    """What `fit` takes as y and sample_weight."""
    _, targets, weights = arrays
    if options["loss"] == "two":
        numbers = targets[:, :1].astype("float32") / VOCABULARY
        return {"a": targets, "b": numbers}, {"a": weights, "b": np.ones(len(targets), "float32")}
    return targets, weights if options["loss"] in ("tokens", "samples") else None


def run(options, scope):
    """Trains, evaluates and predicts; returns a dict of arrays."""
    import tensorflow as tf

    with scope():
        trained = model(options, trained_class(options))
        loss, metrics = losses(options)
        trained.compile(
            optimizer(options),
            loss,
            weighted_metrics=metrics,
            loss_weights={"a": 1.0, "b": 0.5} if options["loss"] == "two" else None,
            jit_compile=options["jit"],
            steps_per_execution=options["steps_per_execution"],
            run_eagerly=options["eager"],
        )
    arrays = data(options)
    y, weights = targets_and_weights(options, arrays)
    results = {}
    if options["on_batch"]:
        for _ in range(options["epochs"]):
            for begin in range(0, options["samples"], BATCH):
                end = begin + BATCH
                logs = trained.train_on_batch(arrays[0][begin:end], y[begin:end], return_dict=True)
        results["loss"] = np.asarray(logs["loss"])
    else:
        fitted = trained.fit(
            arrays[0], y, sample_weight=weights, batch_size=BATCH, epochs=options["epochs"], shuffle=False, verbose=0
        )
        results |= {name: np.asarray(value) for name, value in fitted.history.items()}
    results["updates"] = np.asarray(int(tf.cast(trained.optimizer.iterations, "int64")))
    for index, weight in enumerate(trained.trainable_weights):
        results[f"weight_{index}"] = np.asarray(weight.numpy())
    if options["fit_only"]:
        return results
    results |= {
        f"val_{name}": np.asarray(value)
        for name, value in trained.evaluate(
            arrays[0], y, sample_weight=weights, batch_size=BATCH, verbose=0, return_dict=True
        ).items()
    }
    predicted = trained.predict(arrays[0][: BATCH + 5], batch_size=BATCH, verbose=0)
    return {**results, "predicted": predicted["a"] if isinstance(predicted, dict) else predicted}


def reference_loss(options, outputs, y, weights, made):
    """The loss of a whole update's samples, written out."""
    import tensorflow as tf

    def crossentropy(logits):
        return tf.nn.sparse_softmax_cross_entropy_with_logits(y["a"] if isinstance(y, dict) else y, logits)

    if options["loss"] == "two":
        tokens = tf.reduce_sum(crossentropy(outputs["a"]) * weights["a"]) / tf.reduce_sum(weights["a"])
        total = tokens + 0.5 * tf.reduce_mean((outputs["b"] - y["b"]) ** 2)
    else:
        terms = crossentropy(outputs)
        total = {
            "mean": lambda: tf.reduce_mean(terms),
            "sum": lambda: tf.reduce_sum(terms),
            "tokens": lambda: tf.reduce_sum(terms * weights) / tf.reduce_sum(weights),
            "samples": lambda: tf.reduce_mean(terms * weights),
            "compare": lambda: comparison(outputs),
        }[options["loss"]]()
    if options["regularize"]:
        kernel = next(layer.kernel for layer in made.layers if getattr(layer, "kernel_regularizer", None))
        total += options["regularize"] * tf.reduce_sum(tf.convert_to_tensor(kernel) ** 2)
    return total


def clip(gradients, options):
    """Clips with numpy."""
    limits = options["clip"]
    if "global_clipnorm" in limits:
        norm = np.sqrt(sum(np.sum(np.square(gradient, dtype="float64")) for gradient in gradients))
        ratio = min(1.0, limits["global_clipnorm"] / max(norm, 1e-30))
        return [(gradient * ratio).astype("float32") for gradient in gradients]
    if "clipnorm" in limits:
        norms = [max(np.sqrt(np.sum(np.square(gradient, dtype="float64"))), 1e-30) for gradient in gradients]
        ratios = [min(1.0, limits["clipnorm"] / norm) for norm in norms]
        return [(gradient * ratio).astype("float32") for gradient, ratio in zip(gradients, ratios, strict=True)]
    if "clipvalue" in limits:
        return [np.clip(gradient, -limits["clipvalue"], limits["clipvalue"]) for gradient in gradients]
    return gradients


def take_rows(part, rows):
    """Rows of an array, or of each array of a dict."""
    return {name: value[rows] for name, value in part.items()} if isinstance(part, dict) else part[rows]


def reference(options):
    """The weights of one device: a list of arrays, and the number of updates."""
    import keras
    import tensorflow as tf

    made, updater = model(options, keras.Model), optimizer(options, clips=False)
    ids, *_ = arrays = data(options)
    y, weights = targets_and_weights(options, arrays)
    batches = [range(begin, min(begin + BATCH, len(ids))) for begin in range(0, len(ids), BATCH)] * options["epochs"]
    steps = options["steps"]
    for first in range(0, len(batches) - steps + 1, steps):
        rows = np.concatenate([list(batch) for batch in batches[first : first + steps]])
        of_rows = [None if part is None else take_rows(part, rows) for part in (y, weights)]
        with tf.GradientTape() as tape:
            loss = reference_loss(options, made(ids[rows], training=True), *of_rows, made)
        gradients = tape.gradient(loss, made.trainable_variables)
        gradients = clip([tf.convert_to_tensor(gradient).numpy() for gradient in gradients], options)
        updater.apply([tf.constant(gradient) for gradient in gradients], made.trainable_variables)
    updater.finalize_variable_values(made.trainable_variables)
    return [weight.numpy() for weight in made.trainable_weights], int(updater.iterations)


def run_all(strategy, cells, output):
    """For `replicas.run`: the cells one after another; their arrays go into a file."""
    results = [run(options, strategy.scope) for options in cells]
    np.savez(output, **{f"{index}/{name}": value for index, of in enumerate(results) for name, value in of.items()})


def scope_of(name):
    """A context factory for a strategy's name, "none" for none."""
    import contextlib

    import tensorflow as tf

    from tfxformer import training

    if name == "none":
        return contextlib.nullcontext
    if name == "one":
        return tf.distribute.OneDeviceStrategy("CPU:0").scope
    return training.strategy({"mirrored": "cpu:2"}.get(name, name)).scope


def main(strategy, cells, output):
    """Runs the cells of a file one after another."""
    scope = scope_of(strategy)
    results = {}
    for index, options in enumerate(json.loads(Path(cells).read_text(encoding="utf-8"))):
        results |= {f"{index}/{name}": value for name, value in run(options, scope).items()}
    if json.loads(os.environ.get("TF_CONFIG", "{}")).get("task", {}).get("index", 0) == 0:
        np.savez(output, **results)


if __name__ == "__main__":
    main(*sys.argv[1:])
