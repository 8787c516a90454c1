"""The best of many numbers, exactly and without a sort: the lowest of them is found bit by bit.

Written on numpy's functions by their names: `keras.ops` in a graph, `numpy_ops.NUMPY` where there is no Keras. Numbers
of 64 bits are right where `ops` computes with them, which `keras.ops` does not.
"""

from __future__ import annotations

import numpy as np


def ordered_bits(values, ops):
    """Floats (float32 or float64, no NaN) as unsigned integers in their order; -0.0 is 0.0."""
    integer, sign = _integer(values)
    bits = ops.view(values, integer)
    # By the sign bit: a processor that takes tiny numbers for zero does not say that they are below it.
    bits = ops.where(ops.equal(bits, sign), sign.dtype.type(0), bits)
    return ops.where(bits >= sign, ops.bitwise_not(bits), ops.bitwise_or(bits, sign))


def lowest_kept(values, weights, target, ops):
    """The fewest best of each row that weigh `target` together, by the lowest of them.

    Args:
        values: float32 or float64 [B, V], higher is better, no NaN.
        weights: float32 [B, V], not negative; None where each weighs one and is counted.
        target: scalar; where the sum is below it, all are kept.

    Returns:
        (unsigned integers [B, V] in the order of the values, the lowest of those kept [B, 1]).
    """
    integer, sign = _integer(values)
    keys = ordered_bits(values, ops)

    def narrow(index, lowest):
        trial = ops.bitwise_or(lowest, ops.take(single_bits, index))
        reached = keys >= trial
        if weights is None:
            weight = ops.count_nonzero(reached, axis=-1)[:, None]
        else:
            weight = ops.sum(ops.where(reached, weights, np.float32(0.0)), axis=-1, keepdims=True)
        return ops.where(ops.greater_equal(weight, target), trial, lowest)

    single_bits = sign >> np.arange(8 * sign.itemsize, dtype=integer)
    return keys, ops.fori_loop(0, 8 * sign.itemsize, narrow, ops.zeros_like(keys[:, :1]))


def keep_best(values, weights, target, ops):
    """The fewest best of each row that weigh `target` together, bool [B, V]; those that tie with the last too.

    One sum over the row for each bit; arguments as in `lowest_kept`.
    """
    keys, lowest = lowest_kept(values, weights, target, ops)
    return keys >= lowest


def _integer(values) -> tuple:
    """The name of the unsigned integers as wide as floats, and the one that is their sign bit."""
    width = 64 if "float64" in str(values.dtype) else 32
    return f"uint{width}", np.array(1 << (width - 1), f"uint{width}")[()]
