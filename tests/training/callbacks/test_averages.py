"""Moving averages: kept by every optimizer, used for evaluation and prediction, and nothing rounded on the way."""

import keras
import numpy as np
import pytest

from tfxformer.training import SwapEMAWeights, optimizer

pytestmark = pytest.mark.usefixtures("eager")
NAMES = ("adamw", "lamb", "lion", "adafactor", "sgd")
MOMENTUM = 0.8


def fitted(name="adamw", epochs=2, policy=None, callbacks=(), **options):
    keras.utils.set_random_seed(0)
    keras.config.set_dtype_policy(policy or "float32")
    inputs = keras.Input((6,))
    x = keras.layers.Dense(8, activation="tanh")(inputs)
    model = keras.Model(inputs, keras.layers.Dense(1, dtype="float32")(x))
    model.compile(optimizer(name, 0.05, use_ema=True, ema_momentum=MOMENTUM, **options), "mse")
    x = np.random.default_rng(0).standard_normal((64, 6)).astype("float32")
    y = x.sum(1, keepdims=True)
    model.fit(x, y, batch_size=16, epochs=epochs, verbose=0, callbacks=list(callbacks))
    return model, x, y


class Record(keras.callbacks.Callback):
    """The weights after each update."""

    def __init__(self):
        super().__init__()
        self.weights = []

    def on_train_batch_end(self, batch, logs=None):
        self.weights.append([variable.numpy() for variable in self.model.trainable_variables])


@pytest.mark.parametrize(("name", "policy"), [*((name, None) for name in NAMES), ("adamw", "mixed_float16")])
def test_average_is_the_formula_and_the_end_of_fit(name, policy):
    record = Record()
    model, *_ = fitted(name, policy=policy, callbacks=[record])
    expected = [value.astype("float64") for value in record.weights[0]]
    for weights in record.weights[1:]:
        expected = [MOMENTUM * a + (1 - MOMENTUM) * w for a, w in zip(expected, weights, strict=True)]
    for variable, average in zip(model.trainable_variables, expected, strict=True):
        np.testing.assert_allclose(variable.numpy(), average, rtol=1e-5, atol=1e-6)


def apart():
    """A model whose weights are far from their averages, and both."""
    model, x, y = fitted()
    random = np.random.default_rng(1)
    for variable in model.trainable_variables:
        variable.assign(variable + random.standard_normal(variable.shape) * 1e3)
    averages = model.optimizer._model_variables_moving_average
    return model, x, y, model.get_weights(), [average.numpy() for average in averages]


@pytest.mark.parametrize("method", ["evaluate", "predict"])
def test_uses_the_averages_and_puts_every_bit_back(method):
    model, x, y, weights, averages = apart()
    arguments = (x, y) if method == "evaluate" else (x,)
    found = getattr(model, method)(*arguments, verbose=0, callbacks=[SwapEMAWeights()])
    for a, b in zip(model.get_weights(), weights, strict=True):
        np.testing.assert_array_equal(a, b)
    for a, b in zip(model.optimizer._model_variables_moving_average, averages, strict=True):
        np.testing.assert_array_equal(a.numpy(), b)
    model.set_weights(averages)
    np.testing.assert_array_equal(found, getattr(model, method)(*arguments, verbose=0))


@pytest.mark.parametrize("method", ["evaluate", "predict"])
def test_keras_callback_does_not(method):
    """Why there is one of ours: goes, once Keras' own is right."""
    model, x, y, weights, averages = apart()
    arguments = (x, y) if method == "evaluate" else (x,)
    getattr(model, method)(*arguments, verbose=0, callbacks=[keras.callbacks.SwapEMAWeights()])
    after = [variable.numpy() for variable in model.optimizer._model_variables_moving_average]
    after += model.get_weights()
    assert any((a != b).any() for a, b in zip(after, averages + weights, strict=True))


def test_validation_does_not_disturb_training():
    alone, x, y = fitted(epochs=3)
    keras.utils.set_random_seed(0)
    watched, *_ = fitted(epochs=0)
    watched.set_weights(fitted(epochs=0)[0].get_weights())
    keras.utils.set_random_seed(0)
    record = Record()
    watched.fit(x, y, batch_size=16, epochs=3, verbose=0, validation_data=(x, y), callbacks=[SwapEMAWeights(), record])
    assert len(record.weights) == 12
    for a, b in zip(watched.get_weights(), alone.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


def test_checkpoint_at_the_end_of_an_epoch_holds_the_averages(tmp_path):
    path = tmp_path / "{epoch}.weights.h5"
    save = keras.callbacks.ModelCheckpoint(path, save_weights_only=True)
    record = Record()
    model, *_ = fitted(epochs=1, callbacks=[SwapEMAWeights(swap_on_epoch=True), record, save])
    final = model.get_weights()  # the averages, by Keras' end of fit
    model.load_weights(tmp_path / "1.weights.h5")
    for a, b, last in zip(model.get_weights(), final, record.weights[-1], strict=True):
        np.testing.assert_array_equal(a, b)
        assert (a != last).any()
