"""Layer normalization whose writing follows the graph's numerics."""

from __future__ import annotations

import keras
from keras import ops

from tfxformer.layers.numerics import DEFAULT, Numerics


@keras.saving.register_keras_serializable("tfxformer")
class LayerNormalization(keras.layers.LayerNormalization):
    """Layer normalization over the last axis (Ba et al., 2016, arXiv:1607.06450).

    Input and output [..., D]; the statistics are float32 under every dtype policy.
    """

    def call(self, inputs, numerics: Numerics = DEFAULT):
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
