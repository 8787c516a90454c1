"""What stands in attention's place, against loops over tokens."""

import batteries
import numpy as np
import pytest
import tiny

from tfxformer.layers import CausalConvolution, ShortConvolution, TransformerBlock
from tfxformer.layers.mixers.convolution import causal_convolution

B, S, C = 3, 9, 4
X = np.random.default_rng(0).normal(size=(B, S, C)).astype("float32")
MASK = np.array([[1] * 9, [0, 0] + [1] * 5 + [0, 1], [1, 1, 1, 2, 2, 2, 2, 0, 0]], "int32")


def by_hand(x, kernel, mask):
    """Token by token: the documents of a row are convolved each alone, without their padding's values."""
    y = np.zeros(x.shape)
    for row, t in np.ndindex(*mask.shape):
        for i in range(len(kernel)):
            at = t - len(kernel) + 1 + i
            if at >= 0 and mask[row, at] == mask[row, t]:
                y[row, t] += kernel[i] * x[row, at]
    return y


@pytest.mark.parametrize("width", [2, 4])
def test_convolution_by_hand(width):
    kernel = np.random.default_rng(1).normal(size=(width, C)).astype("float32")
    found, last = causal_convolution(X, kernel, MASK)
    np.testing.assert_allclose(np.asarray(found)[MASK != 0], by_hand(X, kernel, MASK)[MASK != 0], atol=1e-6)
    np.testing.assert_array_equal(np.asarray(last), (X * (MASK != 0)[..., None])[:, 1 - width :])
    whole, _ = causal_convolution(X, kernel)
    np.testing.assert_allclose(np.asarray(whole), by_hand(X, kernel, np.ones_like(MASK)), atol=1e-6)
    past, parts = np.zeros((B, width - 1, C), "float32"), []
    for rows in (slice(0, 1), slice(1, 3), slice(3, 9)):  # fewer tokens than a kernel reaches, and more
        part, past = causal_convolution(X[:, rows], kernel, None, past)
        parts.append(np.asarray(part))
    np.testing.assert_allclose(np.concatenate(parts, 1), np.asarray(whole), atol=1e-6)


def test_a_prompt_is_seen_by_all_documents():
    kernel, mask = np.ones((2, C), "float32"), np.array([[-1, 1, 2]], "int32")
    found, _ = causal_convolution(X[:1, :3], kernel, mask)
    np.testing.assert_allclose(np.asarray(found)[0], [X[0, 0], X[0, 0] + X[0, 1], X[0, 2]], atol=1e-6)


def test_short_convolution_by_hand():
    layer = ShortConvolution(3)
    layer(X)
    tiny.perturb(layer)
    into = np.asarray(layer.input_projection.kernel)
    kernel, out = np.asarray(layer.convolution.kernel), np.asarray(layer.output_projection.kernel)
    before, after, x = np.split(X @ into, 3, -1)
    wanted = (after * by_hand(before * x, kernel, MASK)) @ out
    np.testing.assert_allclose(np.asarray(layer(X, padding_mask=MASK))[MASK != 0], wanted[MASK != 0], atol=1e-5)


def test_layer():
    batteries.check_layer(lambda dtype: ShortConvolution(3, dtype=dtype), X, padding_mask=MASK)
    assert [x.shape for x in _built(ShortConvolution(4)).empty_state(2)] == [(2, 3, C)]


def _built(layer):
    layer(X)
    return layer


def test_what_makes_no_sense_is_refused():
    with pytest.raises(ValueError, match="at least 2 tokens, one and the one before; got width=1"):
        CausalConvolution(1)
    with pytest.raises(ValueError, match="A block with cross-attention has self-attention, no ShortConvolution"):
        TransformerBlock(ShortConvolution(), {"size": 6}, cross_attention=True)
    with pytest.raises(TypeError, match="attention is a dict of arguments or a Attention or a Mixer, not 3"):
        TransformerBlock(3, {"size": 6})
