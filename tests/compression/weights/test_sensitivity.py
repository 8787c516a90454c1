"""What a kernel alone loses, compared with numpy; and a model that is bit for bit what it was."""

import itertools
import json

import keras
import numpy as np
import pytest
import tensorflow as tf
import tiny
from pruning_cases import LABELS, TOKENS, largest, small_transformer

from tfxformer import tasks
from tfxformer.compression import Prune, SensitivityReport, sensitivity
from tfxformer.compression.pruning.sparsity_schedules import ConstantSparsity
from tfxformer.compression.weights.sensitivity import KernelSensitivity

RNG = np.random.default_rng(2)
X, Y = RNG.normal(size=(40, 6)).astype("float32"), RNG.normal(size=(40, 3)).astype("float32")


def linear_layers():
    x = keras.Input((6,))
    model = keras.Model(x, keras.layers.Dense(3, name="two")(keras.layers.Dense(8, name="one")(x)))
    tiny.perturb(model)
    model.compile("sgd", "mse", metrics=["mae"])
    return model


def snapshot(model):
    return [np.asarray(tf.convert_to_tensor(v.value)).tobytes() for v in (*model.variables, *model.optimizer.variables)]


def everything(layer):
    return True


@pytest.mark.parametrize("data", ["arrays", "dataset"])
def test_losses_computed_by_hand(data):
    model = linear_layers()
    one, bias_one, two, bias_two = model.get_weights()
    before = snapshot(model)
    given = (X, Y) if data == "arrays" else tf.data.Dataset.from_tensor_slices((X, Y)).batch(16)
    report = sensitivity(model, given, sparsities=(0.75, 0.25), layers=everything, batch_size=16)
    assert snapshot(model) == before

    def mse(one, two):
        return np.mean(np.square((X @ one + bias_one) @ two + bias_two - Y))

    assert report.baseline == pytest.approx(mse(one, two), rel=1e-5)
    wanted = [("one/kernel", s, mse(one * largest(np.abs(one), s), two)) for s in (0.25, 0.75)]
    wanted += [("two/kernel", s, mse(one, two * largest(np.abs(two), s))) for s in (0.25, 0.75)]
    for row, (path, sparsity, value) in zip(report.rows, wanted, strict=True):
        assert (row.path, row.sparsity) == (path, sparsity)
        assert row.value == pytest.approx(value, rel=1e-5)
        assert row.lost == pytest.approx(value - mse(one, two), rel=1e-3)
    assert [row.parameters for row in report.rows] == [48, 48, 24, 24]


def test_metrics_of_either_direction():
    model = linear_layers()
    mae = sensitivity(model, (X, Y), "mae", (0.5,), layers=everything, higher_is_better=False)
    assert mae.baseline == pytest.approx(np.abs(model.predict(X, verbose=0) - Y).mean(), rel=1e-5)

    def agreement(m):
        return -np.abs(m.predict(X, verbose=0) - Y).mean()

    other = sensitivity(model, metric=agreement, sparsities=(0.5,), layers=everything)
    assert other.metric == "agreement"
    assert [row.lost for row in other.rows] == pytest.approx([row.lost for row in mae.rows], rel=1e-4)


class BrokenError(Exception):
    pass


def test_an_exception_leaves_the_model_as_it_was():
    model = linear_layers()
    before, calls = snapshot(model), itertools.count()

    def breaks(m):
        if next(calls) == 2:
            assert snapshot(m) != before
            raise BrokenError
        return 1.0

    with pytest.raises(BrokenError):
        sensitivity(model, metric=breaks, layers=everything)
    assert snapshot(model) == before


def test_kernels_of_any_rank_and_frozen_ones():
    model = small_transformer()
    model.get_layer("dense").trainable = False
    model.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"])
    report = sensitivity(model, (TOKENS, LABELS), "accuracy", (0.5,))
    assert len(report.rows) == 6 and "dense/kernel" in report.by_kernel and "head/kernel" not in report.by_kernel
    hits = model.predict(TOKENS, verbose=0).argmax(-1) == LABELS
    assert report.baseline == pytest.approx(hits.mean())


