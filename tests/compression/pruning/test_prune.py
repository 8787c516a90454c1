import json
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
    mirrored_case,
    polynomial,
    small_dense,
    small_transformer,
    tfmot_cases,
    watcher,
    zeros_at,
)

from tfxformer.compression import ConstantSparsity, PolynomialDecay, Prune, sparsity_report


def assert_sparsity(model, sparsity):
    for path, values in kernels(model).items():
        assert int(np.sum(values == 0)) == zeros_at(sparsity, values.size), path


@pytest.mark.parametrize(
    ("make", "dtype", "optimizer", "options"),
    [
        pytest.param(small_dense, None, {}, {}, id="plain", marks=pytest.mark.road),  # what "transformer" has in parts
        pytest.param(small_transformer, None, {}, {}, id="transformer"),
        pytest.param(small_transformer, None, {}, {"jit_compile": True}, id="jit", marks=pytest.mark.slow),
        pytest.param(
            small_dense,
            "mixed_bfloat16",
            {},
            {"jit_compile": True, "steps_per_execution": 4},
            id="bf16-jit-4",
            marks=pytest.mark.slow,
        ),
        pytest.param(small_dense, "mixed_float16", {}, {"steps_per_execution": 5}, id="fp16-5"),
        pytest.param(small_dense, "bfloat16", {}, {}, id="pure-bfloat16"),
        pytest.param(
            small_dense,
            None,
            {"use_ema": True, "ema_overwrite_frequency": 4, "global_clipnorm": 1.0},
            {},
            id="ema-clip",
        ),
        pytest.param(small_dense, None, {}, {"run_eagerly": True}, id="eager"),
    ],
)
def test_zeros_are_exact_after_every_update(make, dtype, optimizer, options):
    model = compiled(make(dtype), descent(**optimizer), **options)
    if dtype == "bfloat16":  # so coarse that some of the initial weights are zero
        for weight in model.trainable_weights:
            weight.assign(keras.ops.where(weight == 0, 0.01, weight))
    watch = watcher(expected_zeros)
    history = fit(model, watch, Prune(SCHEDULE))
    assert watch.checked >= 24 // options.get("steps_per_execution", 1) * len(kernels(model))
    assert not watch.off
    assert_sparsity(model, 0.8)
    zeros = sum(int(np.sum(values == 0)) for values in kernels(model).values())
    assert history.history["sparsity"][-1] == zeros / 512
    assert_nothing_left(model)


@pytest.mark.parametrize("dtype", [None, "mixed_float16"])
def test_gradient_accumulation_counts_updates_not_batches(dtype):
    optimizer = descent(gradient_accumulation_steps=2)
    model, watch = compiled(small_dense(dtype), optimizer), watcher(expected_zeros)
    fit(model, watch, Prune(SCHEDULE), epochs=6)
    assert watch.checked == 48 * 2 and not watch.off
    assert int(optimizer.iterations) == 24
    assert_sparsity(model, 0.8)


@pytest.mark.road
@pytest.mark.parametrize(
    ("case", "options"),
    [
        pytest.param(mirrored_case, [], id="mirrored", marks=pytest.mark.slow),
        pytest.param(distributed_case, [], id="distributed"),
        pytest.param(distributed_case, ["magnitude", True], id="XLA", marks=pytest.mark.slow),
    ],
)
def test_two_replicas_hold_the_same_exact_zeros(case, options):
    result = replicas.run(case, *options)
    assert (result["checked"], result["off"], result["end"]) == (24 * 2 * 2, [], True)
    assert result["sparsity"][-1] == (zeros_at(0.8, 384) + zeros_at(0.8, 128)) / 512


@pytest.mark.usefixtures("eager")
def test_weights_are_bit_equal_to_tfmots():
    results = tfmot_cases()
    assert {name: case["difference"] for name, case in results.items()} == {
        "element": 0,
        "block": 0,
        "2:4": 0,
    }
    assert all(case["moved"] > 0.1 for case in results.values())
    assert results["element"]["zeros"] == zeros_at(0.8, 192) and results["2:4"]["zeros"] == 96


@pytest.mark.parametrize("jit", [False, True])
def test_the_smallest_go_computed_by_hand(jit):
    """A linear model trained and pruned in numpy, with the kernel's own constraint and ties at the start."""
    rng = np.random.default_rng(5)
    x, y = rng.normal(size=(64, 6)).astype("float32"), rng.normal(size=(64, 4)).astype("float32")
    dense = keras.layers.Dense(4, use_bias=False, kernel_initializer="ones", kernel_constraint="non_neg")
    model = keras.Sequential([keras.Input((6,)), dense])
    model.compile(keras.optimizers.SGD(0.3), "mse", jit_compile=jit)
    prune = Prune(ConstantSparsity(0.5, 0, frequency=3), layers=lambda layer: True)
    model.fit(x, y, batch_size=8, epochs=2, shuffle=False, verbose=0, callbacks=[prune])

    weights = np.ones((6, 4))
    mask = largest(weights, 0.5)
    weights = weights * mask
    for update in range(1, 17):
        rows = slice(8 * ((update - 1) % 8), 8 * ((update - 1) % 8) + 8)
        gradient = 2 * x[rows].T @ (x[rows] @ weights - y[rows]) / (8 * 4)
        weights = np.maximum(weights - 0.3 * gradient, 0)
        if update % 3 == 0:
            mask = largest(weights, 0.5)
        weights = weights * mask
    np.testing.assert_allclose(np.asarray(dense.kernel), weights, atol=1e-5)
    assert isinstance(dense.kernel.constraint, keras.constraints.NonNeg)


