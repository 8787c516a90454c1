"""What every layer, model and task must hold: a new one gets its whole battery in ten lines."""

import contextlib
import json
import warnings

import keras
import numpy as np
import tiny
from optional_tensorflow import tf

import tfxformer
from tfxformer import checkpoints
from tfxformer.layers import GraphForm

HALF_TOLERANCES = {"mixed_bfloat16": 5e-2, "mixed_float16": 6e-3}


def numpy_of(outputs):
    """A nest of tensors as float32 numpy arrays."""
    return keras.tree.map_structure(lambda x: keras.ops.convert_to_numpy(keras.ops.cast(x, "float32")), outputs)


def assert_close(actual, wanted, tolerance):
    """Every leaf of two nests within an absolute tolerance of the largest wanted value (at least 1)."""
    keras.tree.assert_same_structure(actual, wanted)
    for a, b in zip(keras.tree.flatten(actual), keras.tree.flatten(wanted), strict=True):
        assert a.shape == b.shape
        assert np.isfinite(a).all()
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * max(1.0, np.abs(b).max()))


def copy_weights(source, target):
    """Gives a layer the values of another of the same structure (random generators keep their own)."""
    pairs = zip(source.variables, target.variables, strict=True)
    for ours, theirs in pairs:
        assert ours.path.split("/")[1:] == theirs.path.split("/")[1:]
        theirs.assign(keras.ops.cast(ours.value, theirs.dtype))


def check_layer(make, *inputs, half=True, **arguments):
    """Config round trip, `.keras` file's worth of state, XLA, half precision, and nothing random outside training.

    Args:
        make: (dtype policy or None) -> a new layer.
        inputs: numpy arrays or nests of them, the layer's positional arguments.
        half: whether to run the mixed policies too.
        arguments: further arguments of its call.
    """
    layer = make(None)
    layer(*inputs, **arguments)
    tiny.perturb(layer)
    wanted = numpy_of(layer(*inputs, **arguments))
    assert_close(numpy_of(layer(*inputs, **arguments)), wanted, 0.0)  # nothing random

    described = json.loads(json.dumps(keras.layers.serialize(layer)))
    again = keras.layers.deserialize(described)
    assert json.loads(json.dumps(keras.layers.serialize(again))) == described
    again(*inputs, **arguments)
    copy_weights(layer, again)
    assert_close(numpy_of(again(*inputs, **arguments)), wanted, 0.0)

    compiled = tf.function(lambda *x: layer(*x, **arguments), jit_compile=True)
    assert_close(numpy_of(compiled(*map(_tensors, inputs))), wanted, 2e-5)

    for policy, tolerance in HALF_TOLERANCES.items() if half else ():
        low = make(policy)
        low(*inputs, **arguments)
        assert all(v.dtype == "float32" for v in low.trainable_variables)
        copy_weights(layer, low)
        assert_close(numpy_of(low(*inputs, **arguments)), wanted, tolerance)


def _tensors(nest):
    return keras.tree.map_structure(tf.convert_to_tensor, nest)


def check_model(make, tmp_path, half=True, xla=True):
    """What every encoder or task holds as a Keras model, given `make(dtype=None) -> model` with the same weights.

    Padding invariance, other graph_form, XLA, half precision, `.keras` files, JSON configs.
    """
    model = make()
    inputs = tiny.inputs_for(model)
    wanted = numpy_of(model(inputs))

    check_padding(model, inputs)
    written = model.forward(_tensors(inputs), GraphForm(mask_value=-40.0, layer_norm="product", embedding="gather"))
    if isinstance(written, dict):  # an encoder gives its hidden states too
        written = {name: written[name] for name in wanted}
    assert_close(_valid(numpy_of(written), inputs), _valid(wanted, inputs), 1e-5)
    if half and xla:  # one family's graph for all, and one task's for those whose head is a dense layer
        with steps(eager=False):
            assert_close(numpy_of(tf.function(model, jit_compile=True)(_tensors(inputs))), wanted, 2e-5)

    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert type(again) is type(model)
    assert_close(numpy_of(again(inputs)), wanted, 0.0)
    json.dumps(keras.saving.serialize_keras_object(model))

    for policy, tolerance in HALF_TOLERANCES.items() if half else ():
        low = make(dtype=policy)
        assert {v.dtype for v in low.trainable_variables} == {"float32"}
        assert_close(_valid(numpy_of(low(inputs)), inputs), _valid(wanted, inputs), tolerance)
    return model


