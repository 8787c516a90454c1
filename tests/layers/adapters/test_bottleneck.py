"""Bottleneck adapters behind a layer and inside blocks."""

import numpy as np
import pytest
import tiny
from keras import ops

from tfxformer.layers import Dense, TransformerBlock
from tfxformer.layers.adapters.base import attach
from tfxformer.layers.adapters.bottleneck import Bottleneck

INPUTS = np.random.default_rng(3).normal(size=(2, 5, 6)).astype("float32")


def test_is_two_layers_and_a_residual_sum():
    layer = Dense(4)
    layer.build((None, None, 6))
    before = np.asarray(layer(INPUTS))
    attach(layer, Bottleneck(3, "relu"))
    np.testing.assert_array_equal(layer(INPUTS), before)  # a new one changes nothing
    tiny.perturb(layer)
    own = layer.adapter
    down, up = (np.asarray(x) for x in (own.down_kernel, own.up_kernel))
    y = INPUTS @ np.asarray(layer.base_kernel) + np.asarray(layer.base_bias)
    wanted = y + np.maximum(y @ down + np.asarray(own.down_bias), 0) @ up + np.asarray(own.up_bias)
    for training in (False, True):
        np.testing.assert_allclose(layer(INPUTS, training=training), wanted, atol=1e-5)


@pytest.mark.parametrize(
    "arguments", [{}, {"norm_placement": "pre"}, {"norm_placement": "parallel"}, {"norm_placement": "sandwich"}]
)
def test_training_blocks_compute_what_inference_does(arguments):
    """The fast kernels of training take bias, dropout and norm together, and must leave them to the adapter."""
    block = TransformerBlock({"num_heads": 2, "head_size": 3}, {"size": 8}, **arguments)
    block.build((None, None, 6))
    before = np.asarray(block(INPUTS))
    for layer in (block.self_attention.output_projection, block.feed_forward.output_projection):
        attach(layer, Bottleneck(3))
        tiny.perturb(layer.adapter)
    changed = np.asarray(block(INPUTS))
    assert np.abs(changed - before).max() > 0.01
    np.testing.assert_allclose(block(INPUTS, training=True), changed, atol=1e-5)


def test_half_precision():
    layer, full = Dense(4, dtype="mixed_bfloat16"), Dense(4)
    for one in (layer, full):
        one.build((None, None, 6))
        attach(one, Bottleneck(3, dtype=one.dtype_policy))
        tiny.perturb(one)
    for training in (False, True):
        result = layer(ops.cast(INPUTS, "bfloat16"), training=training)
        assert result.dtype == "bfloat16"
        np.testing.assert_allclose(ops.cast(result, "float32"), full(INPUTS), atol=5e-2)
