"""Importances equal what their definitions say, computed here in other ways."""

import numpy as np
import pytest
import tensorflow as tf
import tiny
from structured_cases import made_task, model, shared

from tfxformer import compression, tasks
from tfxformer.compression.smaller.importance import IMPORTANCES

pytestmark = pytest.mark.usefixtures("eager")
STEP = 1e-2


@pytest.fixture
def classifier(tiny_tokenizer):
    return made_task("TextClassifier", tiny_tokenizer)


def kernel(model, path):
    (variable,) = [v for v in model.weights if v.path == path]
    return variable


def losses(task, x, y):
    """The loss of each example, from the logits by numpy: float64 [B]."""
    logits = np.asarray(task(task.encode(x, sequence_length=16)), "float64")
    logits -= logits.max(axis=-1, keepdims=True)
    return np.log(np.exp(logits).sum(axis=-1)) - logits[np.arange(len(x)), task.encode_labels(y)]


def slopes(task, x, y, variables, part=slice(None), count=1):
    """|d loss / d scale| of each example, by differences: a part of the rows a little larger and a little smaller."""
    values, found = [v.numpy() for v in variables], []
    for sign in (1, -1):
        for variable, value in zip(variables, values, strict=True):
            rows = value.reshape(count, -1).copy()
            rows[part] *= 1 + sign * STEP
            variable.assign(rows.reshape(value.shape))
        found.append(losses(task, x, y))
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)
    return np.abs(found[0] - found[1]) / (2 * STEP)


@pytest.mark.parametrize(
    ("half", "count", "parts"), [("self_attention", 4, range(4)), ("feed_forward", 48, (0, 7, 31))]
)
def test_taylor_is_the_slope_of_the_loss(classifier, half, count, parts):
    task, data = classifier
    x, y = data[0][:3], data[1][:3]
    measure = compression.head_importance if half == "self_attention" else compression.neuron_importance
    found = measure(task, "taylor", (x, y), batch_size=2)
    assert found.shape == (2, count)
    for block in (0, 1):
        variable = kernel(task, f"encoder_block_{block}/{half}/output/kernel")
        wanted = [slopes(task, x, y, [variable], part, count).mean() for part in parts]
        np.testing.assert_allclose(found[block, parts], wanted, rtol=2e-2, atol=2e-5)


def test_taylor_of_layers_is_the_slope_of_all_that_they_add(classifier):
    task, (x, y) = classifier
    x, y = x[:3], y[:3]
    found = compression.layer_importance(task, "taylor", (x, y))
    for block in (0, 1):
        added = [v for v in task.weights if v.path.startswith(f"encoder_block_{block}/") and "/output/" in v.path]
        assert len(added) == 4
        np.testing.assert_allclose(found[block], slopes(task, x, y, added).mean(), rtol=2e-2, atol=2e-5)


def test_activation_is_the_size_of_what_a_part_adds(tiny_tokenizer):
    """By differences of outputs: what a block's half returns with a part, and without it."""
    embedder, _ = made_task("TextEmbedder", tiny_tokenizer)
    batch = tiny.inputs_for(embedder, seed=3)
    real = batch["padding_mask"] == 1
    heads = compression.head_importance(embedder, "activation", batch, batch_size=2)
    neurons = compression.neuron_importance(embedder, "activation", batch)
    states = embedder.backbone.forward(batch)["hidden_states"]
    block, bias = embedder.backbone.blocks[1], (1.0 - batch["padding_mask"])[:, None, None] * -1e9
    attended = block.self_attention(states[1], bias=tf.cast(bias, "float32"))
    stream = block.attention_norm(states[1] + attended)
    calls = {
        "self_attention": lambda: block.self_attention(states[1], bias=tf.cast(bias, "float32")),
        "feed_forward": lambda: block.feed_forward(stream),
    }
    for half, found, count, part in (("self_attention", heads, 4, 2), ("feed_forward", neurons, 48, 11)):
        call, layer = calls[half], getattr(block, half)
        before, variable = np.asarray(call()), layer.output_projection.kernel
        rows = variable.numpy().reshape(count, -1, 32)
        without = rows.copy()
        without[part] = 0.0
        variable.assign(without.reshape(variable.shape))
        added = (before - np.asarray(call()))[real]
        variable.assign(rows.reshape(variable.shape))
        np.testing.assert_allclose(found[1, part], np.sqrt((added**2).sum(-1).mean()), rtol=1e-4)


