"""Blocks inside of a narrower stream; transformers' numbers are in test_families."""

import batteries
import numpy as np
import pytest
import tiny

from tfxformer.layers.blocks.bottleneck import BottleneckBlock
from tfxformer.layers.embeddings import beside_neighbours
from tfxformer.layers.normalization import make_norm

INPUTS = np.random.default_rng(0).normal(size=(2, 6, 20)).astype("float32")
ATTENTION = {"num_heads": 2, "head_size": 4}


def block(dtype=None, norm="affine", **arguments):
    return BottleneckBlock(ATTENTION, {"size": 10}, bottleneck_size=8, norm=norm, dtype=dtype, **arguments)


@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize("norm", ["affine", "layer"])
def test_training_and_the_first_row_alone_give_the_same(norm, own, plain_kernels):
    layer = block(norm=norm, own_queries=own, feed_forwards=3)
    layer(INPUTS)
    tiny.perturb(layer)
    value = layer.self_attention.value.kernel
    assert tuple(value.shape) == ((20, 8) if own else (8, 8))
    assert tuple(layer.feed_forward_1.expand.kernel.shape) == (8, 10)
    wanted = np.asarray(layer(INPUTS))
    np.testing.assert_allclose(np.asarray(layer(INPUTS, training=True)), wanted, atol=1e-5)
    np.testing.assert_allclose(np.asarray(layer(INPUTS, first_only=True)), wanted[:, :1], atol=1e-5)
    mask = np.array([[1, 1, 1, 1, 0, 0]] * 2, bool)
    masked = np.asarray(layer(INPUTS, mask=mask))[:, :4]
    np.testing.assert_allclose(masked, np.asarray(layer(INPUTS[:, :4])), atol=1e-5)


def test_a_block_as_a_layer():
    batteries.check_layer(lambda dtype: block(dtype, feed_forwards=2), INPUTS)


def test_a_model_of_them(tmp_path):
    """Without neighbours: the token behind a text is padding or none, which changes its last one."""
    make = lambda dtype=None: tiny.backbone("mobilebert", dtype=dtype, embedding_neighbours=False)  # noqa: E731
    batteries.check_model(make, tmp_path, half=False)


def test_neighbours_stand_on_either_side():
    x = np.arange(1, 7, dtype="float32").reshape(1, 3, 2)
    wanted = [[[3, 4, 1, 2, 0, 0], [5, 6, 3, 4, 1, 2], [0, 0, 5, 6, 3, 4]]]
    np.testing.assert_array_equal(np.asarray(beside_neighbours(x)), wanted)


def test_an_affine_norm_scales_and_shifts():
    norm = make_norm("affine", 1e-6, None, "norm")
    norm(INPUTS)
    tiny.perturb(norm)
    wanted = INPUTS * np.asarray(norm.gamma) + np.asarray(norm.beta)
    np.testing.assert_allclose(np.asarray(norm(INPUTS)), wanted, atol=1e-6)


def test_what_they_cannot_do():
    with pytest.raises(ValueError, match='norm_placement="post" and no cross-attention'):
        block(norm_placement="pre")
    with pytest.raises(ValueError, match="placement \"post\", not 'pre'"):
        tiny.config("mobilebert", encoder__norm__placement="pre")
    layer = block()
    layer(INPUTS)
    with pytest.raises(ValueError, match="has no cache, and attends to its own inputs alone"):
        layer(INPUTS, attended=INPUTS)
