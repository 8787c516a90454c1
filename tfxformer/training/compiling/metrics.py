"""Metrics that Keras does not have."""

from __future__ import annotations

import keras
from keras import ops

from tfxformer.training.compiling.losses_and_metrics import LogitsLoss
from tfxformer.training.compiling.outputs import IGNORED, OF_TOKENS


@keras.saving.register_keras_serializable("tfxformer")
class Perplexity(keras.metrics.Mean):
    """exp of the mean cross-entropy of all tokens seen so far, each with its weight.

    The figure of `keras_hub.metrics.Perplexity`, without its import of all of KerasHub. It is one more pass over the
    logits; where whole batches have one static shape, TensorFlow makes it one operation with Keras' loss.

    Call: ids int [B, S] (-100 for tokens that do not count), logits [B, S, V], optional weights [B, S].
    """

    def __init__(self, name="perplexity", dtype=None):
        super().__init__(name, dtype)

    def update_state(self, y_true, y_pred, sample_weight=None):
        # The loss that tasks compile, with the casts that Keras makes: only equal operations become one.
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction=None)
        losses = LogitsLoss(loss, OF_TOKENS, reduction="none")(y_true, y_pred)
        counted = ops.cast(ops.not_equal(ops.convert_to_tensor(y_true), IGNORED), losses.dtype)
        weights = counted if sample_weight is None else counted * ops.cast(sample_weight, losses.dtype)
        return super().update_state(losses, weights)

    def result(self):
        return ops.exp(super().result())

    def get_config(self):
        return {"name": self.name, "dtype": self.dtype}
