"""Attention masks as additive, finite biases."""

from __future__ import annotations

import ml_dtypes
from keras import ops


def padding_bias(padding_mask, mask_value: float, dtype="float32"):
    """Turns a padding mask into a bias on attention scores.

    Args:
        padding_mask: int or bool [B, T], 1 at real tokens, 0 at padding.
        mask_value: float, the (negative, finite) bias of a padded position; the lowest that `dtype` holds safely
            where it is lower.
        dtype: dtype of the result.

    Returns:
        [B, 1, 1, T], 0 at real tokens and `mask_value` at padding.
    """
    # In half precision -1e9 is -inf, and a row without a real token would be NaN.
    mask_value = max(mask_value, float(ml_dtypes.finfo(dtype).min) / 2)
    hidden = 1.0 - ops.cast(padding_mask, "float32")
    bias = ops.expand_dims(ops.expand_dims(hidden, 1), 1) * mask_value  # [B, T] -> [B, 1, 1, T]
    return ops.cast(bias, dtype)
