"""The range test: rates and losses by hand, a sensible suggestion, and a model that is as before."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import tiny

from tfxformer import tasks
from tfxformer.training import WarmupLinear, find_learning_rate, optimizer

CURVATURE = 4.0


class Weight(keras.layers.Layer):
    """One weight, whose square is the output: gradient descent diverges where rate * CURVATURE > 2."""

    def build(self, shape):
        self.w = self.add_weight(shape=(1,), initializer="ones", name="kernel")

    def call(self, x):
        return x * self.w


def quadratic(rate=0.1):
    inputs = keras.Input((1,))
    model = keras.Model(inputs, Weight()(inputs))
    model.compile(keras.optimizers.SGD(rate), "mse")
    x = np.full((40, 1), np.sqrt(CURVATURE / 2), "float32")
    return model, x, np.zeros((40, 1), "float32")


def test_rates_and_losses_by_hand():
    model, x, y = quadratic()
    found = find_learning_rate(model, x, y, batch_size=4, lowest=1e-4, highest=0.1, steps=31)
    rates = 1e-4 * 10 ** (np.arange(31) / 10)
    np.testing.assert_allclose(found.rates, rates, rtol=1e-6)
    weights = np.cumprod(np.concatenate([[1.0], 1 - rates[:-1] * CURVATURE]))
    np.testing.assert_allclose(found.losses, CURVATURE / 2 * weights**2, rtol=1e-4)
    assert model.layers[-1].w.numpy() == 1


def test_suggests_a_rate_that_trains_well_and_stops_where_it_diverges():
    model, x, y = quadratic()
    found = find_learning_rate(model, x, y, batch_size=4, lowest=1e-4, highest=1e3, steps=200)
    assert 0.01 < found.suggestion < 2 / CURVATURE  # below divergence, far above what does nothing
    assert len(found.rates) < 200 and found.rates[-1] < 1e2 and np.isfinite(found.losses).all()


@pytest.mark.parametrize("shift", [0.0, -5.0])
def test_noise_and_losses_below_zero_do_not_end_it(shift):
    """Batches whose losses differ tenfold, in this order: three easy ones, three hard ones, and so on."""
    model, x, y = quadratic()
    model.compile(keras.optimizers.SGD(0.1), lambda y_true, y_pred: (y_true - y_pred) ** 2 + shift)
    x[np.arange(len(x)) // 3 % 2 == 0] *= 0.3
    data = tf.data.Dataset.from_tensor_slices((x, y)).batch(1)
    found = find_learning_rate(model, data, lowest=1e-5, highest=1e-2, steps=60)
    assert len(found.rates) == 60 and found.losses.max() - shift > 5 * (found.losses.min() - shift)
    found = find_learning_rate(model, data, lowest=1e-3, highest=1e3, steps=200)
    assert len(found.rates) < 200


def classifier(made, dropout=0.2, **options):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8,))
    x = keras.layers.Dense(16, activation="relu")(inputs)
    x = keras.layers.BatchNormalization()(keras.layers.Dropout(dropout, seed=3)(x))
    model = keras.Model(inputs, keras.layers.Dense(2, dtype="float32")(x))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(made, loss, metrics=["accuracy"], **options)
    x = np.random.default_rng(0).standard_normal((48, 8)).astype("float32")
    return model, x, (x[:, 0] > 0).astype("int32")


def everything(model):
    metrics = [variable for metric in model.metrics for variable in metric.variables]
    return [variable.numpy() for variable in (*model.variables, *model.optimizer.variables, *metrics)]


@pytest.mark.parametrize(
    ("rate", "options", "policy", "trained"),
    [
        (0.01, {}, "float32", False),
        (WarmupLinear(0.01, 100), {"steps_per_execution": 3}, "float32", True),
        (0.01, {"jit_compile": False}, "mixed_float16", True),
    ],
)
def test_everything_is_as_before_and_training_goes_on_the_same(rate, options, policy, trained, eager):
    together = options.get("steps_per_execution", 1)
    tf.config.run_functions_eagerly(together == 1)
    keras.config.set_dtype_policy(policy)
    results = []
    for with_search in (True, False):
        model, x, y = classifier(optimizer("adamw", rate, use_ema=True), **options)
        fit = {"batch_size": 8, "shuffle": False, "verbose": 0}
        if trained:
            model.fit(x, y, epochs=1, **fit)
        before, serialized = everything(model), keras.optimizers.serialize(model.optimizer)
        if with_search:
            found = find_learning_rate(model, x, y, batch_size=8, highest=10.0, steps=12 * together)
            assert (np.diff(found.rates) > 0).all() and len(found.rates) >= 8
            if trained:
                for a, b in zip(everything(model), before, strict=True):
                    np.testing.assert_array_equal(a, b)
            assert keras.optimizers.serialize(model.optimizer) == serialized
        model.fit(x, y, epochs=2, **fit)
        results.append(model.get_weights())
    for a, b in zip(*results, strict=True):
        np.testing.assert_array_equal(a, b)


def test_restores_after_an_error():
    model, x, y = classifier(optimizer("sgd", 0.1))
    model.optimizer.build(model.trainable_variables)
    before = [variable.numpy() for variable in (*model.variables, *model.optimizer.variables)]

    def batches():
        for i in range(6):
            yield x[8 * i : 8 * i + 8], y[8 * i : 8 * i + 8]
        raise KeyError("the data ends badly")

    spec = (tf.TensorSpec((None, 8)), tf.TensorSpec((None,), "int32"))
    with pytest.raises(Exception, match="the data ends badly"):
        find_learning_rate(model, tf.data.Dataset.from_generator(batches, output_signature=spec))
    after = [variable.numpy() for variable in (*model.variables, *model.optimizer.variables)]
    for a, b in zip(after, before, strict=True):
        np.testing.assert_array_equal(a, b)
    assert float(model.optimizer.learning_rate) == np.float32(0.1)


def test_a_loss_that_never_falls_has_no_suggestion_and_the_plot_is_written(tmp_path):
    model, x, y = quadratic()
    model.layers[-1].trainable = False
    bias = keras.Model(model.input, keras.layers.Dense(1, kernel_initializer="zeros")(model.output) * 0.0)
    bias.compile(optimizer("sgd", 0.1), "mse")
    found = find_learning_rate(bias, x, y, batch_size=4, steps=20, plot=tmp_path / "plots" / "rates.png")
    assert found.suggestion is None and len(found.rates) == 20
    assert (tmp_path / "plots" / "rates.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    model, x, y = quadratic()
    found = find_learning_rate(model, x, y, batch_size=4, steps=20, highest=0.1)
    found.plot(tmp_path / "rates.svg")
    assert "<svg" in (tmp_path / "rates.svg").read_text(encoding="utf-8")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["plots", "rates.svg"]


def test_what_is_no_range():
    model, x, y = quadratic()
    for arguments in ({"lowest": 1.0}, {"lowest": 0}, {"steps": 9}):
        with pytest.raises(ValueError, match="Wanted 0 < lowest < highest and at least 10 steps"):
            find_learning_rate(model, x, y, **arguments)
    with pytest.raises(ValueError, match="compile it first"):
        find_learning_rate(keras.Model(model.input, model.output), x, y)


@pytest.mark.road
def test_a_task_takes_its_texts_and_keeps_its_default_optimizer(tiny_tokenizer, plain_kernels, eager):
    model = tasks.TextClassifier(
        tiny.backbone(encoder__num_layers=1), ["negative", "positive"], tokenizer=tiny_tokenizer
    )
    model.compile(learning_rate=1e-3)
    before, made = model.get_weights(), model.optimizer
    found = find_learning_rate(model, tiny.TEXTS, tiny.LABELS, batch_size=8, lowest=1e-5, highest=0.1, steps=12)
    assert len(found.rates) >= 8 and model.optimizer is made
    for a, b in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(a, b)
    history = model.fit(tiny.TEXTS, tiny.LABELS, batch_size=8, epochs=2, verbose=0)
    assert int(model.optimizer.iterations) == 6
    assert np.isfinite(history.history["loss"]).all()