@pytest.mark.parametrize(
    ("schedule", "options", "jit"),
    [
        (PolynomialDecay(0.0, 0.8, 16, 22, frequency=3), {"block_size": (4, 1)}, False),
        pytest.param(
            PolynomialDecay(0.0, 0.8, 16, 22, frequency=3), {"block_size": (4, 2)}, True, marks=pytest.mark.slow
        ),
        (PolynomialDecay(0.0, 0.8, 16, 22, frequency=3), {"block_size": (4, 2)}, False),
        (ConstantSparsity(0.5, 18, frequency=5), {"m_by_n": (2, 4)}, False),
        pytest.param(ConstantSparsity(0.5, 18, frequency=5), {"m_by_n": (2, 4)}, True, marks=pytest.mark.slow),
    ],
)
def test_blocks_and_groups_in_a_second_fit(schedule, options, jit):
    dense = keras.layers.Dense(6, name="dense")
    model = keras.Sequential([keras.Input((24,)), dense])
    model.compile(keras.optimizers.SGD(0.1), "mse", jit_compile=jit)
    x, y = np.random.default_rng(6).normal(size=(64, 24)), np.ones((64, 6))
    model.fit(x, y, batch_size=8, epochs=2, verbose=0)  # 16 updates, dense
    prune = Prune(schedule, **options, layers=lambda layer: True)
    model.fit(x, y, batch_size=8, verbose=0, callbacks=[prune])
    kernel = np.asarray(dense.kernel)
    if "m_by_n" in options:
        assert (np.sum(kernel.reshape(6, 4, 6) == 0, axis=1) == 2).all()
    else:
        height, width = options["block_size"]
        blocks = kernel.reshape(24 // height, height, 6 // width, width).transpose(0, 2, 1, 3)
        zeros = np.sum(blocks == 0, axis=(2, 3))
        assert np.isin(zeros, (0, height * width)).all()
        assert np.sum(zeros > 0) == zeros_at(0.8, zeros.size)


def test_a_later_fit_is_dense_again_and_one_on_the_same_steps_catches_up_with_a_warning():
    model = compiled(small_dense())
    fit(model, Prune(SCHEDULE))
    assert_sparsity(model, 0.8)
    fit(model, epochs=1)
    assert sparsity_report(model).kernels.sparsity < 0.1
    with pytest.warns(UserWarning, match="32 updates already.*to 79"):
        history = fit(model, Prune(SCHEDULE), epochs=1)
    assert history.history["sparsity"] == [(zeros_at(0.8, 384) + zeros_at(0.8, 128)) / 512]
    assert_sparsity(model, 0.8)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        fit(model, Prune(SCHEDULE), epochs=1)  # holds what is there
    assert_sparsity(model, 0.8)


class Interrupt(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        if batch == 5:
            raise KeyboardInterrupt


@pytest.mark.parametrize("prune_again", [False, True])
def test_an_interrupted_fit_leaves_nothing_to_the_next(prune_again):
    own = keras.constraints.MaxNorm(2.0)
    model = compiled(small_dense(constraint=own))
    watch = watcher(expected_zeros)
    with pytest.raises(KeyboardInterrupt):
        fit(model, Prune(SCHEDULE), Interrupt())
    assert_sparsity(model, polynomial(6, 0.0, 0.8, 2, 20, 3, 3))
    if prune_again:
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            fit(model, watch, Prune(SCHEDULE))
        assert not watch.off
        assert_sparsity(model, 0.8)
    else:
        fit(model, epochs=1)
        assert sparsity_report(model).kernels.zeros == 0
    assert_nothing_left(model)
    assert model.get_layer("dense").kernel.constraint is own


def test_resuming_a_saved_model_changes_no_bit(tmp_path):
    through = compiled(small_dense())
    checkpoint = keras.callbacks.ModelCheckpoint(str(tmp_path / "at_{epoch}.keras"))
    fit(through, checkpoint, Prune(SCHEDULE))  # saves while the constraints are in place
    resumed = keras.models.load_model(tmp_path / "at_2.keras")  # no custom objects
    config = json.dumps(resumed.get_config())
    assert '"kernel_constraint": null' in config and "Mask" not in config
    assert resumed.get_layer("dense").kernel.constraint is None
    assert_sparsity(resumed, polynomial(16, 0.0, 0.8, 2, 20, 3, 3))
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        fit(resumed, Prune(SCHEDULE), initial_epoch=2)
    for a, b in zip(through.get_weights(), resumed.get_weights(), strict=True):
        assert a.tobytes() == b.tobytes()


def test_weights_restored_by_a_later_callback_are_the_ones_that_count(tmp_path):
    def backup():
        return keras.callbacks.BackupAndRestore(str(tmp_path / "backup"), delete_checkpoint=False)

    fit(compiled(small_dense()), backup(), Prune(SCHEDULE), epochs=2)
    model, watch = compiled(small_dense()), watcher(expected_zeros)
    fit(model, Prune(SCHEDULE), backup(), watch)
    assert int(model.optimizer.iterations) == 24
    assert watch.checked == 8 * 2 and not watch.off


def test_two_prunes_share_a_fit():
    model = compiled(small_dense())
    first = Prune(ConstantSparsity(0.25, 4), layers=lambda layer: layer.name == "dense")
    fit(model, first, Prune(ConstantSparsity(0.75, 0), layers=lambda layer: layer.name == "second"))
    for path, values in kernels(model).items():
        assert np.mean(values == 0) == (0.25 if path == "dense/kernel" else 0.75)
    assert_nothing_left(model)
    with pytest.raises(ValueError, match="is pruned or clustered by another callback"):
        fit(model, Prune(SCHEDULE), Prune(SCHEDULE))
    fit(model, epochs=1)
    assert_nothing_left(model)


def test_shared_frozen_lora_and_embedding_weights():
    shared = keras.layers.Dense(8, name="shared")
    frozen, lora = keras.layers.Dense(8, name="frozen", trainable=False), keras.layers.Dense(8, name="lora")
    x = keras.Input((6,), dtype="int32")
    y = keras.layers.Embedding(50, 8)(x)
    y = lora(frozen(shared(shared(y))))
    model = keras.Model(x, keras.layers.Dense(3)(keras.layers.GlobalAveragePooling1D()(y)))
    lora.enable_lora(2)
    before = np.asarray(frozen.kernel).copy()
    compiled(model)
    fit(model, Prune(ConstantSparsity(0.5, 0, frequency=2)))
    assert int(np.sum(np.asarray(shared.kernel) == 0)) == 32
    assert (np.asarray(frozen.kernel) == before).all()
    for weight in (lora.lora_kernel_a, lora.lora_kernel_b, model.layers[1].embeddings):
        assert np.asarray(weight).all()


def test_an_exported_and_reopened_model_keeps_the_zeros(tmp_path):
    model = compiled(small_dense())
    fit(model, Prune(SCHEDULE))
    model.export(str(tmp_path / "saved"), verbose=False)
    served = keras.layers.TFSMLayer(str(tmp_path / "saved"), call_endpoint="serve")
    np.testing.assert_allclose(served(TOKENS), model.predict(TOKENS, verbose=0), atol=1e-6)
    zeros = sum(int(np.sum(weight.numpy() == 0)) for weight in served.weights if len(weight.shape) > 1)
    assert zeros == sparsity_report(model, lambda layer: True).kernels.zeros


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Prune(0.5), TypeError, "PolynomialDecay or ConstantSparsity"),
        (lambda: Prune(SCHEDULE, block_size=(4,)), ValueError, "two positive integers"),
        (lambda: Prune(SCHEDULE, block_size=(0, 1)), ValueError, "two positive integers"),
        (lambda: Prune(SCHEDULE, block_pooling="SUM"), ValueError, "AVG"),
        (lambda: Prune(ConstantSparsity(0.5, 0), (4, 1), m_by_n=(2, 4)), ValueError, "not both"),
        (lambda: Prune(ConstantSparsity(0.5, 0), m_by_n=(4, 4)), ValueError, "m < n"),
        (lambda: Prune(SCHEDULE, m_by_n=(2, 4)), ValueError, "ConstantSparsity\\(0.5"),
        (lambda: Prune(ConstantSparsity(0.8, 0), m_by_n=(2, 4)), ValueError, "ConstantSparsity\\(0.5"),
        (lambda: Prune(SCHEDULE, layers="dense"), TypeError, "layer -> bool"),
    ],
)
def test_bad_arguments_say_what_is_wrong(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_a_fit_that_cannot_prune_says_so():
    model = compiled(small_dense())
    with pytest.raises(ValueError, match="3 layers with a prunable kernel the predicate chose 0"):
        fit(model, Prune(SCHEDULE, layers=lambda layer: "decoder" in layer.path))
    model.trainable = False
    with pytest.raises(ValueError, match="chose 2, 0 of them trainable"):
        fit(compiled(model), Prune(SCHEDULE))
    model.trainable = True
    with pytest.warns(UserWarning, match="ends at update 8 of the optimizer, before begin_step=500"):
        fit(compiled(model), Prune(ConstantSparsity(0.5, 500)), epochs=1)
    assert_nothing_left(model)
    callback = Prune(SCHEDULE)
    callback.set_model(small_dense())
    with pytest.raises(ValueError, match="Compile the model"):
        callback.on_train_begin()
