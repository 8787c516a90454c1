"""Event files read back, against gradients taken by hand."""

import importlib.util
import json
import sys

import keras
import numpy as np
import pytest
import replicas
import strategy_processes
import tensorflow as tf
import watching_behaviour

from tfxformer.training import DistributedModel, TensorBoard, Throughput, WarmupLinear
from tfxformer.training.callbacks.gradient_norms import weight_norms

if importlib.util.find_spec("tensorboard") is None:
    pytest.skip("the extra [tensorboard] is not installed", allow_module_level=True)

VOCABULARY, LENGTH, BATCH, BATCHES, RATE = 12, 6, 4, 5, 0.5
RNG = np.random.default_rng(0)
IDS = RNG.integers(0, VOCABULARY, (BATCH * BATCHES, LENGTH)).astype("int32")  # rows of one id within a batch
LABELS = (IDS[:, 0] % 3).astype("int32")
CLIP = 0.05


def make(base=DistributedModel, loss_scaling=False, steps=None, rate=RATE, **compiled):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((LENGTH,), dtype="int32")
    x = keras.layers.Embedding(VOCABULARY, 8, name="table")(inputs)
    x = keras.layers.Dense(8, "tanh", name="hidden")(x)
    model = base(inputs, keras.layers.Dense(3, name="head")(keras.layers.GlobalAveragePooling1D()(x)))
    optimizer = keras.optimizers.SGD(rate, global_clipnorm=CLIP, gradient_accumulation_steps=steps)
    if loss_scaling:
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer, initial_scale=2.0**8)
    model.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True), **compiled)
    return model


def fit(model, *callbacks, **arguments):
    arguments = {"epochs": 2, "batch_size": BATCH, "shuffle": False, "verbose": 0, **arguments}
    return model.fit(IDS, LABELS, callbacks=list(callbacks), **arguments)


