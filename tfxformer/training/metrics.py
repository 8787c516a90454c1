"""Metrics that Keras does not have."""

from __future__ import annotations

import keras
from keras import ops


@keras.saving.register_keras_serializable("tfxformer")
class Perplexity(keras.metrics.Mean):
    """exp of the mean cross-entropy of all tokens seen so far, each with its weight.

    The figure of `keras_hub.metrics.Perplexity`, without its import of all of KerasHub. It is one more pass over the
    logits; where whole batches have one static shape, TensorFlow makes it one operation with Keras' loss.

    Call: ids int [B, S], logits [B, S, V], optional weights [B, S].
    """

    def __init__(self, name="perplexity", dtype=None):
        super().__init__(name, dtype)

    def update_state(self, y_true, y_pred, sample_weight=None):
        # Keras' own loss, with the casts it makes: only equal operations become one.
        losses = keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction=None)(y_true, y_pred)
        return super().update_state(losses, sample_weight)

    def result(self):
        return ops.exp(super().result())

    def get_config(self):
        return {"name": self.name, "dtype": self.dtype}
