"""Fixtures of the tests of export and of what runs its files."""

import keras
import litert_files
import pytest
from export_cases import perturb


@pytest.fixture(scope="session")
def tokenizer():
    return litert_files.task().tokenizer


@pytest.fixture(scope="session")
def classifier():
    return litert_files.task()


@pytest.fixture(scope="session")
def plain_model():
    """A Keras model that knows nothing of us."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((16,), name="features")
    hidden = keras.layers.Dense(256, activation="gelu")(inputs)
    return perturb(keras.Model(inputs, keras.layers.Dense(3)(hidden)))