def test_magnitude_is_the_norm_of_the_weights_of_a_group():
    big = shared("llama")
    values = tiny.weights(big)
    found = compression.head_importance(big)
    assert found.shape == (3, 2)
    path = "decoder_block_1/self_attention/"
    own = [
        values[path + "query/kernel"][:, 16:],
        values[path + "key/kernel"][:, 8:],
        values[path + "value/kernel"][:, 8:],
        values[path + "output/kernel"][16:],
    ]
    np.testing.assert_allclose(found[1, 1], np.sqrt(sum((x.astype("float64") ** 2).sum() for x in own)), rtol=1e-6)
    path = "decoder_block_1/feed_forward/"
    own = [values[f"{path}{name}/kernel"][:, 5] for name in ("gate", "expand")] + [values[f"{path}output/kernel"][5]]
    wanted = np.sqrt(sum((x.astype("float64") ** 2).sum() for x in own))
    np.testing.assert_allclose(compression.neuron_importance(big)[1, 5], wanted, rtol=1e-6)


def test_shared_weights_are_one_block():
    """ALBERT's gates are those of all layers that a block serves: the slope of scaling its rows once."""
    albert = model("albert")
    assert compression.head_importance(albert).shape == (1, 4)
    classifier = tiny.perturb(tasks.TextClassifier(albert, labels=["a", "b"]))
    batch, labels = tiny.inputs_for(classifier, rows=1), np.array([1])
    found = compression.head_importance(classifier, "taylor", (batch, labels))
    variable = kernel(classifier, "encoder_block_0/self_attention/output/kernel")
    rows, losses = variable.numpy().reshape(4, -1, 32), []
    for sign in (1, -1):
        changed = rows.copy()
        changed[2] *= 1 + sign * STEP
        variable.assign(changed.reshape(variable.shape))
        losses.append(classifier.evaluate(batch, labels, verbose=0)[0])
    np.testing.assert_allclose(found[0, 2], abs(losses[0] - losses[1]) / (2 * STEP), rtol=2e-2, atol=2e-5)


def test_data_come_as_texts_arrays_or_datasets(classifier):
    task, (texts, labels) = classifier
    task.sequence_length, texts, labels = 16, texts[:8], labels[:8]
    batch, ids = task.encode(texts), task.encode_labels(labels)
    datasets = tf.data.Dataset.from_tensor_slices((batch, ids)).batch(5)
    for importance in ("taylor", "activation"):
        wanted = compression.head_importance(task, importance, (texts, labels))
        for data in ((batch, ids), datasets):
            found = compression.head_importance(task, importance, data, batch_size=3)
            np.testing.assert_allclose(found, wanted, rtol=1e-4)
    np.testing.assert_allclose(compression.head_importance(task, "activation", texts), wanted, rtol=1e-4)
    bare = compression.head_importance(task.backbone, "activation", batch)
    np.testing.assert_allclose(bare[:1], wanted[:1], rtol=1e-4)  # in the last block the classifier reads one token
    np.testing.assert_allclose(compression.head_importance(task.backbone, "activation", datasets), bare, rtol=1e-4)


def test_nothing_is_left_in_the_model(classifier):
    task, data = classifier
    task.compile(metrics=[])
    before, wanted = tiny.weights(task), task.predict(data[0], verbose=0)
    loss = task.evaluate(*data, verbose=0)
    for importance in IMPORTANCES:
        compression.neuron_importance(task, importance, data)
    assert not any("call" in layer.__dict__ for layer in task._flatten_layers())
    np.testing.assert_array_equal(task.predict(data[0], verbose=0), wanted)
    assert task.evaluate(*data, verbose=0) == loss
    after = tiny.weights(task)
    assert all((after[path] == value).all() for path, value in before.items())


def test_bad_data_are_refused(classifier):
    task, (texts, labels) = classifier
    measure = compression.head_importance
    with pytest.raises(ValueError, match="Unknown importance 'hessian'; known: magnitude, taylor, activation"):
        measure(task, "hessian")
    with pytest.raises(ValueError, match="needs data=\\(texts, labels\\)"):
        measure(task, "taylor")
    with pytest.raises(ValueError, match="needs data: texts"):
        measure(task, "activation")
    with pytest.raises(ValueError, match="a bare Encoder has none: give the task"):
        measure(task.backbone, "taylor", (texts, labels))
    for importance in ("taylor", "activation"):
        with pytest.raises(ValueError, match="dataset is empty"):
            measure(task, importance, ([], []))
    empty = tf.data.Dataset.from_tensor_slices((tiny.inputs_for(task), [0, 1, 0])).take(0).batch(2)
    nothing = {name: ids[:0] for name, ids in tiny.inputs_for(task).items()}
    for importance, data in (("taylor", empty), ("activation", empty), ("activation", nothing)):
        with pytest.raises(ValueError, match="data are empty"):
            measure(task, importance, data)
    endless = tf.data.Dataset.from_tensor_slices((tiny.inputs_for(task), [0, 1, 0])).batch(2).repeat()
    for importance in ("taylor", "activation"):
        with pytest.raises(ValueError, match="never ends"):
            measure(task, importance, endless)
    with pytest.raises(TypeError, match="Texts are read by a task"):
        measure(task.backbone, "activation", texts)
    with pytest.raises(TypeError, match="reads batches with token_ids"):
        measure(task, "activation", {"ids": np.ones((2, 4), "int32")})
