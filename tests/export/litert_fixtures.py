"""Fixtures of the tests of export and of what runs its files."""

import keras
import pytest
from export_cases import backbone, perturb, vocabulary

from tfxformer import tasks
from tfxformer.text import Tokenizer


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory):
    path = tmp_path_factory.mktemp("tokenizer") / "vocab.txt"
    path.write_text("\n".join(vocabulary()), encoding="utf-8")
    return Tokenizer.from_vocabulary(path, lowercase=True)


@pytest.fixture(scope="session")
def classifier(tokenizer):
    return perturb(tasks.TextClassifier(backbone(), ["negative", "neutral", "positive"], tokenizer=tokenizer))


@pytest.fixture(scope="session")
def plain_model():
    """A Keras model that knows nothing of us."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((16,), name="features")
    hidden = keras.layers.Dense(256, activation="gelu")(inputs)
    return perturb(keras.Model(inputs, keras.layers.Dense(3)(hidden)))
