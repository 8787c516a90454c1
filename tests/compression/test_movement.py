"""Movement pruning: scores and masks are those that numpy computes, and the guarantees of `Prune` hold."""

import warnings

import keras
import numpy as np
import pytest
import replicas
from pruning_cases import (
    SCHEDULE,
    TOKENS,
    assert_nothing_left,
    compiled,
    descent,
    distributed_case,
    expected_zeros,
    fit,
    kernels,
    largest,
    small_dense,
    watcher,
    zeros_at,
)

from tfxformer import training
from tfxformer.compression import ConstantSparsity, Distiller, LogitsLoss, Prune


@pytest.mark.parametrize(
    ("block", "options"),
    [
        ((1, 1), {}),
        ((2, 2), {"jit_compile": True}),
        ((1, 1), {"steps_per_execution": 4}),
        pytest.param((2, 2), {}, marks=pytest.mark.slow),
        pytest.param((1, 1), {"jit_compile": True}, marks=pytest.mark.slow),
        pytest.param((2, 2), {"steps_per_execution": 4}, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_scores_and_masks_computed_by_hand(block, options):
    """A linear model in numpy: weights that are gone keep their values and scores, and some come back."""
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(64, 6)).astype("float32"), rng.normal(size=(64, 4)).astype("float32")
    dense = keras.layers.Dense(4, use_bias=False)
    model = keras.Sequential([keras.Input((6,)), dense])
    initial = rng.normal(size=(6, 4)).astype("float32")
    dense.kernel.assign(initial)
    model.compile(keras.optimizers.SGD(0.3), "mse", **options)
    schedule = ConstantSparsity(0.5, 2, frequency=3)
    prune = Prune(schedule, block, layers=lambda layer: True, method="movement")
    kept = []

    class Watch(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            kept[:] = [one.numpy() for one in (prune.engines[0].scores, prune.engines[0].values)]

    model.fit(x, y, batch_size=8, epochs=3, shuffle=False, verbose=0, callbacks=[prune, Watch()])

    weights, scores, mask = initial.astype("float64"), np.zeros((6, 4)), np.ones((6, 4), bool)
    came_back = 0
    for update in range(1, 25):
        rows = slice(8 * ((update - 1) % 8), 8 * ((update - 1) % 8) + 8)
        gradient = 2 * x[rows].T @ (x[rows] @ (weights * mask) - y[rows]) / (8 * 4)
        scores -= gradient * weights
        weights = weights - 0.3 * gradient * mask
        if update >= 2 and (update - 2) % 3 == 0:
            height, width = block
            pooled = scores.reshape(6 // height, height, 4 // width, width).mean(axis=(1, 3))
            before, mask = mask, largest(pooled, 0.5).repeat(height, 0).repeat(width, 1)
            came_back += np.sum(mask & ~before)
    assert came_back
    np.testing.assert_allclose(kept[0], scores, atol=1e-5)
    np.testing.assert_allclose(kept[1], weights, atol=1e-5)
    np.testing.assert_allclose(np.asarray(dense.kernel), weights * mask, atol=1e-5)
    magnitude = largest(np.abs(weights), 0.5)
    assert (mask != magnitude).any()  # the two methods are two
    assert_nothing_left(model)


@pytest.mark.parametrize(
    ("dtype", "optimizer", "epochs"),
    [
        pytest.param("mixed_float16", {"global_clipnorm": 1.0}, 3, id="fp16-clip"),
        pytest.param("bfloat16", {}, 3, id="pure-bfloat16"),
        pytest.param(None, {"gradient_accumulation_steps": 2, "use_ema": True}, 6, id="accumulation-ema"),
    ],
)
def test_zeros_are_exact_after_every_update(dtype, optimizer, epochs):
    model, watch = compiled(small_dense(dtype), descent(**optimizer)), watcher(expected_zeros)
    for weight in model.trainable_weights:
        weight.assign(keras.ops.where(weight == 0, 0.01, weight))
    fit(model, watch, Prune(SCHEDULE, method="movement"), epochs=epochs)
    assert watch.checked == 8 * epochs * 2 and not watch.off
    assert_nothing_left(model)


@pytest.mark.slow
@pytest.mark.parametrize("jit_compile", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_two_replicas_hold_the_same_exact_zeros(jit_compile):
    """Scores of gradients that are summed over replicas, and over the batches of an update."""
    result = replicas.run(distributed_case, "movement", jit_compile)
    assert (result["checked"], result["off"], result["end"]) == (24 * 2 * 2, [], True)


def distributed():
    """The small model as one that `training.Resume` knows."""
    return compiled(small_dense(base=training.DistributedModel))


class Stop(keras.callbacks.Callback):
    def __init__(self, update):
        super().__init__()
        self.update = update

    def on_train_batch_end(self, batch, logs=None):
        if int(self.model.optimizer.iterations) == self.update:
            raise KeyboardInterrupt


@pytest.mark.parametrize("update", [pytest.param(16, marks=pytest.mark.slow), 13])
def test_a_killed_training_goes_on_bit_for_bit(tmp_path, update):
    """Between epochs, and within one: scores, masks and the values of pruned weights are in the checkpoint."""
    through, stopped, resumed = distributed(), distributed(), distributed()
    fit(through, Prune(SCHEDULE, method="movement"), training.Resume(tmp_path / "whole"), shuffle=True)
    with pytest.raises(KeyboardInterrupt):
        killed = [Prune(SCHEDULE, method="movement"), training.Resume(tmp_path / "run", save_freq=1), Stop(update + 1)]
        fit(stopped, *killed, shuffle=True)
    again = training.Resume(tmp_path / "run")
    watch = watcher(expected_zeros)
    fit(resumed, Prune(SCHEDULE, method="movement"), again, watch, shuffle=True)
    assert again.resumed_from is not None
    assert watch.checked == (24 - update) * 2 and not watch.off
    for a, b in zip(through.get_weights(), resumed.get_weights(), strict=True):
        assert a.tobytes() == b.tobytes()


def test_a_reloaded_model_keeps_its_zeros_and_goes_on(tmp_path):
    model = compiled(small_dense())
    fit(model, keras.callbacks.ModelCheckpoint(str(tmp_path / "at_{epoch}.keras")), Prune(SCHEDULE, method="movement"))
    resumed = keras.models.load_model(tmp_path / "at_2.keras")  # no custom objects
    before, watch = kernels(resumed), watcher(expected_zeros)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        fit(resumed, watch, Prune(SCHEDULE, method="movement"), initial_epoch=2)
    assert watch.checked == 8 * 2 and not watch.off
    for path, values in kernels(resumed).items():
        assert not values[before[path] == 0].any(), path


def test_what_distillation_teaches_moves_the_student():
    """`Prune` among the callbacks of `Distiller.fit`: the gradient that scores are made of is the teacher's."""
    teacher, student = small_dense(), small_dense()
    for weight in teacher.weights:
        weight.assign(keras.random.normal(weight.shape, seed=5))
    for model in (teacher, student):
        model.get_layer("head").activation = keras.activations.linear
    distiller = Distiller(student, teacher, [LogitsLoss(temperature=2.0)])
    distiller.compile(descent())
    watch = watcher(expected_zeros, of=student)
    prune = Prune(SCHEDULE, method="movement")
    distiller.fit(TOKENS, batch_size=8, epochs=3, verbose=0, callbacks=[watch, prune])
    assert watch.checked and not watch.off
    for values in kernels(student).values():
        assert np.sum(values == 0) == zeros_at(0.8, values.size)


def test_an_interrupted_fit_leaves_nothing_to_the_next():
    model = compiled(small_dense())
    with pytest.raises(KeyboardInterrupt):
        fit(model, Prune(SCHEDULE, method="movement"), Stop(6))
    assert "update_step" in vars(model.optimizer)
    fit(model, epochs=1)
    assert_nothing_left(model)
    assert not any((values == 0).any() for values in kernels(model).values())


def test_two_methods_share_a_fit():
    model = compiled(small_dense())
    first = Prune(ConstantSparsity(0.25, 4), layers=lambda layer: layer.name == "dense", method="movement")
    fit(model, first, Prune(ConstantSparsity(0.75, 0), layers=lambda layer: layer.name == "second"))
    for path, values in kernels(model).items():
        assert np.mean(values == 0) == (0.25 if path == "dense/kernel" else 0.75)
    assert_nothing_left(model)


def test_what_cannot_be_pruned_by_movement_is_refused():
    with pytest.raises(ValueError, match="unknown method 'gradient'; known: magnitude, movement"):
        Prune(SCHEDULE, method="gradient")
    with pytest.raises(ValueError, match="m_by_n is chosen by magnitude"):
        Prune(ConstantSparsity(0.5, 1), m_by_n=(2, 4), method="movement")
    model = compiled(small_dense())
    with pytest.raises(ValueError, match="no gradient has been seen"):  # at update 0
        fit(model, Prune(ConstantSparsity(0.5, 0), method="movement"))
    fit(model, epochs=1)
    with pytest.raises(ValueError, match=r"dense/kernel at once than the 0 there are.*begin_step"):
        fit(model, Prune(SCHEDULE, method="movement"))
    fit(model, Prune(ConstantSparsity(0.5, 9), method="movement"), epochs=1)
    assert_nothing_left(model)
