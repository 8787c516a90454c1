"""Attention masks as additive, finite biases."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import NamedTuple

import keras
import ml_dtypes
import numpy as np
from keras import ops

from tfxformer.layers.quantization.graph_form import DEFAULT, GraphForm, writing_in_force


def _lowest(mask_value: float, dtype) -> float:
    # In half precision -1e9 is -inf, and a row without a real token would be NaN.
    return max(mask_value, float(ml_dtypes.finfo(dtype).min) / 2)


@keras.saving.register_keras_serializable("tfxformer")
class MaskBias(keras.Operation):
    """Turns what is hidden (1, else 0) into a bias on attention scores.

    A `mask_value` that is the default gives way to that of the graph_form in force (`graph_form.written`).

    Args:
        mask_value: float, the bias of what is hidden.
        dtype: dtype of the result.
    """

    def __init__(self, mask_value: float, dtype: str = "float32", name=None):
        super().__init__(name=name)
        self.mask_value, self.bias_dtype = mask_value, dtype

    def call(self, hidden):
        written = writing_in_force() if self.mask_value == DEFAULT.mask_value else None
        value = self.mask_value if written is None else written.mask_value
        return ops.cast(hidden * _lowest(value, self.bias_dtype), self.bias_dtype)

    def compute_output_spec(self, hidden):
        return keras.KerasTensor(hidden.shape, dtype=self.bias_dtype)

    def get_config(self):
        return {"mask_value": self.mask_value, "dtype": self.bias_dtype, "name": self.name}


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
    hidden = 1.0 - ops.cast(padding_mask, "float32")
    return MaskBias(mask_value, dtype)(ops.expand_dims(ops.expand_dims(hidden, 1), 1))  # [B, T] -> [B, 1, 1, T]


def hidden_bias(visible, mask_value: float, dtype="float32"):
    """What a query may not see as a bias on attention scores: bool [B, S, T] -> [B, 1, S, T]."""
    hidden = 1.0 - ops.cast(visible, "float32")
    return MaskBias(mask_value, dtype)(ops.expand_dims(hidden, 1))


def own_bias(inputs, mask, causal: bool, graph_form: GraphForm, dtype="float32"):
    """The bias of attention that was given none: of a Keras mask, and of what is later; None where all see all.

    Args:
        inputs: [B, T, D], what is attended to.
        mask: bool [B, T], True at real tokens, or None.
        causal: bool, whether tokens see themselves and earlier ones only.
        graph_form, dtype: how it is written, and as what.

    Returns:
        [B, 1, 1, T], causal [B, 1, T, T], or None.
    """
    if not causal:
        return None if mask is None else padding_bias(mask, graph_form.mask_value, dtype)
    real = ops.ones_like(inputs[..., 0], "int32") if mask is None else ops.cast(mask, "int32")
    return hidden_bias(causal_visibility(real), graph_form.mask_value, dtype)


def keras_mask(x, given=None):
    """The mask that Keras layers have put on a tensor (`Embedding(mask_zero=True)`): bool [B, T]; or the given one."""
    return getattr(x, "_keras_mask", None) if given is None else given


def row_slots(padding_mask):
    """0, 1, 2, ... along the rows of a mask [B, S]: int32 [S]; a sum, since a symbolic length is no number."""
    slots = ops.ones_like(ops.sum(padding_mask, axis=0))  # not those of row 0: a replica's batch may have no row
    return ops.cumsum(slots) - 1


def document_visibility(padding_mask):
    """Which tokens each token sees in attention in both directions: all those of its document.

    Args:
        padding_mask: int [B, S], 0 at padding and another number at real tokens. Where several documents are packed
            into one row, each has its own number (1, 2, 3, ...) and sees itself, and tokens of the number -1 (a
            prompt's, see `layers.prompt`), which all see.

    Returns:
        bool [B, S, S].
    """
    seen, seeing = ops.expand_dims(padding_mask, 1), ops.expand_dims(padding_mask, 2)
    return ops.logical_or(ops.equal(seen, seeing), ops.equal(seen, -1))  # [B, S, S]


def causal_visibility(padding_mask):
    """Which tokens each one sees in a whole sequence: itself and the earlier ones of its document.

    See `document_visibility`.
    """
    slots = row_slots(padding_mask)
    earlier = ops.expand_dims(slots, 0) <= ops.expand_dims(slots, 1)  # [S, S]
    return ops.logical_and(document_visibility(padding_mask), ops.expand_dims(earlier, 0))


def cached_visibility(cache_positions, cache_length: int, cache_mask=None):
    """Which slots of a cache each new token sees: its own and the earlier ones.

    Args:
        cache_positions: int32 [S], the slots of the new tokens.
        cache_length: int T.
        cache_mask: int [B, T], 0 at slots that hold padding; None where no slot does.

    Returns:
        bool [1, S, T] or [B, S, T].
    """
    slots = np.arange(cache_length, dtype="int32")
    visible = ops.less_equal(slots[None], ops.expand_dims(cache_positions, 1))  # [S, T]
    visible = ops.expand_dims(visible, 0)
    if cache_mask is None:
        return visible
    return ops.logical_and(visible, ops.expand_dims(ops.not_equal(cache_mask, 0), 1))


def windowed(visible, query_positions, key_positions, window: int, causal: bool = True):
    """What remains visible [B, S, T] within a window, of positions int32 [S] and [T].

    The `window` last slots, its own among them; not causal, those at most `window` away, as transformers counts both.
    """
    distance = ops.expand_dims(query_positions, 1) - ops.expand_dims(key_positions, 0)  # [S, T]
    near = distance < window if causal else ops.abs(distance) <= window
    return ops.logical_and(visible, ops.expand_dims(near, 0))


def ring_visibility(cache_positions, slots: int, window: int, read: int):
    """Which slots of a ring (`cache.Ring`) each new token sees: those of the last `window` tokens, its own among them.

    Args:
        cache_positions: int32 [S], the positions of the new tokens, one after another.
        slots: int R.
        window: int.
        read: int, how many of the first slots are read.

    Returns:
        bool [1, S, min(R, read)].
    """
    last = cache_positions[-1]
    held = last - ops.mod(last - np.arange(min(slots, read), dtype="int32"), slots)  # below 0 where a slot is empty
    distance = ops.expand_dims(cache_positions, 1) - ops.expand_dims(held, 0)
    seen = ops.logical_and(distance >= 0, distance < window)
    return ops.expand_dims(ops.logical_and(seen, ops.expand_dims(held >= 0, 0)), 0)


def counted_positions(mask):
    """The real tokens before the last one up to each slot: int [B, T], 0 at padding -> int32 [B, T], at least 0."""
    counts = ops.cumsum(ops.cast(ops.not_equal(mask, 0), "int32"), axis=1)
    return ops.maximum(counts - 1, 0)  # a table has a row for padding on the left too


@keras.saving.register_keras_serializable("tfxformer")
@dataclass(frozen=True)
class MaskPattern:
    """What a bias on attention scores says of a padding mask, where it says nothing else.

    For kernels that compute it of the mask, and take no bias.

    Attributes:
        causal: bool, whether tokens see themselves and earlier ones only.
        window: int or None, see `windowed`.
        packed: bool, whether tokens see those of their own number only (`document_visibility`); else all that is
            not 0. `causal` tokens are.
    """

    causal: bool = False
    window: int | None = None
    packed: bool = False

    def visible(self, padding_mask, queries: int, keys: int):
        """What is seen: int [B, T] or None (all is real) -> bool [B or 1, S or 1, T], of S `queries` and T `keys`."""
        if padding_mask is None:
            padding_mask = ops.ones((1, keys), "int32")
        if self.causal:
            visible = causal_visibility(padding_mask)
        elif self.packed:
            visible = document_visibility(padding_mask)
        else:
            visible = ops.expand_dims(ops.not_equal(padding_mask, 0), 1)
        if self.window is None:
            return visible
        return windowed(visible, ops.arange(queries), ops.arange(keys), self.window, self.causal)

    def get_config(self) -> dict:
        """The fields, for Keras: the file of a model that continues a backbone's graph holds them."""
        return asdict(self)

    @classmethod
    def from_config(cls, config):
        return cls(**config)


class Seen(NamedTuple):
    """What a bias says: `pattern` of a padding mask int [B, T], or of tokens that are all real (None)."""

    padding_mask: object
    pattern: MaskPattern
