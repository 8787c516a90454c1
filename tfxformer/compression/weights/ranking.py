"""The largest of many numbers, counted exactly."""

from __future__ import annotations

import tensorflow as tf


def keep_largest(values: tf.Tensor, kept: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """The `kept`-th largest of floats [n], and a bool mask [n] of exactly `kept` True.

    Among equals the first are kept. The bits of floats, read as integers, are ordered as the floats are, those of
    negative ones once all but the sign are turned: the threshold is the largest integer that at least `kept` of them
    reach, found bit by bit.

    Args:
        values: float32 or float64, no NaN.
        kept: int32 scalar, 1 <= kept <= n.
    """
    integer = tf.int64 if values.dtype == tf.float64 else tf.int32
    bits = tf.bitcast(values, integer)
    bits = _turned(tf.where(tf.equal(bits, integer.min), tf.zeros([], integer), bits))  # -0.0 is 0.0

    def try_bit(position, answer):
        candidate = answer | tf.bitwise.left_shift(tf.ones([], integer), position)
        reached = tf.math.count_nonzero(bits >= candidate, dtype=tf.int32) >= kept
        return position - 1, tf.where(reached, candidate, answer)

    negative = tf.math.count_nonzero(bits >= 0, dtype=tf.int32) < kept
    sign = tf.where(negative, tf.constant(integer.min, integer), tf.zeros([], integer))
    start = (tf.constant(integer.size * 8 - 2, integer), sign)
    threshold = tf.while_loop(lambda position, _: position >= 0, try_bit, start)[1]
    above, equal = bits > threshold, bits == threshold
    room = kept - tf.math.count_nonzero(above, dtype=tf.int32)
    first_equal = equal & (tf.cumsum(tf.cast(equal, tf.int32)) <= room)
    return tf.bitcast(_turned(threshold), values.dtype), above | first_equal


def _turned(bits: tf.Tensor) -> tf.Tensor:
    """The bits of negative floats so that integers are ordered as floats; its own inverse."""
    return tf.where(bits < 0, tf.bitwise.bitwise_xor(bits, tf.constant(bits.dtype.max, bits.dtype)), bits)
