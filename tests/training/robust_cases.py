"""A small model, and what adversarial training and R-Drop make of it, computed a second way."""

import contextlib

import keras
import numpy as np

from tfxformer import training
from tfxformer.backend import tensorflow as tf  # absent where these functions run on JAX
from tfxformer.training.compiling.losses_and_metrics import compile_arguments
from tfxformer.training.compiling.outputs import Output

VOCABULARY, LENGTH, WIDTH, CLASSES, ROWS = 12, 5, 6, 3, 8
RNG = np.random.default_rng(0)
IDS = RNG.integers(0, VOCABULARY, (ROWS, LENGTH)).astype("int32")
LABELS = RNG.integers(0, CLASSES, ROWS).astype("int32")
WEIGHTS = np.array([1.0, 0.5, 2.0, 1.0, 0.0, 1.0, 3.0, 1.0], "float32")
KEPT = RNG.uniform(0.0, 2.0, (2, WIDTH)).astype("float32")  # what either pass keeps of each element
EPSILON, ALPHA, RATE = 0.7, 1.5, 0.5


class Kept(keras.layers.Layer):
    """Stands for dropout: in training even rows are multiplied by one vector, odd ones by another."""

    rate = 0.5

    def call(self, inputs, training=None):
        if not training:
            return inputs
        odd = keras.ops.cast(keras.ops.arange(keras.ops.shape(inputs)[0]) % 2, inputs.dtype)[:, None]
        first, second = (keras.ops.cast(row, inputs.dtype) for row in KEPT)
        return inputs * (first * (1.0 - odd) + second * odd)


class Classifier(training.DistributedModel):
    """Says what its logits are, as a task does."""

    output_kinds = Output("softmax")


def make(scope=contextlib.nullcontext, drops=False, steps=None, **compiled):
    with scope():
        keras.utils.set_random_seed(0)
        inputs = keras.Input((LENGTH,), dtype="int32")
        x = keras.layers.Embedding(VOCABULARY, WIDTH, embeddings_initializer="normal", name="table")(inputs)
        x = keras.layers.Dense(WIDTH, "tanh", name="hidden")(keras.ops.mean(x, axis=1))
        x = Kept()(x) if drops else x
        model = Classifier(inputs, keras.layers.Dense(CLASSES, name="head", dtype="float32")(x))
        optimizer = keras.optimizers.SGD(RATE, gradient_accumulation_steps=steps)
        loss = compile_arguments(Classifier.output_kinds, "sparse_categorical_crossentropy")["loss"]
        model.compile(optimizer, loss, **compiled)
    return model


def fit(model, callback, weights=None, batch_size=ROWS):
    """The loss of one epoch that is shown, and the weights after it."""
    found = model.fit(
        IDS, LABELS, sample_weight=weights, batch_size=batch_size, shuffle=False, verbose=0, callbacks=[callback]
    ).history["loss"]
    return found[0], [np.array(weight) for weight in model.get_weights()]


def _logits(weights, rows, kept=1.0):
    _, kernel, bias, head, head_bias = weights
    return (tf.tanh(tf.reduce_mean(rows, 1) @ kernel + bias) * kept) @ head + head_bias


def _losses(logits):
    return -tf.gather(tf.nn.log_softmax(logits), LABELS, batch_dims=1)


def moved_by_hand(table, others):
    """The moves of all embeddings [B, S, D], each example's from a gradient of its own."""
    moves = []
    for row, label in zip(IDS, LABELS, strict=True):
        own = tf.gather(table, row)[None]
        with tf.GradientTape() as tape:
            tape.watch(own)
            loss = -tf.nn.log_softmax(_logits([None, *others], own))[0, label]
        gradient = tape.gradient(loss, own)[0].numpy().astype("float64")
        moves.append(EPSILON * gradient / np.sqrt((gradient**2).sum()))
    return np.array(moves, "float32")


def adversarial_by_hand(weights, by_row=None):
    """(loss, new weights) of one step of SGD on all rows; each row counts by its weight."""
    by_row = np.ones(ROWS, "float32") if by_row is None else by_row
    weights = [tf.constant(weight) for weight in weights]
    moves = moved_by_hand(weights[0], weights[1:])
    with tf.GradientTape() as tape:
        tape.watch(weights)
        rows = tf.gather(weights[0], IDS)
        losses = _losses(_logits(weights, rows)) + _losses(_logits(weights, rows + moves))
        loss = tf.reduce_sum(losses * by_row) / len(by_row)
    gradients = tape.gradient(loss, weights)
    return float(loss), [np.array(w - RATE * tf.convert_to_tensor(g)) for w, g in zip(weights, gradients, strict=True)]


