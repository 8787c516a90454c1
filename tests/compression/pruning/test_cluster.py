"""Clustered kernels have few values after every update, trained as tfmot trains them, and nothing else is left."""

import warnings

import keras
import numpy as np
import pytest
import replicas
import tiny
from pruning_cases import (
    TOKENS,
    assert_nothing_left,
    clustering_cases,
    clustering_mirrored_case,
    compiled,
    descent,
    fit,
    kernels,
    small_dense,
    small_transformer,
    value_watcher,
)

from tfxformer import export, training
from tfxformer.compression import Cluster, ConstantSparsity, Distiller, LogitsLoss, Prune, sparsity_report


@pytest.mark.parametrize(
    ("make", "dtype", "optimizer", "options"),
    [
        pytest.param(small_transformer, None, {}, {}, id="transformer"),
        pytest.param(small_transformer, None, {}, {"jit_compile": True}, id="jit", marks=pytest.mark.slow),
        pytest.param(small_dense, "mixed_float16", {"global_clipnorm": 1.0}, {"steps_per_execution": 5}, id="fp16-5"),
        pytest.param(small_dense, "bfloat16", {}, {}, id="pure-bfloat16"),
        pytest.param(small_dense, None, {"gradient_accumulation_steps": 2, "use_ema": True}, {}, id="accumulation-ema"),
        pytest.param(small_dense, None, {}, {"run_eagerly": True}, id="eager"),
    ],
)
def test_few_values_after_every_update(make, dtype, optimizer, options):
    model = compiled(make(dtype), descent(**optimizer), **options)
    before, watch = kernels(model), value_watcher(8)
    history = fit(model, watch, Cluster(8)).history
    assert watch.checked and not watch.off
    for path, values in kernels(model).items():
        assert 2 < len(np.unique(values)) <= 8, path
        assert (values != before[path]).any()
    if dtype != "bfloat16":  # whose updates are mostly rounded away
        assert history["loss"][-1] < history["loss"][0]
    assert_nothing_left(model)


@pytest.mark.usefixtures("eager")
def test_weights_are_those_of_tfmot():
    result = clustering_cases()
    assert result["difference"] < 2e-6 and result["moved"] > 0.01
    assert result["values"][0] <= 8 and result["values"][2] <= 8


