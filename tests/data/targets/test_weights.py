"""Weights of classes, examples, words and tokens, as arrays."""

import numpy as np
import pytest
import tensorflow as tf

from tfxformer.data.targets import weights

WORD_IDS = np.asarray([[-1, 0, 0, 1, -1, -1], [-1, 0, 1, 2, 2, -1]])


def test_the_table_of_classes():
    table = weights.class_weight_table({"b": 2, 0: 0.5}, ["a", "b", "c"])
    assert table.dtype == "float32" and table.tolist() == [0.5, 2.0, 1.0]
    for given in ({"b": -1.0}, {"b": "2"}, {"b": [1.0]}):
        with pytest.raises(ValueError, match="finite number"):
            weights.class_weight_table(given, ["a", "b"])


def test_weights_by_class():
    table = np.asarray([0.5, 2.0, 1.0], "float32")
    one_hot = np.eye(3)[[1, 0, 2]]
    for labels in ([1, 0, 2], [[1], [0], [2]], one_hot, np.asarray([1.0, 0.0, 2.0])):
        assert weights.class_weights(table, 1, labels).tolist() == [2.0, 0.5, 1.0]
        assert weights.class_weights(table, 1, labels, [3, 1, 0]).tolist() == [6.0, 0.5, 0.0]
    tokens = [[1, -100], [0, 2]]
    assert weights.class_weights(table, 2, tokens).tolist() == [[2.0, 1.0], [0.5, 1.0]]
    assert weights.class_weights(table, 2, tokens, [1.0, 4.0]).tolist() == [[2.0, 1.0], [2.0, 4.0]]
    assert weights.class_weights(table, 2, tokens, [[1, 0], [0, 5]]).tolist() == [[2.0, 0.0], [0.0, 5.0]]


def test_values_of_words_stand_on_first_pieces():
    found = weights.on_first_pieces(WORD_IDS, [np.asarray([5.0, 6.0]), np.asarray([1.0, 2.0, 3.0])])
    assert found.tolist() == [[0, 5, 0, 6, 0, 0], [0, 1, 2, 3, 0, 0]]
    rows = [np.eye(3)[[2, 0]], np.eye(3)[[1, 1, 2]]]
    found = weights.on_first_pieces(WORD_IDS, rows)
    assert found.shape == (2, 6, 3) and found[0, 1].tolist() == [0, 0, 1] and not found[0, 2].any()


def test_padded_tokens_weigh_nothing():
    mask, labels = np.asarray([[1, 1, 0], [1, 1, 1]]), np.zeros((2, 3), "int32")
    assert weights.token_weights(labels, mask).tolist() == [[1, 1, 0], [1, 1, 1]]
    assert weights.token_weights(labels, np.ones_like(mask)) is None
    assert weights.token_weights(labels[:, :2], mask) is None  # labels of other places
    assert weights.token_weights(labels, mask, [2.0, 3.0]).tolist() == [[2, 2, 0], [3, 3, 3]]
    given = [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]
    assert weights.token_weights(labels, mask, given).tolist() == given


def test_padded_tokens_of_a_dataset_weigh_nothing():
    inputs = {"token_ids": np.ones((2, 3), "int32"), "padding_mask": np.asarray([[1, 1, 0], [1, 1, 1]])}
    labels = np.zeros((2, 3), "int32")
    dataset = tf.data.Dataset.from_tensors((inputs, labels))
    found, _, _ = weights.weigh_tokens(dataset, None, None)
    (_, _, weight), *_ = found.as_numpy_iterator()
    assert weight.tolist() == [[1, 1, 0], [1, 1, 1]]
    weighed = tf.data.Dataset.from_tensors((inputs, labels, labels))
    assert weights.weigh_tokens(weighed, None, None)[0] is weighed
