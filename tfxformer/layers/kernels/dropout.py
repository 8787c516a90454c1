"""Dropout from an explicit seed: one seed, one mask, in eager, graph, XLA, any replica and recomputation."""

from __future__ import annotations

import functools

import keras
import numpy as np
from keras import ops

from tfxformer.arguments.keywords import KnownKeywords
from tfxformer.layers.kernels import clusters, random_bits
from tfxformer.layers.kernels import formulas as kernels


def _check_rate(rate):
    if not 0.0 <= rate < 1.0:
        raise ValueError(f"A dropout rate must be at least 0 and below 1, got {rate}.")


def dropout(x, rate, seed):
    """Sets each element to zero with probability `rate`, and scales the rest so that the mean stays.

    Args:
        x: float tensor of any shape.
        rate: float in [0, 1), known when the graph is built.
        seed: integer tensor [2], as `keras.random.SeedGenerator.next()` draws it.

    Returns:
        A tensor like `x`; its gradient goes through the same mask.
    """
    _check_rate(rate)
    return kernels.dropout(x, rate, seed) if rate else x


def drop_path(x, rate, seed):
    """Stochastic depth: sets whole samples (first axis) to zero, as `dropout` does elements.

    Source: Huang et al., 2016 (arXiv:1603.09382). Takes and returns [B, ...]; ValueError for a rate outside [0, 1).
    """
    _check_rate(rate)
    if not rate:
        return x
    kept = random_bits.keep_scale((ops.shape(x)[0],) + (1,) * (len(x.shape) - 1), rate, seed)
    return x * ops.cast(kept, x.dtype)


def split_seed(seed, index):
    """An independent seed for each small integer, from one drawn seed.

    Args:
        seed: integer tensor [2].
        index: int, from 0 to 2**30 - 1.

    Returns:
        Integer tensor [2] of the dtype of `seed`, values from 0 to 2**31 - 1.
    """
    if not 0 <= index < 2**30:
        raise ValueError(f"index must be from 0 to 2**30 - 1, got {index}.")
    return _split(index, 1, seed)[0]


def split_seeds(seed, count):
    """The first `count` of `split_seed`, a list: drawn together they cost one kernel, not a hundred operators each."""
    split = clusters.clustered(_split, 0, count) if clusters.use_clusters() else functools.partial(_split, 0, count)
    return ops.unstack(split(seed), count)


def _split(first, count, seed):
    # Two positions of the upper half each, which no tensor that dropout sees is large enough to reach.
    positions = np.arange(2 * first, 2 * (first + count)).reshape(count, 2) + 2**31
    bits = random_bits.bits_at(random_bits.word(positions), seed)
    return ops.cast(ops.right_shift(bits, random_bits.word(1)), seed.dtype)  # 31 bits fit any seed's dtype


@keras.saving.register_keras_serializable("tfxformer")
class Dropout(KnownKeywords, keras.layers.Layer):
    """`dropout` as a layer, with its own seed generator.

    Args:
        rate: float in [0, 1).
        seed: int or None, the start of its generator.

    Call: a float tensor of any shape, unchanged unless training.
    """

    def __init__(self, rate, seed=None, **kwargs):
        super().__init__(**kwargs)
        _check_rate(rate)
        self.rate = rate
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)
        self.supports_masking = True
        self.built = True

    def call(self, inputs, training=None):
        return dropout(inputs, self.rate, self.seed_generator.next()) if training and self.rate else inputs

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {**super().get_config(), "rate": self.rate, "seed": self.seed}
