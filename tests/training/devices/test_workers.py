"""What workers tell each other, with the other worker pretended; real ones are in tests/training/resume."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfxformer import training
from tfxformer.training.devices import workers


@pytest.fixture
def model(monkeypatch):
    """A model in a cluster of two workers, the other of which says what this one says but for `other`."""
    made = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    made.compile("sgd", "mse")
    made.other = {}

    def of_all_replicas(strategy, local):
        said = {**json.loads(np.asarray(local[0]).astype("uint8").tobytes()), **made.other}
        theirs = np.frombuffer(json.dumps(said).encode().ljust(local[0].size), "uint8").astype("int32")
        return np.stack([local[0], theirs])

    monkeypatch.setattr(workers, "is_cluster", lambda strategy: True)
    monkeypatch.setattr(workers, "_tasks", lambda strategy: ["a:1", "b:1"])
    monkeypatch.setattr(workers, "_local", lambda strategy: (0,))
    monkeypatch.setattr(workers, "of_all_replicas", of_all_replicas)
    return made


def test_workers_that_train_the_same_go_on(model):
    workers.check_workers(model, {"epochs": 3})


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"epochs": 4}, "epochs is 3 on worker 0 and 4 on worker 1"),
        ({"keras": "3.0.0"}, f"keras is {keras.__version__} on worker 0 and 3.0.0 on worker 1"),
        ({"weights": "sha256 0"}, "weights is .* on worker 0 and sha256 0 on worker 1"),
        ({"optimizer": None}, "optimizer is .* on worker 0 and None on worker 1"),
    ],
)
def test_workers_that_would_not_train_the_same_are_told_what_differs(model, other, message):
    model.other = other
    with pytest.raises(ValueError, match=f"The workers would not train the same: {message}"):
        workers.check_workers(model, {"epochs": 3})


def test_a_worker_that_is_gone_is_named(monkeypatch):
    strategy = tf.distribute.get_strategy()
    with pytest.raises(tf.errors.UnavailableError), workers.naming_lost_workers(strategy):
        raise tf.errors.UnavailableError(None, None, "Connection refused")
    monkeypatch.setattr(workers, "is_cluster", lambda strategy: True)
    monkeypatch.setattr(workers, "_tasks", lambda strategy: ["a:1", "b:1"])
    for error in (tf.errors.UnavailableError, tf.errors.CancelledError, tf.errors.InternalError):
        with (
            pytest.raises(training.LostWorkerError, match=r"Another of the 2 workers has ended.*Connection refused"),
            workers.naming_lost_workers(strategy),
        ):
            raise error(None, None, "Connection refused\nmore")
    with pytest.raises(KeyError), workers.naming_lost_workers(strategy):
        raise KeyError("a mistake of this worker's own")
