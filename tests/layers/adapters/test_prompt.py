"""A table whose negative ids are a prompt's rows, and batches with a prompt in front."""

import numpy as np
import pytest
import tiny
from optional_tensorflow import tf

from tfxformer.layers import TokenEmbedding
from tfxformer.layers.adapters.base import attach
from tfxformer.layers.adapters.prompt import SEEN_BY_ALL, Prompt, placeholders, with_prompt


def table():
    layer = TokenEmbedding(7, 4)
    layer.build((None, None))
    attach(layer, Prompt(3))
    return tiny.perturb(layer)


def test_negative_ids_are_its_rows():
    layer = table()
    ids = np.array([[-1, -2, -3, 0, 6], [5, -3, 2, 2, -1]])
    rows = np.concatenate([np.asarray(layer.embeddings), np.asarray(layer.adapter.embeddings)[::-1]])
    np.testing.assert_array_equal(layer(ids), rows[ids])  # in numpy, too, -1 is the last row
    vectors = np.asarray(layer(ids))
    np.testing.assert_allclose(layer(vectors, reverse=True), vectors @ np.asarray(layer.embeddings).T, atol=1e-6)


def test_gradients_go_to_their_own_rows():
    layer = table()
    ids = np.array([[-1, -3, 4, 4]])
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(layer(ids))
    own, tokens = tape.gradient(loss, [layer.adapter.embeddings.value, layer.embeddings.value])
    np.testing.assert_array_equal(tf.convert_to_tensor(own)[:, 0], [1, 0, 1])
    np.testing.assert_array_equal(tf.convert_to_tensor(tokens)[:, 0], [0, 0, 0, 0, 2, 0, 0])


def test_begins_at_the_embeddings_of_tokens():
    layer = table()
    layer.adapter.begin(layer)
    rows = {tuple(row) for row in np.asarray(layer.embeddings)}
    assert {tuple(row) for row in np.asarray(layer.adapter.embeddings)} <= rows


@pytest.mark.parametrize("mask", [1, SEEN_BY_ALL])
def test_batches(mask):
    assert placeholders(3).tolist() == [-1, -2, -3]
    inputs = {name: np.full((2, 2), 5, "int32") for name in ("token_ids", "padding_mask", "segment_ids")}
    longer = {name: np.asarray(x).tolist() for name, x in with_prompt(inputs, 2, mask).items()}
    assert longer == {
        "token_ids": [[-1, -2, 5, 5]] * 2, "padding_mask": [[mask, mask, 5, 5]] * 2, "segment_ids": [[0, 0, 5, 5]] * 2
    }  # fmt: skip