def _valid(outputs, inputs):
    """Outputs with zeros where the batch is padded: what is computed there is nobody's business."""
    mask = inputs["padding_mask"]

    def keep(array):
        if array.ndim >= 2 and array.shape[:2] == mask.shape:
            return array * mask.reshape(*mask.shape, *[1] * (array.ndim - 2))
        return array

    return keras.tree.map_structure(keep, outputs)


def check_padding(model, inputs, amount=9):
    """More padding changes nothing on the right, at any valid position."""
    config = getattr(model, "backbone", model).config
    fill = {"token_ids": config.padding_id}
    wider = {
        name: np.pad(array, ((0, 0), (0, amount)), constant_values=fill.get(name, 0)) for name, array in inputs.items()
    }
    length = inputs["token_ids"].shape[1]

    def cut(array):
        return array[:, :length] if array.ndim >= 2 and array.shape[1] == length + amount else array

    actual = keras.tree.map_structure(cut, numpy_of(model(wider)))
    assert_close(_valid(actual, inputs), _valid(numpy_of(model(inputs)), inputs), 1e-5)


@contextlib.contextmanager
def steps(eager: bool):
    """Runs steps op by op, or as the graphs that users run, whatever the tests around do."""
    before = tf.config.functions_run_eagerly()
    tf.config.run_functions_eagerly(eager)
    try:
        yield
    finally:
        tf.config.run_functions_eagerly(before)


def check_task(task, x, y, tmp_path, *, same=None, predict=None):
    """What every task holds with texts: a traced `fit`, `.keras` files with tokenizer and state, checkpoint folders.

    Args:
        task: with a tokenizer, not yet fitted.
        x, y: raw examples and targets (or None).
        same: (predictions, predictions) -> None, asserts that two predictions are equal; None compares arrays.
        predict: (task, examples) -> predictions; None for those of the task's `predict`.
    """
    predict = predict or (lambda task, asked: task.predict(asked, verbose=0))
    same = same or (lambda a, b: np.testing.assert_array_equal(a, b))
    before = tiny.weights(task)
    with steps(eager=False):
        history = task.fit(x, y, batch_size=8, epochs=2, verbose=0, shuffle=False)
    losses = history.history["loss"]
    assert len(losses) == 2 and np.isfinite(losses).all()
    assert task.sequence_length and task.sequence_length % 16 == 0
    after = tiny.weights(task)
    assert any((before[name] != after[name]).any() for name in before)

    asked = x[:3]
    predicted = predict(task, asked)
    task.save(tmp_path / "task.keras")
    opened = keras.saving.load_model(tmp_path / "task.keras")
    same(predict(opened, asked), predicted)
    assert opened.tokenizer == task.tokenizer
    assert opened.sequence_length == task.sequence_length
    assert getattr(opened, "labels", None) == getattr(task, "labels", None)
    assert opened.compiled and int(opened.optimizer.iterations) == int(task.optimizer.iterations)
    for ours, theirs in zip(task.optimizer.variables, opened.optimizer.variables, strict=True):
        np.testing.assert_array_equal(np.asarray(ours), np.asarray(theirs))

    folder = task.save_pretrained(tmp_path / "folder")
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a head that is new or unused would be said
        reopened = type(task).from_pretrained(folder)
    check_same_weights(reopened, task)
    same(predict(reopened, asked), predicted)
    assert reopened.sequence_length == task.sequence_length
    return opened


def check_same_weights(actual, wanted):
    """Bit for bit; a pooler that no output reads is not saved."""
    actual, wanted = tiny.weights(actual), tiny.weights(wanted)
    wanted = {path: value for path, value in wanted.items() if path in actual or not path.startswith("pooler/")}
    assert actual.keys() == wanted.keys()
    for path, value in wanted.items():
        np.testing.assert_array_equal(actual[path], value, err_msg=path)


def check_round_trip(folder, model, tmp_path):
    """A checkpoint read and saved again has the very tensors and names it was read from, and no key less."""
    config = json.loads((folder / "config.json").read_text())
    if isinstance(model, tfxformer.models.Encoder):
        saved = checkpoints.save_pretrained(tmp_path / "saved", model, model.config, reference_config=config)
    else:
        saved = model.save_pretrained(tmp_path / "saved")
    written = json.loads((saved / "config.json").read_text())
    assert not {key: value for key, value in config.items() if key not in written}
    return saved
