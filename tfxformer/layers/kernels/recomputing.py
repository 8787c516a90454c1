"""Gradient checkpointing: a layer's inside computed again in the backward pass, instead of being kept."""

from __future__ import annotations

import keras
from keras import ops


def recomputed(layer: keras.layers.Layer, function, *inputs):
    """`function(*inputs)`, of which nothing is kept for the gradient (Chen et al., 2016, arXiv:1604.06174).

    `keras.remat` alone gives a gradient to its arguments and to variables. Where a train step computes on values in
    place of variables (`keras.StatelessScope`), the weights would get none, silently: here they are arguments.

    Args:
        layer: a built layer, whose weights `function` reads.
        function: of tensors, to a tensor; draws no random numbers.
        inputs: tensors.
    """
    weights = layer.weights

    def run(*arguments):
        values, tensors = arguments[: len(weights)], arguments[len(weights) :]
        with keras.StatelessScope(state_mapping=list(zip(weights, values, strict=True))):
            return function(*tensors)

    return keras.remat(run)(*(ops.cast(weight, weight.dtype) for weight in weights), *inputs)
