"""Tables in both directions, positions, segments."""

import batteries
import keras
import numpy as np
import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st
from optional_tensorflow import tf

from tfxformer.layers import (
    ConstantSegmentEmbedding,
    EmbeddingConvolution,
    GraphForm,
    PositionEmbedding,
    TokenEmbedding,
)
from tfxformer.layers.attention.positions import nonpad_positions

IDS = np.array([[3, 1, 4, 1], [0, 0, 9, 2]], "int32")


def test_token_embedding_both_ways():
    layer = TokenEmbedding(10, 4)
    layer.build(None)
    tiny.perturb(layer)
    (table,) = tiny.weights(layer).values()
    np.testing.assert_array_equal(np.asarray(layer(IDS)), table[IDS])
    np.testing.assert_array_equal(np.asarray(layer(IDS, graph_form=GraphForm(embedding="gather"))), table[IDS])
    vectors = np.random.default_rng(0).normal(size=(2, 3, 4)).astype("float32")
    np.testing.assert_allclose(np.asarray(layer(vectors, reverse=True)), vectors @ table.T, atol=1e-6)


def test_table_in_both_directions_gets_both_gradients():
    layer = TokenEmbedding(10, 4)
    layer.build(None)
    tiny.perturb(layer)
    (table,) = tiny.weights(layer).values()
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(layer(layer(IDS), reverse=True))
    (gradient,) = tape.gradient(loss, [layer.embeddings.value])
    counts = np.bincount(IDS.ravel(), minlength=10)
    wanted = counts[:, None] * table.sum(0) + table[IDS].sum((0, 1))  # d/dE of sum(E[ids] @ E.T)
    np.testing.assert_allclose(np.asarray(tf.convert_to_tensor(gradient)), wanted, atol=1e-5)


@pytest.mark.parametrize(
    "make",
    [
        lambda policy: TokenEmbedding(10, 4, dtype=policy),
        lambda policy: PositionEmbedding(8, 4, dtype=policy),
        lambda policy: PositionEmbedding(8, 4, "nonpad_cumsum", padding_id=1, dtype=policy),
    ],
)
def test_battery(make):
    batteries.check_layer(make, IDS)


def test_segment_battery():
    batteries.check_layer(lambda policy: ConstantSegmentEmbedding(dtype=policy), np.ones((2, 3, 4), "float32"))


def test_one_segment_is_added_to_every_token():
    layer = ConstantSegmentEmbedding()
    layer.build((None, None, 4))
    tiny.perturb(layer)
    (table,) = tiny.weights(layer).values()
    x = np.random.default_rng(0).normal(size=(2, 3, 4)).astype("float32")
    np.testing.assert_allclose(np.asarray(layer(x)), x + table[0], atol=1e-7)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(st.integers(0, 3), min_size=5, max_size=5), min_size=1, max_size=3), st.integers(0, 3))
def test_positions_count_real_tokens(rows, padding_id):
    positions = np.asarray(nonpad_positions(tf.constant(rows, tf.int32), padding_id))
    for row, actual in zip(rows, positions, strict=True):
        count = padding_id
        for token, position in zip(row, actual, strict=True):
            count += token != padding_id
            assert position == (padding_id if token == padding_id else count)


def test_positions_are_rows_of_the_table():
    layer = PositionEmbedding(8, 4)
    layer.build(None)
    tiny.perturb(layer)
    (table,) = tiny.weights(layer).values()
    np.testing.assert_array_equal(np.asarray(layer(IDS)), table[None, :4])
    assert layer.usable_positions == 8
    assert PositionEmbedding(8, 4, "nonpad_cumsum", padding_id=1).usable_positions == 6


