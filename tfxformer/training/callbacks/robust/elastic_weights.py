"""Elastic weight consolidation: weights that an earlier task needs stay near to what they were."""

from __future__ import annotations

import keras
import numpy as np
from keras import ops, tree

from tfxformer.backend import on_jax
from tfxformer.backend import tensorflow as tf
from tfxformer.training.callbacks.robust.changed_pass import ChangedPass, check_positive
from tfxformer.training.compiling.outputs import Output
from tfxformer.training.step.loss_terms import Objective
from tfxformer.training.step.passes import Batch, call


class ElasticWeightConsolidation(ChangedPass):
    """Adds `strength / 2 * sum of F * (w - w0) ** 2` to the loss of a next task (EWC).

    `w0` are the weights of a classifier as the earlier task left them, and `F` the diagonal of its Fisher information:
    how much its answers to that task's examples depend on each weight. The next task may be learned by the same
    classifier, or by another task on the same backbone; the weights that both have are held. Several of these
    callbacks hold what several earlier tasks need.

    Labels that come new into the same head win over the earlier ones all the same: there `data.replay` helps.

    Args:
        model: the classifier with one label a text, after the earlier task's `fit`.
        x: examples of that task: texts, or arrays, as its `fit` takes them; their labels are not needed. A hundred do;
            each is gone through once for each label.
        strength: float, lambda of the paper. It hangs on the task: begin with 1e3, and multiply by 10 until the
            earlier task stays.

    Attributes:
        fisher: list of float32 arrays, one for each trainable weight of `model`.

    Raises:
        ValueError: for a strength that is not above 0, a model that is no such classifier, and in `fit` for a model
            that shares no trainable weight with it, and for a loss that is a sum.

    Source: Kirkpatrick et al., 2017 (arXiv:1612.00796), equation 3; the Fisher information is the expectation over the
    labels that the model gives, not over those of the examples.

    Example:
        classifier.fit(texts, labels)
        keep = training.ElasticWeightConsolidation(classifier, texts[:200])
        classifier.fit(next_texts, next_labels, callbacks=[keep])
    """

    def __init__(self, model, x, strength: float = 1e3):
        super().__init__()
        check_positive(strength=strength)
        self.strength = strength
        self.fisher = fisher_diagonal(model, x)
        self._held = [
            (variable, ops.convert_to_tensor(fisher), ops.copy(ops.convert_to_tensor(variable.value)))
            for variable, fisher in zip(model.trainable_variables, self.fisher, strict=True)
        ]

    def check(self, model) -> None:
        if not self._shared(model):
            raise ValueError(
                f"ElasticWeightConsolidation holds the weights of the model that it was made of, and {model.name} "
                "trains none of them: go on with that model, or make the next task of its .backbone."
            )

    def _shared(self, model) -> list[tuple]:
        trained = set(map(id, model.trainable_variables))
        return [held for held in self._held if id(held[0]) in trained]

    def change(self, passes, model, batch: Batch, records: list):
        """The same pass; the penalty goes with the first mean of the loss, as those of regularizers do."""
        y_pred, parts = passes(model, batch, records)
        index = next((index for index, part in enumerate(parts) if part.count is not None), None)
        if index is None:
            raise ValueError(
                "ElasticWeightConsolidation adds to a mean, and the loss of this model is a sum: compile it with "
                'reduction="sum_over_batch_size".'
            )
        squares = [
            ops.sum(fisher * ops.square(ops.cast(variable.value, "float32") - ops.cast(before, "float32")))
            for variable, fisher, before in self._shared(model)
        ]
        penalty = self.strength / 2.0 * sum(squares)
        parts[index] = Objective(parts[index].value + penalty, parts[index].count)
        return y_pred, parts


def fisher_diagonal(model, x) -> list[np.ndarray]:
    """The diagonal of a classifier's Fisher information: the mean of `sum over labels of P * (d log P / d w) ** 2`.

    Args:
        model: a built classifier with one label a row, logits [B, C].
        x: examples as its `fit` takes them, without labels.

    Returns:
        list of float32 arrays, like the trainable weights.

    Raises:
        ValueError: for another model, and without examples.
    """
    kinds = getattr(model, "output_kinds", None)
    if not isinstance(kinds, Output) or kinds.kind != "softmax" or kinds.tokens:
        raise ValueError(
            "ElasticWeightConsolidation asks a classifier with one label a text how sure it is, and "
            f"{type(model).__name__} is none."
        )
    rows = model.to_arrays(x)[0] if hasattr(model, "to_arrays") else x
    count = len(tree.flatten(rows)[0])
    if not count:
        raise ValueError("ElasticWeightConsolidation needs examples of the earlier task, and got none.")
    squares = _jax_squares(model) if on_jax() else _tensorflow_squares(model)
    total = None
    for index in range(count):
        found = squares(tree.map_structure(lambda array, at=index: ops.convert_to_tensor(array[at : at + 1]), rows))
        total = found if total is None else [before + one for before, one in zip(total, found, strict=True)]
    return [np.asarray(one, "float32") / count for one in total]


def _tensorflow_squares(model):
    """A function of one row: the sum over labels of P times the square of the gradient of log P by each weight."""
    weights = [variable.value for variable in model.trainable_variables]

    @tf.function(autograph=False, reduce_retracing=True)
    def squares(row):
        with tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape:
            tape.watch(weights)
            logs = tf.unstack(tf.nn.log_softmax(tf.cast(call(model, row, False), "float32"))[0])
        total = [tf.zeros(weight.shape) for weight in weights]
        for log in logs:
            gradients = tape.gradient(log, weights, unconnected_gradients=tf.UnconnectedGradients.ZERO)
            square = [tf.square(tf.cast(tf.convert_to_tensor(gradient), "float32")) for gradient in gradients]
            total = [before + tf.exp(log) * one for before, one in zip(total, square, strict=True)]
        return total

    return squares


def _jax_squares(model):
    import jax

    others = [variable.value for variable in model.non_trainable_variables]

    def logs(weights, others, row):
        mapping = [
            *zip(model.trainable_variables, weights, strict=True),
            *zip(model.non_trainable_variables, others, strict=True),
        ]
        with keras.StatelessScope(mapping):
            return ops.log_softmax(ops.cast(call(model, row, False), "float32"))[0]

    @jax.jit
    def squares(weights, others, row):
        found, pull_back = jax.vjp(lambda weights: logs(weights, others, row), weights)
        total = [ops.zeros(weight.shape) for weight in weights]
        for label in range(found.shape[0]):
            (gradients,) = pull_back(ops.one_hot(label, found.shape[0], dtype=found.dtype))
            square = [ops.square(ops.cast(gradient, "float32")) for gradient in gradients]
            total = [before + ops.exp(found[label]) * one for before, one in zip(total, square, strict=True)]
        return total

    weights = [variable.value for variable in model.trainable_variables]
    return lambda row: squares(weights, others, row)
