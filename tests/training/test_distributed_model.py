"""DistributedModel: the weights of one device under every strategy, and what replicas and saved models keep.

The truth is `distributed_cases.reference`, a loop on one device that shares nothing with the package. All cells of the
matrix are in docs/equality.md, which `equality_table.py` writes.
"""

import warnings

import distributed_behaviour
import distributed_cases as cases
import keras
import numpy as np
import pytest
import replicas
import task_replicas
from distributed_cases import cell
from strategy_processes import run_cells

from tfxformer.arguments.notices import TfxformerWarning
from tfxformer.training import AdamW, DistributedModel, distributed_model

TOLERANCE = 1e-6  # of any weight; the updates move them by 1e-2
CELLS = {
    "none": [
        cell(fit_only=True),  # the norm of an embedding's gradient is that of a dense matrix
        cell(optimizer="adamw", clip={}, fit_only=True),  # so is its square
        cell(optimizer="adamw", steps=4, samples=77, steps_per_execution=2, fit_only=True),
        cell(loss="tokens", steps=2, eager=True, samples=48, fit_only=True),
    ],
    "one": [cell(optimizer="adamw", fit_only=True)],
}
ROAD_CELLS = {
    "mirrored": [
        cell(loss="tokens", steps=2, samples=65, regularize=0.1),  # the last batch is one sample: a replica gets none
        cell(
            loss="samples", clip={"clipnorm": 0.01}, ema=True, optimizer="adamw", steps_per_execution=5, fit_only=True
        ),  # "compare" stands in tests/tasks/embedding/test_contrastive_embedder.py
    ],
    "multiworker": [cell(loss="tokens", samples=65, steps=2, steps_per_execution=2, fit_only=True)],
}
SLOW_CELLS = {  # XLA, and what repeats one of the above in another way
    "none": [
        cell(optimizer="ours", jit=True, fit_only=True),
        cell(loss="two", samples=77, regularize=0.1, fit_only=True),
    ],
    "one": [cell(jit=True, steps=4, steps_per_execution=5, fit_only=True), cell(optimizer="adamw")],
    "mirrored": [
        cell(on_batch=True, fit_only=True, epochs=1),
        cell(jit=True, steps=4, steps_per_execution=5, fit_only=True),
        cell(optimizer="adamw", jit=True, samples=65),
        cell(loss="samples", optimizer="ours"),
        cell(loss="two", steps=2, samples=77, regularize=0.1),
        cell(clip={"clipnorm": 0.01}, ema=True, optimizer="adamw", fit_only=True),
        cell(loss="sum", steps=2, optimizer="adamw", fit_only=True),
        cell(loss="compare", samples=65, steps_per_execution=5, fit_only=True),
        cell(loss="compare", jit=True, samples=65, steps_per_execution=5, fit_only=True),
        cell(eager=True, samples=32, epochs=1),
    ],
    "multiworker": [
        cell(jit=True, optimizer="adamw", steps=4, steps_per_execution=5),
        cell(loss="tokens", samples=65, steps=2, steps_per_execution=2),
        cell(clip={"clipvalue": 0.001}, ema=True, fit_only=True),
        cell(loss="compare", samples=65, steps_per_execution=5, jit=True, fit_only=True),
    ],
}


def largest_difference(result, options):
    """Of any weight to the reference's, after as many updates."""
    weights, updates = cases.reference(options)
    assert int(result["updates"]) == updates > 0
    return max(np.abs(result[f"weight_{index}"] - weight).max() for index, weight in enumerate(weights))


@pytest.mark.parametrize(
    ("strategy", "cells"),
    [
        pytest.param(strategy, cells, marks=marks, id="-".join([strategy, *(mark.name for mark in marks)]))
        for table, marks in ((CELLS, []), (ROAD_CELLS, [pytest.mark.road]), (SLOW_CELLS, [pytest.mark.slow]))
        for strategy, cells in table.items()
    ],
)
def test_weights_metrics_and_predictions_are_those_of_one_device(strategy, cells, tmp_path):
    """Every cell of one strategy: weights against the reference, metrics and predictions against no strategy."""
    alone = strategy in ("none", "one")
    run = [cases.run(options, cases.scope_of(strategy)) for options in cells] if alone else None
    for options, result in zip(cells, run or run_cells(strategy, cells, tmp_path), strict=True):
        assert largest_difference(result, options) <= TOLERANCE, options
        if not alone and not options["fit_only"]:
            wanted = cases.run({**options, "jit": False, "eager": True}, cases.scope_of("none"))
            assert set(result) == set(wanted)
            for name, value in wanted.items():
                np.testing.assert_allclose(result[name], value, rtol=1e-5, atol=1e-5, err_msg=f"{name} of {options}")


