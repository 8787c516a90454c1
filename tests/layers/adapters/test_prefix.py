"""Attention with learned keys and values in front, against numpy."""

import numpy as np
import pytest
import tiny

from tfxformer.layers.adapters.base import attach, detach
from tfxformer.layers.adapters.prefix import Prefix
from tfxformer.layers.attention.attention import Attention

RANDOM = np.random.default_rng(3)
INPUTS = RANDOM.normal(size=(2, 5, 8)).astype("float32")
HEADS, GROUPS, SIZE, LENGTH = 4, 2, 3, 2


def attention():
    layer = Attention(HEADS, SIZE, GROUPS)
    layer.build((None, None, 8))
    attach(layer, Prefix(LENGTH, GROUPS))
    return tiny.perturb(layer)


def by_numpy(layer, bias):
    def heads(x, count):
        return x.reshape(2, 5, count, SIZE).transpose(0, 2, 1, 3)

    query, key, value = (np.asarray(one(INPUTS)) for one in (layer.query, layer.key, layer.value))
    query = heads(query, HEADS) * SIZE**-0.5
    own = [
        np.broadcast_to(np.asarray(x), (2, GROUPS, LENGTH, SIZE)) for x in (layer.adapter.keys, layer.adapter.values)
    ]
    key, value = (np.concatenate([one, heads(x, GROUPS)], axis=2) for one, x in zip(own, (key, value), strict=True))
    key, value = (np.repeat(x, HEADS // GROUPS, axis=1) for x in (key, value))
    scores = query @ key.transpose(0, 1, 3, 2)
    scores[..., LENGTH:] += bias
    exponents = np.exp(scores - scores.max(axis=-1, keepdims=True))
    context = exponents / exponents.sum(axis=-1, keepdims=True) @ value
    return np.asarray(layer.output_projection(context.transpose(0, 2, 1, 3).reshape(2, 5, HEADS * SIZE)))


@pytest.mark.parametrize("training", [False, True])
def test_every_query_sees_it(training):
    layer = attention()
    bias = np.where(np.tril(np.ones((5, 5))), 0.0, -1e9).astype("float32")[None, None]
    np.testing.assert_allclose(layer(INPUTS, bias=bias, training=training), by_numpy(layer, bias), atol=1e-5)
    np.testing.assert_allclose(layer(INPUTS, training=training), by_numpy(layer, 0.0), atol=1e-5)


def test_a_layer_without_it_is_what_it_was():
    layer = attention()
    prefix = detach(layer)
    assert not [variable for variable in layer.variables if "prefix" in variable.name]
    before = np.asarray(layer(INPUTS))
    attach(layer, prefix)
    assert np.abs(np.asarray(layer(INPUTS)) - before).max() > 0.01
    with pytest.raises(ValueError, match=r"\(8, 6\).*\(8, 12\)"):
        other = Attention(HEADS, SIZE)
        other.build((None, None, 8))
        attach(other, detach(layer))