@pytest.mark.parametrize(("mode", "longest"), [("arange", 8), ("nonpad_cumsum", 6)])
def test_longer_than_the_table(mode, longest):
    layer = PositionEmbedding(8, 4, mode, padding_id=1)
    layer(np.full((1, longest), 3, "int32"))
    with pytest.raises(
        ValueError, match=rf"{longest + 1} tokens long, but the model has {longest} positions.*Truncate"
    ):
        layer(np.full((1, longest + 1), 3, "int32"))


@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16"])
@pytest.mark.parametrize(
    ("layer", "inputs", "more"),
    [
        (TokenEmbedding(10, 4), IDS, {}),
        (TokenEmbedding(10, 4, rank=2), IDS, {}),
        (TokenEmbedding(10, 4), np.ones((2, 3, 4), "float32"), {"reverse": True}),
        (TokenEmbedding(10, 4, rank=2), np.ones((2, 3, 4), "float32"), {"reverse": True, "scale": 2.0}),
        (PositionEmbedding(8, 4), IDS, {}),
        (PositionEmbedding(8, 4), IDS, {"positions": np.zeros_like(IDS)}),
        (PositionEmbedding(8, 4, "nonpad_cumsum", padding_id=1), IDS, {}),
        (ConstantSegmentEmbedding(), np.ones((2, 3, 4), "float32"), {}),
    ],
)
def test_what_a_graph_is_told_of_the_outputs_is_what_comes(layer, inputs, more, dtype):
    """The shapes are said without a trace of `call`, which a model's building would pay for."""
    layer = type(layer).from_config({**layer.get_config(), "dtype": dtype})
    outputs = layer(inputs, **more)
    told = {name: keras.KerasTensor(x.shape, x.dtype) if hasattr(x, "shape") else x for name, x in more.items()}
    said = layer(keras.KerasTensor(inputs.shape, inputs.dtype), **told)
    assert (said.shape, said.dtype) == (tuple(outputs.shape), outputs.dtype.name)
    assert layer(keras.KerasTensor((None, *inputs.shape[1:]), inputs.dtype), **told).shape[1:] == said.shape[1:]


def test_a_graph_longer_than_the_table_is_refused():
    with pytest.raises(ValueError, match="9 tokens long, but the model has 8 positions"):
        PositionEmbedding(8, 4)(keras.KerasTensor((None, 9), "int32"))


def test_unknown_mode():
    with pytest.raises(ValueError, match="Unknown position mode 'rotary'; known: arange, nonpad_cumsum"):
        PositionEmbedding(8, 4, "rotary")


@pytest.mark.parametrize("graph_form", [GraphForm(), GraphForm(layer_norm="product")])
def test_a_convolution_reads_the_real_tokens_around_each(graph_form):
    layer = EmbeddingConvolution(3, "relu", norm_epsilon=1e-3)
    layer.build((None, None, 4))
    tiny.perturb(layer)
    generator = np.random.default_rng(0)
    stream, embeddings = (generator.normal(size=(2, 5, 4)).astype("float32") for _ in range(2))
    mask = np.array([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]], "int32")
    kernel, bias = (np.asarray(weight) for weight in layer.convolution.weights)  # [K, D, D]
    padded = np.pad(embeddings * mask[..., None], ((0, 0), (1, 1), (0, 0)))
    near = sum(padded[:, shift : shift + 5] @ kernel[shift] for shift in range(3)) + bias
    total = stream + np.maximum(near, 0.0)
    centred = total - total.mean(-1, keepdims=True)
    gamma, beta = np.asarray(layer.norm.gamma), np.asarray(layer.norm.beta)
    wanted = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-3) * gamma + beta
    np.testing.assert_allclose(np.asarray(layer(stream, embeddings, mask, graph_form=graph_form)), wanted, atol=1e-5)
    first = layer(stream[:, :1], embeddings, mask, first_only=True, graph_form=graph_form)
    np.testing.assert_allclose(np.asarray(first), wanted[:, :1], atol=1e-5)
    assert EmbeddingConvolution.from_config(layer.get_config()).get_config() == layer.get_config()