@pytest.mark.road
@pytest.mark.parametrize(
    ("kind", "jit"),
    [
        ("tfxformer", False),
        pytest.param("keras", False, marks=pytest.mark.slow),
        pytest.param("keras", True, marks=pytest.mark.slow),
    ],
)
def test_replicas_drop_other_elements_from_one_stored_seed(kind, jit):
    found = replicas.run(distributed_behaviour.dropped, kind, jit)
    for shares in found["shares"]:  # dropped by both, by one, by none, of 256 elements
        np.testing.assert_allclose(shares, [0.25, 0.5, 0.25], atol=0.12)
    assert found["differ"] and found["one_seed"]
    assert found["drawn"] == [0, 2]  # one draw each step, as on one device


@pytest.mark.road
@pytest.mark.parametrize(
    ("initial", "steps", "wanted"),
    [
        (2.0**10, 1, {"scale": 2.0**15, "counter": 0, "updates": 20, "finite": True}),
        pytest.param(2.0**10, 2, None, marks=pytest.mark.slow),
        (2.0**40, 2, {"scale": 2.0**30, "counter": 0, "updates": 0, "finite": True}),
    ],
    ids=["grown", "accumulated", "overflown"],
)
def test_loss_scaling_acts_as_on_one_device(initial, steps, wanted):
    two_replicas, one_device = replicas.run(distributed_behaviour.loss_scales_of_both, initial, steps)
    assert two_replicas == one_device
    assert one_device["finite"]
    assert wanted is None or one_device == wanted


@pytest.mark.road
def test_a_task_of_ours_trains_alike_where_a_replica_gets_no_sample():
    difference, two_replicas, one_device = replicas.run(distributed_behaviour.language_models)
    assert difference <= TOLERANCE
    assert two_replicas == pytest.approx(one_device, rel=1e-5)


@pytest.mark.road
def test_moving_means_are_those_of_the_whole_batch():
    assert replicas.run(distributed_behaviour.moving_means) <= TOLERANCE


@pytest.mark.road
def test_what_cannot_be_right_is_refused():
    said = replicas.run(distributed_behaviour.messages)
    assert "synchronized BatchNormalization" in said["synchronized"]
    assert "compute_loss" in said["own_step"]


# ---- one device -----------------------------------------------------------------------------------------------


def small(base=DistributedModel, steps=None, optimizer=keras.optimizers.SGD, rate=0.1, **options):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((4,))
    made = base(inputs, keras.layers.Dense(3, activation="softmax")(keras.layers.Dense(8, activation="tanh")(inputs)))
    optimizer = optimizer(rate, gradient_accumulation_steps=steps)
    made.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"], **options)
    return made


X = np.random.default_rng(0).normal(size=(64, 4)).astype("float32")
Y = np.random.default_rng(1).integers(0, 3, 64)


def weights_after(model, epochs):
    model.fit(X, Y, batch_size=8, epochs=epochs, shuffle=False, verbose=0)
    return [weight.numpy() for weight in model.weights]


def test_nothing_special_runs_keras_own_step():
    model, stock = small(optimizer=AdamW), small(keras.Model, optimizer=AdamW)
    for ours, theirs in zip(weights_after(model, 2), weights_after(stock, 2), strict=True):
        assert ours.tobytes() == theirs.tobytes()
    assert type(model.train_function) is type(stock.train_function)  # the function that Keras makes


def test_a_saved_model_goes_on_with_its_accumulation(tmp_path):
    path = tmp_path / "model.keras"
    model = small(steps=4, optimizer=AdamW)
    weights_after(model, 1)
    model.save(path)
    loaded = keras.models.load_model(path)
    assert type(loaded) is DistributedModel
    assert (loaded.gradient_accumulation_steps, int(loaded.optimizer.iterations)) == (4, 2)
    np.testing.assert_array_equal(loaded.predict(X, verbose=0), model.predict(X, verbose=0))
    whole = weights_after(small(steps=4, optimizer=AdamW), 2)
    for went_on, at_once in zip(weights_after(loaded, 1), whole, strict=True):
        np.testing.assert_array_equal(went_on, at_once)


def test_compiling_an_optimizer_again_keeps_its_accumulation():
    model = small(steps=4)
    model.compile(model.optimizer, "sparse_categorical_crossentropy")
    assert model.gradient_accumulation_steps == 4
    assert model.get_compile_config()["optimizer"]["config"]["gradient_accumulation_steps"] == 4
    weights_after(model, 1)
    assert int(model.optimizer.iterations) == 2


def test_an_optimizer_that_was_built_to_accumulate_is_refused():
    model = small()
    optimizer = keras.optimizers.SGD(0.1, gradient_accumulation_steps=2)
    optimizer.build(model.trainable_variables)
    with pytest.raises(ValueError, match="built before compile"):
        model.compile(optimizer, "sparse_categorical_crossentropy")


