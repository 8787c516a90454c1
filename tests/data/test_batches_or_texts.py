"""Telling texts from arrays."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfxformer.data.batches import is_raw

IDS = {"token_ids": np.ones((4, 8), "int32"), "padding_mask": np.ones((4, 8), "int32")}


class Batches(keras.utils.PyDataset):
    def __len__(self):
        return 7

    def __getitem__(self, index):
        return IDS, np.zeros(4)


@pytest.mark.parametrize(
    "examples",
    [
        ["a", "b"],
        ("a", "b"),
        [("a", "b"), ("c", "d")],
        [["Ada", "wrote"], ["it"]],
        np.array(["a", "b"]),
        np.array(["a", "b"], dtype=object),
        tf.data.Dataset.from_tensor_slices(["a", "b"]),
        tf.data.Dataset.from_tensor_slices((["a", "b"], [0, 1])).batch(2),
    ],
)
def test_texts_are_raw(examples):
    assert is_raw(examples)


@pytest.mark.parametrize(
    "examples",
    [
        IDS,
        np.ones((4, 8), "int32"),
        tf.ones((4, 8), tf.int32),
        tf.data.Dataset.from_tensor_slices((IDS, [0, 1, 0, 1])).batch(2),
        Batches(),
    ],
)
def test_ids_are_not_raw(examples):
    assert not is_raw(examples)
