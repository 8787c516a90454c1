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
        mean = ops.mean(inputs, axis=-1, keepdims=True)
        # Two equal differences, not one squared: the converter folds square(x - mean) into
        # SQUARED_DIFFERENCE, which has no int8 or int16 kernel.
        centred, again = inputs - mean, inputs - mean
        variance = ops.mean(centred * again, axis=-1, keepdims=True)
        return centred * ops.rsqrt(variance + self.epsilon) * self.gamma + self.beta
