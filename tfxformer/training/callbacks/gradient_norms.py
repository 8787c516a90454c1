"""Norms of gradients and of weights, by layer and of all."""

from __future__ import annotations

import numpy as np
from keras import ops

from tfxformer.backend import on_tensorflow, strategy_of
from tfxformer.backend import tensorflow as tf
from tfxformer.training.distributed_model import DistributedModel
from tfxformer.training.step.hooks import on_gradients
from tfxformer.training.step.sums import StepSums


def layer_of(variable) -> str:
    """The path of the layer that a variable belongs to."""
    return variable.path.rpartition("/")[0] or variable.path


class GradientNorms:
    """L2 norms of what every update is made from, summed inside the step until they are read.

    The norms are those before clipping; that of all is the one that `global_clipnorm` compares.

    Args:
        model: a compiled and built model, in `on_train_begin`.
        by_layer: bool, each layer's norm too.

    Raises:
        ValueError: under several replicas for a model that is no `DistributedModel`: Keras' step has each replica's
            gradients there, not their sum.
    """

    def __init__(self, model, by_layer=False):
        strategy = strategy_of(model)
        if strategy.num_replicas_in_sync > 1 and not isinstance(model, DistributedModel):
            raise ValueError(
                f"Under {type(strategy).__name__} the gradients of a {type(model).__name__} are each replica's own "
                "until they are applied: build a training.DistributedModel to watch their norm."
            )
        layers = dict.fromkeys(layer_of(variable) for variable in model.trainable_variables) if by_layer else {}
        self.layers = list(layers)
        self._sums = StepSums(model, [(len(self.layers) + 2,)])  # norm of all, those of the layers, number of updates
        self.end = on_gradients(model, self._add, self._sums)

    def _add(self, gradients, variables):
        """In the graph: a number for each gradient, and a few small operations for all together."""
        squares, rows = [], []
        for gradient, variable in zip(gradients, variables, strict=True):
            if gradient is not None:
                squares.append(_square(ops.cast(gradient, "float32")))
                rows.append([1.0, *(float(layer_of(variable) == layer) for layer in self.layers)])
        norms = ops.sqrt(ops.matmul(ops.stack(squares), np.array(rows, "float32")))
        self._sums.variables[0].assign_add(ops.concatenate([norms, ops.ones(1)]))

    def take(self) -> tuple[np.ndarray, int]:
        """Sums of norms, of all and then of `layers`, and the number of updates, both since the last time."""
        *sums, updates = found = np.array(self._sums.read(), np.float64)
        self._sums.write(np.zeros(found.shape, "float32"))
        return np.array(sums), int(updates)


def _square(gradient):
    """The sum of squares; on TensorFlow by one operation."""
    return 2.0 * tf.nn.l2_loss(gradient) if on_tensorflow() else ops.sum(ops.square(gradient))


def weight_norms(model) -> dict[str, float]:
    """L2 norm of each layer's trainable weights, by path; that of all weights under ""."""
    squares = {}
    for variable in model.trainable_variables:
        square = float(ops.sum(ops.square(ops.cast(variable, "float32"))))
        squares[layer_of(variable)] = squares.get(layer_of(variable), 0.0) + square
    return {name: square**0.5 for name, square in {"": sum(squares.values()), **squares}.items()}
