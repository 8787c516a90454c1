"""Telling texts from arrays, and counting steps as Keras counts them."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from tfxformer.data.examples import is_raw, steps_per_epoch

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


@given(st.integers(2, 300), st.integers(1, 64), st.floats(0.0, 0.5))
def test_steps_of_arrays(rows, batch_size, split):
    steps = steps_per_epoch({"token_ids": np.zeros((rows, 1))}, batch_size, split)
    trained = math.floor(rows * (1 - split))  # Keras keeps the last rows for validation
    assert steps == len(range(0, trained, batch_size))


def test_steps_of_a_fit_by_keras_itself():
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    model.fit(np.zeros((50, 1)), np.zeros(50), batch_size=8, validation_split=0.3, verbose=0)
    assert int(model.optimizer.iterations) == steps_per_epoch(np.zeros((50, 1)), 8, 0.3)


def test_steps_of_datasets():
    assert steps_per_epoch(tf.data.Dataset.range(10).batch(3), None) == 4
    assert steps_per_epoch(Batches(), None) == 7


@pytest.mark.parametrize(
    "dataset", [tf.data.Dataset.range(3).repeat(), tf.data.Dataset.range(9).filter(lambda x: x > 3)]
)
def test_a_dataset_without_length_is_told_the_way_out(dataset):
    with pytest.raises(ValueError, match="steps_per_epoch"):
        steps_per_epoch(dataset, None)
