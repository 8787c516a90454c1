"""Random bits without state: a hash of (seed, position).

Whoever holds the seed makes the same bits again, in eager, graph or XLA, on any device, so nothing is kept
for a backward pass or for recomputation. The hash is integer arithmetic that a compiler fuses into what reads
it; a mask from a Philox generator costs ten times the softmax it is for, on a CPU.
"""

from __future__ import annotations

import keras
import numpy as np
from keras import ops

from tfxformer.layers.kernels import clusters

_GOLDEN = 0x9E3779B9  # 2**32 over the golden ratio: spreads consecutive counters over all bits


def word(value):
    """32-bit words (torch has no arithmetic on uint32: there, int64 below 2**32)."""
    if keras.backend.backend() == "torch":
        return ops.bitwise_and(ops.cast(value, "int64"), 0xFFFFFFFF)
    return ops.convert_to_tensor(np.uint32(value)) if isinstance(value, int) else ops.cast(value, "uint32")


def _mix(x, shift):
    return ops.bitwise_xor(x, ops.right_shift(x, word(shift)))


def _hash(x, key=0):
    """Hashes 32-bit words by three rounds of multiply and shift; the key enters after the first.

    Source: triple32 of C. Wellons, "Prospecting for Hash Functions" (2018).
    """
    x = _mix(word(_mix(x, 17) * word(0xED5AD4BB)), 11)
    x = word(word(x + word(key)) * word(0xAC4C1B51))
    return _mix(word(_mix(x, 15) * word(0x31848BAB)), 14)


def _seed_key(seed):
    """Two well-mixed words from a seed, an integer tensor [2]."""
    first = _hash(word(seed[0]))
    second = _hash(word(word(seed[1]) * word(_GOLDEN)), first)
    return ops.bitwise_xor(first, _hash(second)), second


def random_bits(shape, seed):
    """A random 32-bit word for each position of `shape`, a tuple of ints or scalar tensors."""
    return bits_at(_positions(shape), seed)


def _positions(shape):
    """The number of each element in row-major order, modulo 2**32; words of `shape`.

    A sum over the axes: one range over all elements may be folded into a constant as large as the tensor, which then
    lies in the program.
    """
    position, stride = word(0), 1
    for axis, size in reversed(tuple(enumerate(shape))):
        index = word(ops.arange(size, dtype="int32"))
        along_axis = ops.reshape(index, (-1,) + (1,) * (len(shape) - axis - 1))
        position = position + along_axis * (word(stride % 2**32) if isinstance(stride, int) else stride)
        # A size that is known when the program runs only is a tensor; so is every stride before it.
        stride = stride * size if isinstance(stride, int) and isinstance(size, int) else word(stride) * word(size)
    return word(position)


def bits_at(position, seed):
    """The random words at given positions, 32-bit words."""
    # Two thirds of a mask's operators, the same at each of them: as a function of its own they are traced once.
    key = clusters.clustered(_seed_key, compiled=False) if clusters.use_clusters() else _seed_key
    first, second = key(seed)
    # Half of the key inside the hash: with a key on its input alone, two seeds would share one mask, shifted.
    return _hash(ops.bitwise_xor(position, first), second)


def keep_scale(shape, rate, seed):
    """Dropout's multiplier, float32 of `shape`: 0 with probability `rate`, else 1 / P(kept)."""
    threshold = min(round(rate * 2**32), 2**32 - 1)
    kept = ops.greater_equal(random_bits(shape, seed), word(threshold))
    # The scale is that of the whole threshold, not of `rate`: exactly unbiased.
    return ops.where(kept, np.float32(1.0 / (1.0 - threshold / 2**32)), np.float32(0.0))