@pytest.mark.usefixtures("plain_kernels")
def test_a_task_measures_texts(tiny_tokenizer):
    task = tasks.TextClassifier(
        tiny.backbone(encoder__num_layers=1), ["negative", "positive"], tokenizer=tiny_tokenizer
    )
    tiny.perturb(task)
    before = tiny.weights(task)
    chosen = sensitivity(task, (tiny.TEXTS, tiny.LABELS), "accuracy", layers=lambda layer: "attention" in layer.path)
    assert len(chosen.by_kernel) == 4
    for path, values in tiny.weights(task).items():
        np.testing.assert_array_equal(values, before[path])


def report_of(table):
    """A report of {path: (parameters, {sparsity: lost})}."""
    rows = [
        KernelSensitivity(path, (parameters,), parameters, sparsity, 1.0 + lost, lost)
        for path, (parameters, losses) in table.items()
        for sparsity, lost in losses.items()
    ]
    return SensitivityReport("loss", 1.0, tuple(rows))


@pytest.mark.parametrize("wanted", [0.1, 0.3, 0.5, 0.7, 0.75])
def test_the_choice_loses_least_of_all_that_reach_the_sparsity(wanted):
    rng = np.random.default_rng(int(wanted * 100))
    sparsities = (0.25, 0.5, 0.75)
    table = {
        f"{name}/kernel": (int(size), dict(zip(sparsities, np.sort(rng.normal(0.1, 0.1, 3)), strict=True)))
        for name, size in zip("abcd", (100, 40, 300, 10), strict=True)
    }
    chosen = report_of(table).choose(wanted)
    total = sum(size for size, _ in table.values())

    def reached(choice):
        return sum(table[path][0] * sparsity for path, sparsity in choice.items()) / total

    def most(choice):
        return max([0.0, *(table[path][1][s] for path, s in choice.items() if s)])

    assert reached(chosen) >= wanted - 1e-9
    every = (dict(zip(table, c, strict=True)) for c in itertools.product((0.0, *sparsities), repeat=len(table)))
    assert most(chosen) == min(most(choice) for choice in every if reached(choice) >= wanted - 1e-9)


def test_a_choice_is_pruned_by_one_callback_for_each_sparsity():
    model = linear_layers()
    chosen = sensitivity(model, (X, Y), layers=everything).choose(0.5)
    callbacks = [
        Prune(ConstantSparsity(sparsity, 0), layers=lambda layer, s=sparsity: chosen[layer.kernel.path] == s)
        for sparsity in sorted(set(chosen.values()) - {0.0})
    ]
    model.fit(X, Y, verbose=0, callbacks=callbacks)
    for layer in model.layers[1:]:
        assert np.mean(np.asarray(layer.kernel) == 0) == chosen[layer.kernel.path]


def test_it_prints_draws_and_goes_into_json(tmp_path):
    report = report_of({"a/kernel": (4, {0.5: 0.125}), "longer/kernel": (8, {0.5: -0.25})})
    assert str(report).splitlines()[-2:] == ["a/kernel         0.1250", "longer/kernel   -0.2500"]
    assert json.loads(json.dumps(report.to_dict()))["rows"][1]["lost"] == -0.25
    report.plot(tmp_path / "sensitivity.png")
    assert (tmp_path / "sensitivity.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"sparsities": (0.5, 1.0)}, ValueError, "above 0 and below 1"),
        ({"sparsities": ()}, ValueError, "above 0 and below 1"),
        ({"sparsities": 0.5}, ValueError, "above 0 and below 1"),
        ({"data": None}, ValueError, "needs data"),
        ({"metric": "accuracy"}, ValueError, "no 'accuracy'; it gives: .*loss"),
        ({"metric": 3}, TypeError, "a name of evaluate's results or a function"),
        ({"metric": len}, ValueError, "leave data=None"),
        ({"data": None, "metric": lambda m: "good"}, TypeError, "one number; got 'good'"),
        ({"layers": lambda layer: False}, ValueError, "chose no kernel; the model's are: one/kernel, two/kernel"),
    ],
)
def test_bad_arguments_say_what_is_wrong(arguments, error, message):
    with pytest.raises(error, match=message):
        sensitivity(linear_layers(), **{"data": (X, Y), "layers": everything, **arguments})
    with pytest.raises(ValueError, match=r"highest one measured is 0\.5"):
        report_of({"a/kernel": (4, {0.5: 0.1})}).choose(0.6)
