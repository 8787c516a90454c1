"""tpu_check with libtpu's compiler, which is here without a TPU: small models, seconds each."""

import contextlib
import importlib.util
import json

import keras
import numpy as np
import pytest
import tensorflow as tf
import tiny

from tfxformer import tasks, training
from tfxformer.backend import BackendError
from tfxformer.layers.kernels import clusters
from tfxformer.training.memory import lowering, tpu_compiler

ABSENT = [name for name in ("jax", "libtpu") if importlib.util.find_spec(name) is None]


def needs_compiler(test):
    absent = pytest.mark.skipif(
        bool(ABSENT), reason=f'{", ".join(ABSENT)} not installed: pip install -e ".[tpu-check]"'
    )
    return pytest.mark.extra(absent(test))


LENGTH = 16


def tokens(length=LENGTH, dtype="int32"):
    return tf.TensorSpec((None, length), dtype)


def masked_lm(**compile_arguments):
    model = tasks.MaskedLM(tiny.backbone("bert", dtype="mixed_bfloat16", encoder__num_layers=1))
    model.compile(**compile_arguments)
    return model, (dict.fromkeys(model.input, tokens()), tokens(), tokens(dtype="float32"))


def dense(width=256, layer=None, model_class=keras.Model, optimizer="sgd"):
    """A plain Keras model whose memory is easily counted."""
    inputs = keras.Input((width,))
    x = keras.layers.Dense(width, name="before")(inputs)
    x = x if layer is None else layer(x)
    for index in range(3):
        x = keras.layers.Dense(width, activation="relu", name=f"dense_{index}")(x)
    model = model_class(inputs, keras.layers.Dense(1, name="after")(x))
    model.compile(optimizer, "mse")
    return model, (tf.TensorSpec((None, width)), tf.TensorSpec((None, 1)))


def bytes_of(variables):
    return sum(variable.value.dtype.size * variable.value.shape.num_elements() for variable in variables)


# ---- lowering: without the compiler --------------------------------------------------------------------------------


class Strings(keras.layers.Layer):
    def call(self, x):
        return x + tf.strings.to_number(tf.strings.as_string(x))


class Python(keras.layers.Layer):
    def call(self, x):
        found = tf.py_function(lambda value: value + 1.0, [x], tf.float32)
        return x + tf.ensure_shape(found, x.shape)


@pytest.mark.parametrize(
    ("layer", "operation", "way_out"),
    [(Strings, "AsString", "stay on the host"), (Python, "EagerPyFunc", "Python does not run on a TPU")],
)
def test_what_cannot_be_lowered_is_named_with_its_layer(layer, operation, way_out):
    model, spec = dense(layer=layer(name="odd_one"))
    step = lowering.training_steps(model, spec)["train"]
    with pytest.raises(training.LoweringError, match=way_out) as raised:
        lowering.Lowering(model, step).module(8)
    ((found, where),) = raised.value.operations
    assert found == operation
    assert "odd_one" in where
    assert "odd_one" in str(raised.value)


def test_one_trace_serves_every_batch_size():
    model, spec = masked_lm()
    step = lowering.training_steps(model, spec)["train"]
    once = lowering.Lowering(model, step)
    fixed = tf.nest.map_structure(lambda one: tf.TensorSpec((24, *one.shape[1:]), one.dtype), spec)
    of_this_size = lowering.Lowering(model, step._replace(specs=fixed))
    assert len(once.module(24)) == pytest.approx(len(of_this_size.module(24)), rel=0.01)
    assert once.module(8) != once.module(24)


def test_nothing_is_run_and_nothing_changes():
    model, spec = masked_lm()
    before = tiny.weights(model)
    steps = lowering.training_steps(model, spec)
    for step in steps.values():
        lowering.Lowering(model, step).module(4)
    for path, value in tiny.weights(model).items():
        np.testing.assert_array_equal(value, before[path])
    assert int(model.optimizer.iterations) == 0


