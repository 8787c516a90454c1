"""How many steps a fit has, after which its schedule ends."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from tfxformer.training.scheduled_model import count_steps


class Batches(keras.utils.PyDataset):
    def __len__(self):
        return 7

    def __getitem__(self, index):
        return np.zeros((4, 1)), np.zeros(4)


@given(st.integers(2, 300), st.integers(1, 64), st.floats(0.0, 0.5))
def test_steps_of_arrays(rows, batch_size, split):
    steps = count_steps({"token_ids": np.zeros((rows, 1))}, batch_size, split)
    trained = math.floor(rows * (1 - split))  # Keras keeps the last rows for validation
    assert steps == len(range(0, trained, batch_size))


def test_steps_of_a_fit_by_keras_itself():
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    model.fit(np.zeros((50, 1)), np.zeros(50), batch_size=8, validation_split=0.3, verbose=0)
    assert int(model.optimizer.iterations) == count_steps(np.zeros((50, 1)), 8, 0.3)


def test_steps_of_datasets():
    assert count_steps(tf.data.Dataset.range(10).batch(3), None) == 4
    assert count_steps(Batches(), None) == 7


@pytest.mark.parametrize(
    "dataset", [tf.data.Dataset.range(3).repeat(), tf.data.Dataset.range(9).filter(lambda x: x > 3)]
)
def test_a_dataset_without_length_is_told_the_way_out(dataset):
    with pytest.raises(ValueError, match="steps_per_epoch"):
        count_steps(dataset, None)
