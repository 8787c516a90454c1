"""The largest of many numbers, counted exactly."""

from __future__ import annotations

import functools
from types import SimpleNamespace

from tfxformer.backend import tensorflow as tf
from tfxformer.ranking import lowest_kept


def _fori_loop(lower, upper, body, state):
    return tf.while_loop(lambda i, _: i < upper, lambda i, state: (i + 1, body(i, state)), (lower, state))[1]


@functools.cache
def _operations() -> SimpleNamespace:
    # Not keras.ops, which makes numbers of 64 bits ones of 32.
    return SimpleNamespace(
        bitwise_not=tf.bitwise.invert,
        bitwise_or=tf.bitwise.bitwise_or,
        count_nonzero=lambda x, axis: tf.math.count_nonzero(x, axis, dtype=tf.int32),
        equal=tf.equal,
        fori_loop=_fori_loop,
        greater_equal=tf.greater_equal,
        take=tf.gather,
        view=tf.bitcast,
        where=tf.where,
        zeros_like=tf.zeros_like,
    )


def keep_largest(values: tf.Tensor, kept: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """The `kept`-th largest of floats [n], and a bool mask [n] of exactly `kept` True; among equals the first are kept.

    Args:
        values: float32 or float64, no NaN.
        kept: int32 scalar, 1 <= kept <= n.
    """
    return _traced()(values, kept)


@functools.cache
def _traced():
    """Traced once for kernels of a size, not for each of them, and kept apart in the graph of a step that calls it."""
    return tf.function(
        _keep_largest, autograph=False, reduce_retracing=True, experimental_attributes={"_noinline": True}
    )


def _keep_largest(values, kept):
    keys, lowest = (part[0] for part in lowest_kept(values[None], None, kept, _operations()))
    above, equal = keys > lowest, keys == lowest
    room = kept - tf.math.count_nonzero(above, dtype=tf.int32)
    first_equal = equal & (tf.cumsum(tf.cast(equal, tf.int32)) <= room)
    return tf.gather(values, tf.argmax(tf.cast(equal, tf.int32))), above | first_equal