def r_drop_by_hand(weights, by_row=None):
    """The same for R-Drop, by the formula of the paper, of the logits of both passes."""
    by_row = np.ones(ROWS, "float32") if by_row is None else by_row
    weights = [tf.constant(weight) for weight in weights]
    with tf.GradientTape() as tape:
        tape.watch(weights)
        rows = tf.gather(weights[0], IDS)
        first, second = (_logits(weights, rows, kept) for kept in KEPT)
        p, q = tf.nn.softmax(first), tf.nn.softmax(second)
        divergence = tf.reduce_sum(p * tf.math.log(p / q), 1) + tf.reduce_sum(q * tf.math.log(q / p), 1)
        losses = (_losses(first) + _losses(second)) / 2.0 + ALPHA * divergence / 2.0
        loss = tf.reduce_sum(losses * by_row) / len(by_row)
    gradients = tape.gradient(loss, weights)
    return float(loss), [np.array(w - RATE * tf.convert_to_tensor(g)) for w, g in zip(weights, gradients, strict=True)]


BY_HAND = {"adversarial": adversarial_by_hand, "r_drop": r_drop_by_hand}


def callback(kind):
    return training.AdversarialTraining(EPSILON) if kind == "adversarial" else training.RDrop(ALPHA)


def of_replicas(strategy, kind):
    """What a step gives under a strategy, with an accumulation of two batches of unlike weights, and by hand."""
    model = make(strategy.scope, drops=kind == "r_drop", steps=2)
    before = model.get_weights()
    _, after = fit(model, callback(kind), WEIGHTS, batch_size=ROWS // 2)
    return [[array.tolist() for array in found] for found in (after, BY_HAND[kind](before, WEIGHTS)[1])]


def said_of_contrastive(strategy):
    """What adversarial training says of a loss that compares the samples of all replicas."""
    model = make(strategy.scope)
    type(model).compares_samples = True
    try:
        training.AdversarialTraining().check(model)
    except ValueError as error:
        return str(error)
    finally:
        type(model).compares_samples = False
    return "no error"


def elastic_by_hand(x, labels, weights, before, strength):
    """(Fisher diagonal, weights after one step) of softmax regression, in closed form: weights are kernel and bias."""

    def chances(kernel, bias):
        scores = np.exp(x @ kernel + bias)
        return scores / scores.sum(1, keepdims=True)

    p = chances(*before)
    spread = p * (1.0 - p)  # sum over labels c of P(c) * (1 at c - p) ** 2, of each column
    fisher = [(x**2).T @ spread / len(x), spread.mean(0)]
    wrong = (chances(*weights) - np.eye(p.shape[1])[labels]) / len(x)
    gradients = [x.T @ wrong, wrong.sum(0)]
    after = [
        weight - RATE * (gradient + strength * f * (weight - held))
        for weight, gradient, f, held in zip(weights, gradients, fisher, before, strict=True)
    ]
    return fisher, after


FEATURES = RNG.normal(size=(ROWS, WIDTH)).astype("float32")
STRENGTH = 3.0


def elastic(scope=contextlib.nullcontext, **optimizer):
    """(Fisher diagonal, weights after a step, both by hand) of a model that has moved since the earlier task."""
    with scope():
        keras.utils.set_random_seed(0)
        inputs = keras.Input((WIDTH,))
        model = Classifier(inputs, keras.layers.Dense(CLASSES, name="head")(inputs))
        model.compile(keras.optimizers.SGD(RATE, **optimizer), keras.losses.SparseCategoricalCrossentropy(True))
    rng = np.random.default_rng(1)
    before, moved = ([rng.normal(size=weight.shape) for weight in model.get_weights()] for _ in range(2))
    model.set_weights(before)
    keep = training.ElasticWeightConsolidation(model, FEATURES, STRENGTH)
    model.set_weights(moved)
    batch = ROWS // optimizer.get("gradient_accumulation_steps", 1)
    model.fit(FEATURES, LABELS, batch_size=batch, shuffle=False, verbose=0, callbacks=[keep])
    found = [keep.fisher, model.get_weights()]
    return [[np.array(array).tolist() for array in arrays] for arrays in found], [
        [array.tolist() for array in arrays] for arrays in elastic_by_hand(FEATURES, LABELS, moved, before, STRENGTH)
    ]


def elastic_of_replicas(strategy):
    return elastic(strategy.scope, gradient_accumulation_steps=2)


def all_kinds(steps=None):
    """Weights after a step of each kind, from the same numbers on every backend."""
    found = {}
    for kind in BY_HAND:
        model = make(drops=kind == "r_drop", steps=steps)
        rng = np.random.default_rng(2)
        model.set_weights([rng.normal(size=weight.shape) for weight in model.get_weights()])
        loss, after = fit(model, callback(kind), WEIGHTS, ROWS // (steps or 1))
        found |= {f"{kind} {index}": array for index, array in enumerate(after)} | {f"{kind} loss": np.array(loss)}
    if steps:
        return found
    return found | {f"elastic {index}": np.array(array) for index, array in enumerate(elastic()[0][1])}


if __name__ == "__main__":
    import sys

    np.savez(sys.argv[1], **all_kinds(), **{f"accumulated {name}": array for name, array in all_kinds(2).items()})
