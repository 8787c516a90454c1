"""The cache of a decoder: a value, passed in and out, never hidden state."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import keras
import numpy as np
from keras import ops


class Cache(NamedTuple):
    """What a decoder has read already, a nest of tensors, those of attention in LiteRT-LM's layout.

    Attributes:
        self_attention: for each layer of attention (keys [B, G, T, H], values [B, G, H, T]), T slots; or a `Ring` of
            fewer slots.
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
        """T, the slots of self-attention; where all layers have rings, those of the longest."""
        return max(entry[0].shape[2] for entry in self.self_attention)


class Ring(NamedTuple):
    """The cache of a layer that sees a window only: R slots, written again and again.

    The token at position p stands in slot p mod R. A step of S tokens needs R >= window + S - 1: it writes over what
    none of its tokens sees any more, and so does the padding behind them.
    """

    keys: object  # [B, G, R, H]
    values: object  # [B, G, H, R]


def empty_cache(
    batch_size: int,
    length: int,
    num_layers: int,
    heads: int,
    head_size: int,
    dtype="float32",
    rings: Mapping[int, int] | None = None,
) -> Cache:
    """A cache of zeros.

    Args:
        batch_size: int B.
        length: int T, slots.
        num_layers: int L, those of attention.
        heads: int G, heads of keys and values.
        head_size: int H.
        dtype: of keys and values.
        rings: R, slots, of the layers that keep a `Ring`, by their index among those of attention.
    """
    rings = rings or {}

    def entry(layer):
        slots = rings.get(layer, length)
        keys = ops.zeros((batch_size, heads, slots, head_size), dtype)
        values = ops.zeros((batch_size, heads, head_size, slots), dtype)
        return Ring(keys, values) if layer in rings else (keys, values)

    # Tensors of their own for each layer: a compiled loop may then update each in place.
    return Cache(tuple(entry(layer) for layer in range(num_layers)))


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
        cache: (keys [B, G, T, H], values [B, G, H, T]), LiteRT-LM's layout, or a `Ring`.
        key, value: [B, G, S, H].
        position: int32 scalar; the caller keeps position + S within T (the write is clamped, not refused).

    Returns:
        the new (keys, values), or Ring.
    """
    if isinstance(cache, Ring):
        return _turned(cache, key, value, position)
    return _written(cache, key, value, position)


def _turned(ring: Ring, key, value, position) -> Ring:
    """A ring with new keys and values [B, G, S, H] at `position` mod R."""
    slots, count = ring.keys.shape[2], key.shape[2]
    if count == 1:
        return Ring(*_written(ring, key, value, ops.mod(position, slots)))
    # Which of the new ones a slot gets; a slice cannot go on at the beginning.
    index = ops.mod(np.arange(slots, dtype="int32") - position, slots)
    new, index = index < count, ops.minimum(index, count - 1)

    def merged(old, tokens, axis):
        shape = [1, 1, 1, 1]
        shape[axis] = slots
        return ops.where(ops.reshape(new, shape), ops.take(ops.cast(tokens, old.dtype), index, axis=axis), old)

    return Ring(merged(ring.keys, key, 2), merged(ring.values, ops.transpose(value, (0, 1, 3, 2)), 3))


def _written(cache, key, value, position):
    keys, values = cache
    keys = ops.slice_update(keys, (0, 0, position, 0), ops.cast(key, keys.dtype))
    value = ops.transpose(value, (0, 1, 3, 2))  # [B, G, S, H] -> [B, G, H, S]
    return keys, ops.slice_update(values, (0, 0, 0, position), ops.cast(value, values.dtype))


def first_slots(cache, bias):
    """The (keys, values) of a cache or a ring that a bias [..., T'] is for: all, or the first T'."""
    keys, values = cache
    count = None if bias is None else bias.shape[-1]
    if count in (None, 1, keys.shape[2]):
        return cache
    return keys[:, :, :count], values[..., :count]


def cache_spec(cache) -> tuple:
    """What a layer gives back for a symbolic cache: new tensors of its shapes, or the graph would end at its input."""
    return keras.tree.map_structure(lambda x: keras.KerasTensor(x.shape, dtype=x.dtype), cache)