def test_tasks_are_traced_as_on_a_tpu():
    assert clusters.use_clusters() == (not tf.config.list_physical_devices("GPU"))
    with clusters.plain_operations():
        assert not clusters.use_clusters()
    model, spec = masked_lm()
    once = lowering.Lowering(model, lowering.training_steps(model, spec)["train"])
    model.as_on_accelerators = contextlib.nullcontext
    with_clusters = lowering.Lowering(model, lowering.training_steps(model, spec)["train"])
    nested = [len(one._concrete.graph.as_graph_def().library.function) for one in (once, with_clusters)]
    assert nested[0] < nested[1]


def test_a_model_must_be_compiled():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    with pytest.raises(ValueError, match="compile it first"):
        lowering.training_steps(model, (tf.TensorSpec((None, 4)), tf.TensorSpec((None, 1))))


def test_a_mesh_is_refused_on_tensorflow():
    model, spec = dense(8)
    for refused in (training.tpu_check, training.fit_estimate):
        with pytest.raises(
            BackendError, match=r"needs Keras on JAX, and it runs on tensorflow: set .*KERAS_BACKEND=jax"
        ):
            refused(model, spec, mesh=(1, 1), batch_size=8)
    with pytest.raises(BackendError, match="KERAS_BACKEND=jax"), training.shapes_only():
        dense(8)


# ---- what the compiler says ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "needed", "there"),
    [
        ("temporaries (30.31G) exceeds available HBM (15.75G). HLO", 30.31 * 2**30, 15.75 * 2**30),
        ("temporaries (8.00T) exceeds available HBM (31.24G). HLO", 8 * 2**40, 31.24 * 2**30),
    ],
)
def test_a_refusal_is_read(said, needed, there):
    assert tpu_compiler._amounts(said) == (round(needed), round(there))
    assert tpu_compiler._amounts("something else (1G)") is None


def test_an_absent_compiler_names_the_extra():
    error = tpu_compiler._start_error("v5e:1x1", "No module named 'jax'", "ModuleNotFoundError")
    assert isinstance(error, ImportError)
    assert "tfxformer[tpu-check]" in str(error)


@needs_compiler
def test_a_task_at_given_batches_and_one_too_large():
    model, spec = masked_lm()
    lines = []
    report = training.tpu_check(model, spec, batch_size=[8, 2**22], progress=lines.append)
    small, large, evaluated = report.steps
    assert (report.device, report.chips) == ("TPU v5 lite", 1)
    assert report.memory_bytes == round(15.75 * 2**30)
    assert small.fits and evaluated.fits and not large.fits
    assert (evaluated.step, evaluated.batch_size) == ("eval", 8)
    assert large.needed_bytes > report.memory_bytes
    assert "exceeds available HBM (15.75G)" in large.message  # the compiler's own words
    assert not report.fits
    # Arguments are what the step reads: weights, slots, metrics and the batch, some padded to the chip's tiles.
    least = bytes_of(model.variables) + bytes_of(model.optimizer.variables)
    assert least < small.argument_bytes < 2 * least + 2**20
    assert small.argument_bytes <= small.peak_bytes
    # A product's FLOPs are 2 * rows * in * out; the backward pass has twice those of the forward pass.
    kernels_ = [v for v in model.trainable_variables if v.path.endswith("kernel")]
    products = sum(int(np.prod(v.shape)) for v in kernels_) + tiny.VOCABULARY_SIZE * 32
    assert 0.9 * 6 < small.flops / (8 * LENGTH * products) < 2 * 6
    assert evaluated.flops < 0.5 * small.flops
    assert any("batch 4194304" in line for line in lines)
    assert json.loads(json.dumps(report.to_dict()))["steps"][1]["fits"] is False
    assert "nothing was run on a TPU" in str(report) and "does not fit" in str(report)