def test_an_accumulation_goes_on_in_the_next_fit():
    """Three batches, then five: one update, of four, then one more."""
    model = small(steps=4)
    model.fit(X[:24], Y[:24], batch_size=8, shuffle=False, verbose=0)
    assert int(model.optimizer.iterations) == 0
    model.fit(X[24:], Y[24:], batch_size=8, shuffle=False, verbose=0)
    assert int(model.optimizer.iterations) == 2
    for split, whole in zip(model.weights, weights_after(small(steps=4), 1), strict=True):
        np.testing.assert_allclose(split.numpy(), whole, atol=1e-7)


@pytest.mark.parametrize("steps_per_execution", [1, 2])
def test_another_fit_may_have_another_batch_size(steps_per_execution):
    """Batches of 32 and 16 accumulated to 64 and 32; validation with batches of 64, then one of 8 by hand."""
    model = small(steps=2, steps_per_execution=steps_per_execution)
    whole = small(run_eagerly=True)
    for batch_size in (32, 16):
        fits = {"shuffle": False, "verbose": 0, "validation_data": (X, Y), "validation_batch_size": 64}
        found = model.fit(X, Y, batch_size=batch_size, **fits).history
        wanted = whole.fit(X, Y, batch_size=2 * batch_size, **fits).history
        assert found["val_loss"] == pytest.approx(wanted["val_loss"], rel=1e-5)
    for _ in range(2):
        model.train_on_batch(X[:8], Y[:8])
    whole.train_on_batch(X[:8], Y[:8])
    for ours, theirs in zip(model.weights, whole.weights, strict=True):
        np.testing.assert_allclose(ours.numpy(), theirs.numpy(), atol=1e-6)


def test_schedules_count_updates():
    class Recorded(keras.callbacks.Callback):
        rates = ()

        def on_train_batch_end(self, batch, logs=None):
            self.rates = (*self.rates, float(self.model.optimizer.learning_rate.numpy()))

    rate = keras.optimizers.schedules.PiecewiseConstantDecay([0], [0.5, 0.25])
    model, recorded = small(steps=4, rate=rate), Recorded()
    model.fit(X, Y, batch_size=8, verbose=0, callbacks=[recorded])
    assert recorded.rates == (0.5,) * 3 + (0.25,) * 5


class OwnStep(DistributedModel):
    def train_step(self, data):
        self.stepped = True
        return super().train_step(data)


class OwnLoss(DistributedModel):
    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        compiled = super().compute_loss(x, y, y_pred, sample_weight, training)
        return compiled + keras.ops.mean(keras.ops.square(y_pred))


def test_an_own_train_step_runs_on_one_device_with_keras_accumulation():
    model = small(OwnStep, steps=4)
    wanted = weights_after(small(keras.Model, steps=4), 1)
    for ours, theirs in zip(weights_after(model, 1), wanted, strict=True):
        assert ours.tobytes() == theirs.tobytes()
    assert model.stepped and model.gradient_accumulation_steps == 4


def test_an_own_loss_accumulates_to_that_of_the_whole_batch():
    whole = small(OwnLoss)
    whole.fit(X, Y, batch_size=32, shuffle=False, verbose=0)
    for ours, wanted in zip(weights_after(small(OwnLoss, steps=4), 1), whole.weights, strict=True):
        np.testing.assert_allclose(ours, wanted.numpy(), atol=1e-6)


def test_without_a_loss_it_says_so():
    inputs = keras.Input((4,))
    model = DistributedModel(inputs, keras.layers.Dense(3)(inputs))
    model.compile(keras.optimizers.SGD(0.1, gradient_accumulation_steps=2))
    with pytest.raises(ValueError, match=r"no loss to minimize|No loss to compute"):
        model.fit(X, Y, verbose=0)


@pytest.mark.road
def test_a_task_learns_the_same_on_two_replicas():
    """Weights of words and classes, -100, and metrics on logits: halves of a batch that weigh differently."""
    one, two = replicas.run(task_replicas.histories)
    assert {*one} == {*two} and len(one) == 8
    for key, value in one.items():
        np.testing.assert_allclose(two[key], value, rtol=1e-5, err_msg=key)


@pytest.mark.road
def test_a_writer_of_targets_learns_the_same_on_two_replicas():
    """The mean is over all tokens of a batch, whose halves have other numbers of them."""
    (one, weights), (two, others) = replicas.run(task_replicas.written_histories)
    assert {*one} == {*two} >= {"loss", "perplexity"}
    for key, value in one.items():
        np.testing.assert_allclose(two[key], value, rtol=1e-5, err_msg=key)
    for found, wanted in zip(others, weights, strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_a_step_under_xla_on_cpus_is_told_to_be_slow(monkeypatch):
    x = keras.Input((1,))
    model = DistributedModel(inputs=x, outputs=keras.layers.Dense(1)(x))
    with pytest.warns(TfxformerWarning, match="jit_compile=True on CPUs"):
        model.compile("sgd", "mse", jit_compile=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.compile("sgd", "mse")
        monkeypatch.setattr(distributed_model, "only_cpus", lambda: False)
        model.compile("sgd", "mse", jit_compile=True)
