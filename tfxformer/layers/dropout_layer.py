"""Dropout as a layer, for places that are not inside a block."""

from __future__ import annotations

import keras

from tfxformer.layers.dropout import dropout


@keras.saving.register_keras_serializable("tfxformer")
class Dropout(keras.layers.Layer):
    """Dropout with the package's own fast masks (Srivastava et al., 2014).

    Args:
        rate: float in [0, 1).

    Call: any shape, unchanged outside of training.
    """

    def __init__(self, rate, **kwargs):
        super().__init__(**kwargs)
        self.rate = rate
        self.seed_generator = keras.random.SeedGenerator() if rate else None

    def call(self, inputs, training=None):
        if not training or not self.rate:
            return inputs
        return dropout(inputs, self.rate, self.seed_generator.next())

    def compute_output_spec(self, inputs, *args, **kwargs):
        return keras.KerasTensor(inputs.shape, dtype=self.compute_dtype)

    def get_config(self):
        return {**super().get_config(), "rate": self.rate}
