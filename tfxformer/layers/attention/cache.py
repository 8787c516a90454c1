"""The cache of a decoder: a value, passed in and out, never hidden state."""

from __future__ import annotations

from typing import NamedTuple

import keras
import numpy as np
from keras import ops


class Cache(NamedTuple):
    """What a decoder has read already, a nest of tensors, those of attention in LiteRT-LM's layout.

    Attributes:
        self_attention: for each layer of attention (keys [B, G, T, H], values [B, G, H, T]), T slots.
        cross_attention: for each layer the finished keys and values of the encoder's output; () without an encoder.
        source_mask: (padding_mask int32 [B, T'],) of the encoder's output; () without an encoder.
        states: for each layer with another mixer its state (`Mixer`), whose tensors have rows [B, ...]; () without any.
            No slot of a state can be written over: it has read what it has read.
    """

    self_attention: tuple
    cross_attention: tuple = ()
    source_mask: tuple = ()
    states: tuple = ()

    @property
    def length(self) -> int:
        """T, the slots of self-attention."""
        return self.self_attention[0][0].shape[2]


def empty_cache(batch_size: int, length: int, num_layers: int, heads: int, head_size: int, dtype="float32") -> Cache:
    """A cache of zeros.

    Args:
        batch_size: int B.
        length: int T, slots.
        num_layers: int L, those of attention.
        heads: int G, heads of keys and values.
        head_size: int H.
        dtype: of keys and values.
    """
    # Tensors of their own for each layer: a compiled loop may then update each in place.
    return Cache(
        tuple(
            (
                ops.zeros((batch_size, heads, length, head_size), dtype),
                ops.zeros((batch_size, heads, head_size, length), dtype),
            )
            for _ in range(num_layers)
        )
    )


def reordered(cache: Cache, rows) -> Cache:
    """The cache of other rows, such as those of surviving beams: rows int32 [B'], each of the text that stood there.

    What was read of a source stays: all beams of a text read the same.
    """
    return cache._replace(self_attention=_taken(cache.self_attention, rows), states=_taken(cache.states, rows))


def repeated(cache: Cache, copies: int) -> Cache:
    """The cache with every row `copies` times, one after the other."""
    rows = np.repeat(np.arange(cache.self_attention[0][0].shape[0], dtype="int32"), copies)
    return _taken(cache, rows)


def _taken(tensors, rows):
    return keras.tree.map_structure(lambda x: ops.take(x, rows, axis=0), tensors)


def update_cache(cache, key, value, position):
    """Writes new keys and values into a cache at `position`.

    Args:
        cache: (keys [B, G, T, H], values [B, G, H, T]), LiteRT-LM's layout.
        key, value: [B, G, S, H].
        position: int32 scalar; the caller keeps position + S within T (the write is clamped, not refused).

    Returns:
        the new (keys, values).
    """
    keys, values = cache
    keys = ops.slice_update(keys, (0, 0, position, 0), ops.cast(key, keys.dtype))
    value = ops.transpose(value, (0, 1, 3, 2))  # [B, G, S, H] -> [B, G, H, S]
    return keys, ops.slice_update(values, (0, 0, 0, position), ops.cast(value, values.dtype))


def first_slots(cache, bias):
    """The (keys, values) of a cache that a bias [..., T'] is for: all, or the first T'."""
    keys, values = cache
    count = None if bias is None else bias.shape[-1]
    if count in (None, 1, keys.shape[2]):
        return cache
    return keys[:, :, :count], values[..., :count]


def cache_spec(cache) -> tuple:
    """What a layer gives back for a symbolic cache: new tensors of its shapes, or the graph would end at its input."""
    return tuple(keras.KerasTensor(x.shape, dtype=x.dtype) for x in cache)