@pytest.mark.slow
@pytest.mark.parametrize("jit_compile", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_two_replicas_hold_the_same_values(jit_compile):
    result = replicas.run(clustering_mirrored_case, jit_compile)
    assert (result["checked"], result["off"]) == (16 * 2 * 2, []) and result["moved"] > 0.001


@pytest.mark.parametrize("jit", [False, True])
def test_training_computed_by_hand(jit):
    """A linear model with zeros: its weights, its centroids and who belongs to whom, in numpy."""
    rng = np.random.default_rng(4)
    x, y = rng.normal(size=(64, 6)).astype("float32"), rng.normal(size=(64, 4)).astype("float32")
    # Four groups of values, so far apart that any k-means finds them, and zeros.
    weights = rng.choice([-2.0, -1.0, 1.0, 2.0], (6, 4)) + rng.normal(0, 0.05, (6, 4))
    weights[rng.random((6, 4)) < 0.3] = 0
    dense = keras.layers.Dense(4, use_bias=False)
    model = keras.Sequential([keras.Input((6,)), dense])
    dense.kernel.assign(weights)
    model.compile(keras.optimizers.SGD(0.3), "mse", jit_compile=jit)
    cluster = Cluster(5, layers=lambda layer: True)
    model.fit(x, y, batch_size=8, epochs=2, shuffle=False, verbose=0, callbacks=[cluster])

    weights = weights.astype("float32").astype("float64")
    present = weights != 0
    centroids = np.array([weights[np.round(weights) == c].mean() for c in (-2, -1, 1, 2)] + [0.0])

    def nearest(weights):
        return np.where(present, np.abs(weights[..., None] - centroids).argmin(-1), 4)

    places, changed = nearest(weights), 0
    for update in range(16):
        rows = slice(8 * (update % 8), 8 * (update % 8) + 8)
        step = -0.3 * 2 * x[rows].T @ (x[rows] @ centroids[places] - y[rows]) / (8 * 4)
        weights = np.where(present, weights + step, 0)
        centroids = centroids + [step[places == c].mean() if (places == c).any() else 0 for c in range(5)]
        centroids[4] = 0
        before, places = places, nearest(weights)
        changed += np.sum(before != places)
    assert changed
    np.testing.assert_allclose(np.asarray(dense.kernel), centroids[places], atol=1e-5)
    assert not np.asarray(dense.kernel)[~present].any()


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("keep", [True, False])
def test_zeros_of_pruning_stay(keep):
    model = compiled(small_dense())
    fit(model, Prune(ConstantSparsity(0.5, 0)), epochs=1)
    zeros = {path: values == 0 for path, values in kernels(model).items()}
    compiled(model, keras.optimizers.Adam(0.05))  # steps that would take a zero to the next value
    fit(model, Cluster(4, keep_zeros=keep), epochs=1)
    for path, values in kernels(model).items():
        assert len(np.unique(values)) <= 4
        assert (values[zeros[path]] == 0).all() == keep
    assert sparsity_report(model).kernels.sparsity >= 0.5 or not keep


def test_a_kernel_of_fewer_values_keeps_them():
    model = compiled(small_dense())
    kernel = model.get_layer("dense").kernel
    kernel.assign(np.random.default_rng(0).choice([-0.5, 0.0, 0.25], kernel.shape))
    before = np.asarray(kernel).copy()
    fit(compiled(model, keras.optimizers.SGD(0.0)), Cluster(8), epochs=1)
    np.testing.assert_array_equal(kernel, before)
    kernel.assign(np.zeros(kernel.shape))
    fit(model, Cluster(8), epochs=1)
    assert not np.asarray(kernel).any()


@pytest.mark.parametrize("update", [pytest.param(16, marks=pytest.mark.slow), 13])
def test_a_killed_training_goes_on_bit_for_bit(tmp_path, update):
    class Stop(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if int(self.model.optimizer.iterations) == update + 1:
                raise KeyboardInterrupt

    def distributed():
        return compiled(small_dense(base=training.DistributedModel))

    through, stopped, resumed = distributed(), distributed(), distributed()
    fit(through, Cluster(8), training.Resume(tmp_path / "whole"), shuffle=True)
    with pytest.raises(KeyboardInterrupt):
        fit(stopped, Cluster(8), training.Resume(tmp_path / "run", save_freq=1), Stop(), shuffle=True)
    again = training.Resume(tmp_path / "run")
    fit(resumed, Cluster(8), again, shuffle=True)
    assert again.resumed_from is not None
    for a, b in zip(through.get_weights(), resumed.get_weights(), strict=True):
        assert a.tobytes() == b.tobytes()


@pytest.mark.road
def test_a_saved_model_is_a_plain_one_and_its_file_zips_small(tmp_path):
    inputs = outputs = keras.Input((128,))
    for _ in range(3):
        outputs = keras.layers.Dense(128)(outputs)
    model = tiny.perturb(keras.Model(inputs, outputs))
    model.compile(keras.optimizers.Adam(1e-3), "mse")
    x = np.random.default_rng(0).normal(size=(64, 128)).astype("float32")
    sizes, files = {}, {}
    for name, callbacks in (("dense", []), ("clustered", [Cluster(16, layers=lambda layer: True)])):
        model.fit(x, x, verbose=0, callbacks=callbacks)
        for mode in ("float32", "dynamic_int8"):
            report = export.export_litert(model, tmp_path / f"{name}.tflite", mode)
            sizes[name, mode], files[name, mode] = report.zipped_bytes, report.bytes
    assert sizes["clustered", "float32"] < sizes["dense", "float32"] / 4  # 4 bits of 32, and what deflate needs
    assert sizes["clustered", "dynamic_int8"] < sizes["dense", "dynamic_int8"] * 0.75
    assert files["clustered", "float32"] == files["dense", "float32"]
    model.save(tmp_path / "clustered.keras")
    again = keras.models.load_model(tmp_path / "clustered.keras")  # no custom objects
    for layer, saved in zip(model.layers[1:], again.layers[1:], strict=True):
        assert len(np.unique(saved.kernel)) <= 16
        np.testing.assert_array_equal(saved.kernel, layer.kernel)


def test_a_student_is_clustered_while_it_learns():
    teacher, student = small_dense(), small_dense()
    for model in (teacher, student):
        model.get_layer("head").activation = keras.activations.linear
    distiller = Distiller(student, tiny.perturb(teacher), [LogitsLoss()])
    distiller.compile(descent())
    history = distiller.fit(TOKENS, batch_size=8, epochs=3, verbose=0, callbacks=[Cluster(8)]).history
    assert history["loss"][-1] < history["loss"][0]
    assert all(len(np.unique(values)) <= 8 for values in kernels(student).values())
    assert all(len(np.unique(values)) > 8 for values in kernels(teacher).values())


def test_an_interrupted_fit_leaves_nothing_and_callbacks_do_not_mix():
    class Interrupt(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            raise KeyboardInterrupt

    model = compiled(small_dense())
    with pytest.raises(KeyboardInterrupt):
        fit(model, Cluster(4), Interrupt())
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        fit(model, epochs=1)
    assert_nothing_left(model)
    assert all(len(np.unique(values)) > 4 for values in kernels(model).values())
    with pytest.raises(ValueError, match="is pruned or clustered by another callback already"):
        fit(model, Prune(ConstantSparsity(0.5, 0)), Cluster(4))


def test_bad_arguments_say_what_is_wrong():
    for number in (0, 1, -4):
        with pytest.raises(ValueError, match=f"number_of_clusters={number} would leave"):
            Cluster(number)
    for number in (True, 4.0, "16"):
        with pytest.raises(TypeError, match="number_of_clusters is an int"):
            Cluster(number)
    with pytest.raises(TypeError, match="layer -> bool"):
        Cluster(layers="dense")
    with pytest.raises(ValueError, match=r"Cluster: no kernel to work on.*the predicate chose 0"):
        fit(compiled(small_dense()), Cluster(layers=lambda layer: False))