@needs_compiler
def test_gradients_are_complete_before_the_update():
    """As TPUStrategy runs the two: the peak has room for all gradients beside the weights, clipping or not."""
    model, spec = dense(1024, model_class=training.DistributedModel)
    report = training.tpu_check(model, spec, batch_size=8)
    weights = bytes_of(model.trainable_variables)
    assert report.steps[0].peak_bytes > 1.9 * weights


@needs_compiler
def test_accumulation_keeps_its_sums():
    plain, spec = dense(512, model_class=training.DistributedModel)
    summing, _ = dense(
        512, model_class=training.DistributedModel, optimizer=keras.optimizers.SGD(0.1, gradient_accumulation_steps=4)
    )
    once, four = (training.tpu_check(model, spec, batch_size=16) for model in (plain, summing))
    weights = bytes_of(plain.trainable_variables)
    grown = four.steps[0].argument_bytes - once.steps[0].argument_bytes
    assert grown == pytest.approx(weights, rel=0.1)
    assert any("of 4 that an update accumulates" in note for note in four.notes)


@needs_compiler
def test_several_chips_share_a_batch():
    model, spec = dense()
    report = training.tpu_check(model, spec, topology="v6e:2x2", batch_size=64)
    assert (report.device, report.chips, report.steps[0].batch_size) == ("TPU v6 lite", 4, 16)
    assert any("all-reduce" in note and "Not included" in note for note in report.notes)
    with pytest.raises(ValueError, match="cannot be shared by the 4 chips"):
        training.tpu_check(model, spec, topology="v5e:2x2", batch_size=30)


@needs_compiler
@pytest.mark.slow
def test_the_largest_batch_is_found():
    inputs = keras.Input((2**20,))  # 4 MiB a sample
    model = keras.Model(inputs, keras.layers.Dense(1)(keras.ops.mean(inputs * inputs, axis=1, keepdims=True)))
    model.compile("sgd", "mse")
    spec = (tf.TensorSpec((None, 2**20)), tf.TensorSpec((None, 1)))
    report = training.tpu_check(model, spec, search_seconds=60)
    found, refused = report.largest_batch, report.refused_batch
    assert found % 8 == 0 and refused > found
    train = report.steps[0]
    assert train.batch_size == found
    assert train.fits and train.peak_bytes <= report.memory_bytes
    assert train.peak_bytes > 0.5 * report.memory_bytes
    assert [check.fits for check in report.search if check.batch_size == refused] == [False]
    assert str(found) in str(report)


@needs_compiler
def test_a_step_that_cannot_be_lowered_is_reported():
    model, spec = dense(layer=Strings(name="odd_one"))
    report = training.tpu_check(model, spec, batch_size=8)
    assert not report.fits
    assert "AsString" in report.steps[0].message and "odd_one" in report.steps[0].message


@needs_compiler
@pytest.mark.parametrize(
    "topology", ["v5e:3x1", *(pytest.param(name, marks=pytest.mark.slow) for name in ("v9e:1x1", "nonsense"))]
)
def test_an_unknown_topology(topology):
    model, spec = dense(8)
    with pytest.raises(ValueError, match=r"Unknown topology .*v5e:1x1"):
        training.tpu_check(model, spec, topology=topology, batch_size=8)


@needs_compiler
def test_a_compiler_that_dies_is_told_of():
    with tpu_compiler.Compiler("v5e:1x1") as compiler:
        compiler._process.kill()
        with pytest.raises((training.CompilerError, BrokenPipeError)):
            compiler.compile(b"")
    with tpu_compiler.Compiler("v5e:1x1") as compiler, pytest.raises(training.CompilerError, match="fails"):
        compiler.compile(b"no program")


@needs_compiler
def test_a_compiler_without_an_answer_is_left(monkeypatch):
    monkeypatch.setattr(tpu_compiler, "COMPILE_SECONDS", 0.01)
    model, spec = masked_lm()
    report = training.tpu_check(model, spec, batch_size=8)
    assert not report.fits
    assert "gave no answer" in report.steps[0].message and "smaller batch" in report.steps[0].message