def read(folder, run="train"):
    """Tag -> {step: value} of all event files of a run."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / run), size_guidance={"tensors": 0}).Reload()
    return {
        tag: {one.step: tf.make_ndarray(one.tensor_proto) for one in events.Tensors(tag)}
        for tag in events.Tags()["tensors"]
    }


def by_hand(steps=1, epochs=2):
    """Norms (of all, of the three layers) of every update, from a loop with a tape and clipping in numpy."""
    model, norms = make(), []
    sums, rows = [0.0] * 5, 0
    for index in range(epochs * BATCHES):
        part = slice(index % BATCHES * BATCH, (index % BATCHES + 1) * BATCH)
        with tf.GradientTape() as tape:
            losses = keras.losses.sparse_categorical_crossentropy(LABELS[part], model(IDS[part]), from_logits=True)
            loss = tf.reduce_sum(losses)
        gradients = tape.gradient(loss, model.trainable_weights)
        sums = [so_far + np.array(tf.convert_to_tensor(one)) for so_far, one in zip(sums, gradients, strict=True)]
        rows += BATCH
        if (index + 1) % steps:
            continue
        table, *others = (gradient / rows for gradient in sums)
        squares = [float((g.astype("float64") ** 2).sum()) for g in (table, *others)]
        norm = np.sqrt(sum(squares))
        norms.append([norm, np.sqrt(squares[0]), np.sqrt(sum(squares[1:3])), np.sqrt(sum(squares[3:]))])
        for weight, gradient in zip(model.trainable_weights, (table, *others), strict=True):
            weight.assign_sub(RATE * gradient * min(1.0, CLIP / norm))
        sums, rows = [0.0] * 5, 0
    return np.array(norms), model.get_weights()


@pytest.mark.parametrize(
    "options",
    [
        {"base": keras.Model},
        {},
        {"loss_scaling": True},
        {"base": keras.Model, "loss_scaling": True},
        pytest.param({"base": keras.Model, "loss_scaling": True, "jit_compile": True}, marks=pytest.mark.slow),
        {"steps": 2},
        pytest.param({"steps": 2, "jit_compile": True}, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_gradient_norms_are_those_of_a_tape(options, tmp_path):
    """Of every batch and of the epoch, of all and by layer, before clipping; and they change no weight."""
    if options.get("base") is keras.Model:  # Keras clips by the rows of the table's gradient before they are summed
        norms, weights = None, None
    else:
        norms, weights = by_hand(options.get("steps", 1))
    model = make(**options)
    fit(model, TensorBoard(tmp_path, update_freq=1, gradient_norms="layers"))
    found = read(tmp_path)
    tags = ["", "/table", "/hidden", "/head"]
    batches = np.array([list(found[f"batch_gradient_norm{tag}"].values()) for tag in tags]).T
    if norms is None:
        np.testing.assert_allclose(batches[0], by_hand()[0][0], rtol=1e-5)  # the first comes before any clipping
        norms = batches
    else:
        np.testing.assert_allclose(batches, norms, rtol=1e-5)
        for ours, expected in zip(model.get_weights(), weights, strict=True):
            np.testing.assert_allclose(ours, expected, atol=1e-6)
    steps = options.get("steps", 1)
    assert list(found["batch_gradient_norm"]) == list(range(steps, 2 * BATCHES + 1, steps))
    epochs = np.array([list(found[f"epoch_gradient_norm{tag}"].values()) for tag in tags]).T
    first = BATCHES // steps
    np.testing.assert_allclose(epochs, [norms[:first].mean(0), norms[first:].mean(0)], rtol=1e-5)
    assert "apply" not in vars(getattr(model.optimizer, "inner_optimizer", model.optimizer))


def test_norms_are_means_of_what_lies_between(tmp_path):
    """With update_freq and steps_per_execution; epochs are written though no N-th batch ends them."""
    norms, _ = by_hand()
    fit(make(), TensorBoard(tmp_path / "a", update_freq=3, gradient_norms=True), validation_data=(IDS, LABELS))
    found = read(tmp_path / "a")
    batches = found["batch_gradient_norm"]
    assert list(batches) == [3, 6, 9]
    # At the end of the first epoch the two batches since the third have been read already.
    expected = [norms[:3, 0].mean(), norms[5:6, 0].mean(), norms[6:9, 0].mean()]
    np.testing.assert_allclose(list(batches.values()), expected, rtol=1e-5)
    means = [norms[:5, 0].mean(), norms[5:, 0].mean()]
    np.testing.assert_allclose(list(found["epoch_gradient_norm"].values()), means, rtol=1e-5)
    assert list(found["epoch_loss"]) == list(found["epoch_learning_rate"]) == [0, 1]
    assert "batch_gradient_norm/table" not in found
    validation = read(tmp_path / "a", "validation")
    assert list(validation["epoch_loss"]) == [0, 1] and list(validation["evaluation_loss_vs_iterations"]) == [5, 10]
    fit(make(steps_per_execution=5), TensorBoard(tmp_path / "b", update_freq=1, gradient_norms=True))
    np.testing.assert_allclose(list(read(tmp_path / "b")["batch_gradient_norm"].values()), means, rtol=1e-5)


def test_rates_weights_scalars_texts_and_other_callbacks(tmp_path):
    model, seen = make(rate=WarmupLinear(0.3, 10, 0.5)), []
    texts = iter(["one text", ["two", "texts"]])
    board = TensorBoard(
        tmp_path,
        update_freq=1,
        weight_norms="layers",
        scalars=lambda: {"zeros": len(seen) / 2},
        texts=lambda: next(texts),
        histogram_freq=1,
    )

    class Keep(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            seen.append([weight.copy() for weight in model.get_weights()])

    history = fit(model, Throughput(peak_flops=1e12), board, Keep())
    found = read(tmp_path)
    schedule = model.optimizer._learning_rate
    rates = [float(schedule(step)) for step in range(1, 2 * BATCHES + 1)]  # that of the next update
    np.testing.assert_allclose(list(found["batch_learning_rate"].values()), rates, rtol=1e-6)
    for epoch, weights in enumerate(seen):
        squares = [float((weight.astype("float64") ** 2).sum()) for weight in weights]
        for tag, expected in {"": sum(squares), "/table": squares[0], "/hidden": sum(squares[1:3])}.items():
            np.testing.assert_allclose(found[f"epoch_weight_norm{tag}"][epoch], expected**0.5, rtol=1e-6)
    np.testing.assert_allclose(weight_norms(model)[""], sum(squares) ** 0.5, rtol=1e-6)
    assert [float(value) for value in found["epoch_zeros"].values()] == [0.0, 0.5]
    assert [value.tolist() for value in found["texts"].values()] == [[b"one text"], [b"two", b"texts"]]
    for name in ("tokens_per_second", "mfu"):
        np.testing.assert_allclose(list(found[f"epoch_{name}"].values()), history.history[name], rtol=1e-6)
        assert len(found[f"batch_{name}"]) == 2 * BATCHES - 1
    assert "hidden/kernel/histogram" in found


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["cpu:2", pytest.param("multiworker", marks=pytest.mark.slow)])
def test_two_replicas_are_watched_as_one_device(strategy, tmp_path):
    """Tokens of both replicas, norms of the whole batch, files of every callback."""
    if strategy == "multiworker":
        script, configs = watching_behaviour.__file__, strategy_processes.cluster()
        found = json.loads(strategy_processes.run_python(script, tmp_path, configs=configs).splitlines()[-1])
    else:
        found = replicas.run(watching_behaviour.watched, str(tmp_path))
    assert found["tokens"] == found["expected_tokens"]
    np.testing.assert_allclose(found["mfu"], found["expected_mfu"], rtol=1e-9)
    norms = np.array(found["norms"])
    assert norms[:, -1].tolist() == [1] * 5  # ten batches, two an update
    np.testing.assert_allclose(norms, found["expected_norms"], rtol=1e-5)
    batches, epochs = found["board"]
    np.testing.assert_allclose(batches, norms[:, 0], rtol=1e-6)
    np.testing.assert_allclose(epochs, [norms[:2, 0].mean(), norms[2:, 0].mean()], rtol=1e-6)
    np.testing.assert_allclose(*found["weights"], rtol=1e-6)
    np.testing.assert_allclose(*found["losses"], rtol=1e-6)


@pytest.mark.slow
def test_a_step_of_keras_is_not_watched_under_replicas(tmp_path):
    said = replicas.run(watching_behaviour.message_of_keras, str(tmp_path))
    assert "build a training.DistributedModel to watch their norm" in said


def test_chosen_batches_are_profiled(tmp_path):
    fit(make(steps=2), TensorBoard(tmp_path, profile_batch=(3, 4)))
    (profile,) = tmp_path.rglob("*.xplane.pb")
    assert profile.stat().st_size > 1000


def test_what_is_wrong_is_said(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="gradient_norms is one of False, True, 'layers'; got 'all'"):
        TensorBoard(tmp_path, gradient_norms="all")
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(ImportError, match=r"pip install \"tfxformer\[tensorboard\]\""):
        TensorBoard(tmp_path)
