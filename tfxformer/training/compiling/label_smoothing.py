"""Cross-entropy with a part of the probability spread over the whole vocabulary."""

from __future__ import annotations

import keras
from keras import ops


@keras.saving.register_keras_serializable("tfxformer")
class SmoothedCrossEntropy(keras.losses.Loss):
    """Cross-entropy whose target is 1 - label_smoothing on the label, the rest spread evenly over all.

    Szegedy et al., 2015, arXiv:1512.00567; of Transformers Vaswani et al., 2017, arXiv:1706.03762. No row of
    probabilities is made: the sum over the vocabulary is a mean of the logits.

    Args:
        label_smoothing: float of 0 to 1 (exclusive).

    Call: ids int [B, S], logits float [B, S, V] -> [B, S].

    Raises ValueError for a share that is none.
    """

    from_logits = True

    def __init__(
        self, label_smoothing=0.1, reduction="mean_with_sample_weight", name="smoothed_cross_entropy", dtype=None
    ):
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"label_smoothing must be at least 0 and below 1, not {label_smoothing!r}.")
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        self.label_smoothing = label_smoothing

    def call(self, y_true, y_pred):
        right = ops.sparse_categorical_crossentropy(y_true, y_pred, from_logits=True)
        if not self.label_smoothing:
            return right
        others = ops.logsumexp(y_pred, axis=-1) - ops.mean(y_pred, axis=-1)
        return (1 - self.label_smoothing) * right + self.label_smoothing * others

    def get_config(self):
        return {**super().get_config(), "label_smoothing": self.label_smoothing}
