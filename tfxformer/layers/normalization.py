"""Normalizations whose writing follows the graph's numerics."""

from __future__ import annotations

import keras
from keras import ops

from tfxformer.layers import kernels
from tfxformer.layers.numerics import DEFAULT, Numerics

NORMS = ("layer", "rms")


def make_norm(kind: str, epsilon: float, dtype, name: str):
    """The normalization layer of a kind in `NORMS`."""
    layer = {"layer": LayerNormalization, "rms": RMSNormalization}[kind]
    return layer(epsilon=epsilon, dtype=dtype, name=name)


@keras.saving.register_keras_serializable("tfxformer")
class LayerNormalization(keras.layers.LayerNormalization):
    """Layer normalization over the last axis (Ba et al., 2016, arXiv:1607.06450).

    Input and output [..., D]; the statistics are float32 under every dtype policy. In training it is one kernel.
    """

    def call(self, inputs, training=None, numerics: Numerics = DEFAULT):
        if training:
            inputs = ops.cast(inputs, self.compute_dtype)
            return kernels.add_norm(inputs, None, self.gamma, self.beta, self.epsilon)
        if numerics.layer_norm == "product":
            return self._call_as_product(inputs)
        return super().call(inputs)

    def _call_as_product(self, inputs):
        wide = "float64" if self.compute_dtype == "float64" else "float32"
        inputs = ops.cast(inputs, wide)
        mean = ops.mean(inputs, axis=-1, keepdims=True)
        # Two equal differences, not one squared: the converter folds square(x - mean) into
        # SQUARED_DIFFERENCE, which has no int8 or int16 kernel.
        centred, again = inputs - mean, inputs - mean
        variance = ops.mean(centred * again, axis=-1, keepdims=True)
        gamma, beta = ops.cast(self.gamma, wide), ops.cast(self.beta, wide)
        # gamma scales the small factor: last in the chain, the converter would fold it into the kernels that read
        # the result, which then quantize worse, and would store a tied table twice.
        scale = ops.rsqrt(variance + self.epsilon) * gamma
        return ops.cast(centred * scale + beta, self.compute_dtype)


@keras.saving.register_keras_serializable("tfxformer")
class RMSNormalization(keras.layers.Layer):
    """x / sqrt(mean(x^2) + epsilon) * gamma over the last axis (Zhang and Sennrich, 2019, arXiv:1910.07467).

    Args:
        epsilon: float.

    Input and output [..., D]; the mean is float32 under every dtype policy. In training it is one kernel.
    """

    def __init__(self, epsilon=1e-6, **kwargs):
        super().__init__(**kwargs)
        self.epsilon = epsilon

    def build(self, input_shape):
        self.gamma = self.add_weight(name="gamma", shape=(input_shape[-1],), initializer="ones", autocast=False)

    def call(self, inputs, training=None, numerics: Numerics = DEFAULT):
        if training:
            return kernels.add_norm(ops.cast(inputs, self.compute_dtype), None, self.gamma, None, self.epsilon)
        wide = ops.cast(inputs, "float64" if self.compute_dtype == "float64" else "float32")
        scale = ops.rsqrt(ops.mean(wide * wide, axis=-1, keepdims=True) + self.epsilon)
        gamma = ops.cast(self.gamma, wide.dtype)
        if numerics.layer_norm == "product":  # gamma scales the small factor, as in `LayerNormalization`
            return ops.cast(wide * (scale * gamma), self.compute_dtype)
        return ops.cast(wide * scale * gamma, self.compute_dtype)

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {**super().get_config(), "epsilon": self.epsilon}
