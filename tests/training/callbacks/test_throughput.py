"""Tokens a second against a clock of the test's own, and model FLOPs against other counts."""

import time

import keras
import numpy as np
import pytest
import tensorflow as tf
import tiny

from tfxformer import tasks
from tfxformer.text import Tokenizer
from tfxformer.training import DistributedModel, Throughput
from tfxformer.training.callbacks import throughput as module
from tfxformer.training.callbacks.flops import UncountableError, measured_flops, peak_flops, training_flops

VOCABULARY, LENGTH, SECONDS = 20, 8, 2.0
RNG = np.random.default_rng(0)
IDS = RNG.integers(0, VOCABULARY, (44, LENGTH)).astype("int32")
MASK = (np.arange(LENGTH) < RNG.integers(1, LENGTH + 1, (len(IDS), 1))).astype("int32")
LABELS = (IDS[:, 0] % 4).astype("int32")


def classifier(base=DistributedModel, mask=False, length=LENGTH, **compiled):
    """Embedding, two dense layers, a head on the first token."""
    keras.utils.set_random_seed(0)
    inputs = {"token_ids": keras.Input((length,), dtype="int32", name="token_ids")}
    x = keras.layers.Embedding(VOCABULARY, 16)(inputs["token_ids"])
    if mask:
        inputs["padding_mask"] = keras.Input((length,), dtype="int32", name="padding_mask")
        x = x * keras.ops.cast(inputs["padding_mask"], "float32")[..., None]
    x = keras.layers.Dense(4)(keras.layers.Dense(32, "gelu")(x)[:, 0])
    model = base(inputs, x)
    steps = compiled.pop("accumulation", None)
    model.compile(
        keras.optimizers.SGD(0.1, gradient_accumulation_steps=steps),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        **compiled,
    )
    return model


class Clock(keras.callbacks.Callback):
    """Makes every batch last `SECONDS`, by the clock that `Throughput` reads."""

    def __init__(self, monkeypatch):
        super().__init__()
        self.now = 100.0
        monkeypatch.setattr(module.time, "perf_counter", lambda: self.now)

    def on_train_batch_begin(self, batch, logs=None):
        self.now += SECONDS

    def on_test_batch_begin(self, batch, logs=None):
        self.now += 1000.0  # which must not count


def fit(model, inputs, *callbacks, batch_size=8, **arguments):
    arguments = {"epochs": 2, "verbose": 0, "shuffle": False, **arguments}
    return model.fit(inputs, LABELS, batch_size=batch_size, callbacks=list(callbacks), **arguments).history


OWN_STEP = {"accumulation": 2}


@pytest.mark.parametrize(
    ("base", "options"),
    [
        (keras.Model, {}),
        (keras.Model, {"run_eagerly": True}),
        (DistributedModel, {}),
        (DistributedModel, {"jit_compile": True}),
        (DistributedModel, OWN_STEP),
    ],
)
def test_real_tokens_are_counted_without_the_first_batch(base, options, monkeypatch):
    inputs = {"token_ids": IDS, "padding_mask": MASK}
    throughput = Throughput(peak_flops=1e6)
    model = classifier(base, mask=True, **options)
    found = fit(model, inputs, Clock(monkeypatch), throughput, validation_data=(inputs, LABELS))
    expected = [MASK[8:].sum() / (5 * SECONDS), MASK.sum() / (6 * SECONDS)]  # six batches, the last of four
    np.testing.assert_allclose(found["tokens_per_second"], expected, rtol=1e-12)
    flops = 6 * (LENGTH * 16 * 32 + 32 * 4)
    assert throughput.flops_per_sample == flops
    np.testing.assert_allclose(found["mfu"], [36 / 10 * flops / 1e6, 44 / 12 * flops / 1e6], rtol=1e-12)
    assert "train_step" not in vars(model) and "apply" not in vars(model.optimizer)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [(len(IDS) - 8) / (5 * SECONDS), len(IDS) / (6 * SECONDS)]),
        ({"steps_per_execution": 4}, [12 / SECONDS, 44 / (2 * SECONDS)]),  # executions of 32 and 12 samples
    ],
)
def test_positions_are_counted_without_a_mask(options, expected, monkeypatch):
    found = fit(classifier(**options), {"token_ids": IDS}, Clock(monkeypatch), Throughput())
    np.testing.assert_allclose(found["tokens_per_second"], np.array(expected) * LENGTH, rtol=1e-12)
    assert "mfu" not in found  # the peak of a CPU is not known


def test_a_lone_matrix_of_integers_is_tokens_and_other_inputs_are_samples(monkeypatch):
    inputs = keras.Input((LENGTH,), dtype="int32")
    model = keras.Model(inputs, keras.layers.Dense(4)(keras.layers.Embedding(VOCABULARY, 4)(inputs)[:, 0]))
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    found = fit(model, IDS, Clock(monkeypatch), Throughput())
    assert found["tokens_per_second"][1] == 44 * LENGTH / 12
    inputs = keras.Input((LENGTH,))
    model = keras.Model(inputs, keras.layers.Dense(4)(inputs))
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    found = fit(model, IDS.astype("float32"), Clock(monkeypatch), Throughput())
    assert found["samples_per_second"][1] == 44 / 12 and "tokens_per_second" not in found


def test_an_epoch_of_the_first_batch_alone_has_no_figures(monkeypatch):
    found = fit(classifier(), {"token_ids": IDS}, Clock(monkeypatch), Throughput(), batch_size=44)
    assert found["tokens_per_second"] == [44 * LENGTH / SECONDS] and len(found["loss"]) == 2


def test_the_progress_bar_shows_it(capsys):
    fit(classifier(), {"token_ids": IDS}, Throughput(peak_flops="measured"), verbose=1)
    shown = capsys.readouterr().out
    assert "tokens_per_second: " in shown and "mfu: " in shown


@pytest.mark.parametrize("options", [{}, OWN_STEP])
def test_training_is_the_same_with_it(options):
    weights = []
    for callbacks in ([], [Throughput(peak_flops=1e12)]):
        model = classifier(mask=True, **options)
        inputs = {"token_ids": IDS, "padding_mask": MASK}
        fit(model, inputs, *callbacks)
        fit(model, inputs)
        weights.append(model.get_weights())
    for ours, alone in zip(*weights, strict=True):
        np.testing.assert_array_equal(ours, alone)


# ---- model FLOPs ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_decoder_needs_what_palm_says(checkpointing):
    """6 N a token and 12 L D S for attention, whether activations are computed again or not."""
    backbone = tiny.backbone("gpt2", vocabulary_size=290, gradient_checkpointing=checkpointing)
    model = tasks.CausalLM(backbone, tokenizer=Tokenizer.train_byte_level_bpe(tiny.TEXTS, 280), sequence_length=16)
    model.compile()
    spec = [tf.TensorSpec((None, 16), dtype) for dtype in ("int32", "int32", "float32")]
    found = training_flops(model, (dict.fromkeys(model.input, spec[0]), *spec[1:]))
    kernels = 2 * (4 * 32 * 32 + 2 * 32 * 48) + 32 * 290
    assert found == 6 * kernels * 16 + 12 * 2 * 32 * 16 * 16


def executed(model, x, y) -> int:
    """Operations of the products that TensorFlow executes for the gradients: of its own backward graph, pruned.

    The sizes of A, B and C = A B, multiplied, are the square of M N K.
    """

    @tf.function
    def step(x, y):
        with tf.GradientTape() as tape:
            loss = model.compute_loss(x, y, model(x, training=True))
        return tape.gradient(loss, model.trainable_weights)

    todo, seen, total = [tensor.op for tensor in step.get_concrete_function(x, y).graph.outputs], set(), 0
    while todo:
        operation = todo.pop()
        if id(operation) in seen:
            continue
        seen.add(id(operation))
        todo += [tensor.op for tensor in operation.inputs]
        tensors = [*operation.inputs, *operation.outputs]
        if "MatMul" in operation.type:
            matrices = [float(np.prod(one.shape[-2:])) for one in tensors]
            total += 2 * round(np.sqrt(np.prod(matrices))) * np.prod(tensors[2].shape[:-2], dtype=int)
        elif operation.type == "Einsum":
            letters = operation.get_attr("equation").decode().split("->")[0].split(",")
            sizes = {}
            for names, one in zip(letters, operation.inputs, strict=True):
                sizes |= dict(zip(names, one.shape, strict=True))
            total += 2 * np.prod(list(sizes.values())) if len(letters) == 2 else 0
    return int(total)


@pytest.mark.parametrize("frozen", [(), ("embedding",), ("embedding", "first"), ("embedding", "first", "attention")])
def test_what_is_frozen_needs_less(frozen):
    """Only the gradients that are needed: as many products as TensorFlow's own gradients have."""
    ids = keras.Input((LENGTH,), dtype="int32")
    x = keras.layers.Embedding(VOCABULARY, 16, name="embedding")(ids)
    x = keras.layers.Dense(16, "tanh", name="first")(x)
    x = x + keras.layers.MultiHeadAttention(2, 8, name="attention", flash_attention=False)(x, x)
    model = keras.Model(ids, keras.layers.Dense(4, name="head")(x[:, 0]))
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    for name in frozen:
        model.get_layer(name).trainable = False
    found = training_flops(model, (IDS[:8], LABELS[:8], None))
    assert found == executed(model, IDS[:8], LABELS[:8]) / 8
    if not frozen:  # and by hand: a dense layer, four projections, two products of scores, a head
        forward = 2 * (5 * LENGTH * 16 * 16 + 2 * LENGTH * LENGTH * 16 + 16 * 4)
        assert found == 3 * forward


def test_a_function_that_was_differentiated_counts_as_before():
    """Whoever takes its gradient, as an accumulating step does first, adds outputs to its graph."""
    inner = tf.function(lambda x: tf.tanh(x) * tf.exp(x))
    inputs = keras.Input((4,))
    model = keras.Model(inputs, keras.layers.Dense(2)(keras.layers.Lambda(inner)(keras.layers.Dense(3)(inputs))))
    model.compile("sgd", "mse")
    spec = (tf.TensorSpec((None, 4)), tf.TensorSpec((None, 2)), None)
    wanted = 2 * (2 * 4 * 3) + 3 * (2 * 3 * 2)
    assert training_flops(model, spec) == wanted

    @tf.function
    def step(x):
        with tf.GradientTape() as tape:
            outputs = model(x)
        return tape.gradient(outputs, model.trainable_weights)

    step(tf.ones((1, 4)))
    assert training_flops(model, spec) == wanted


def test_convolutions_are_counted():
    inputs = keras.Input((16, 3))
    x = keras.layers.Conv1D(8, 3, padding="same", activation="relu")(inputs)
    model = keras.Model(inputs, keras.layers.Dense(2)(keras.layers.Flatten()(x)))
    model.compile("sgd", "mse")
    found = training_flops(model, (tf.TensorSpec((None, 16, 3)), tf.TensorSpec((None, 2)), None))
    # The first layer's input needs no gradient: twice, not three times.
    assert found == 2 * (2 * 16 * 8 * 3 * 3) + 3 * (2 * 16 * 8 * 2)


def test_what_cannot_be_counted_is_said_and_left_out(monkeypatch):
    model = classifier(length=None)
    spec = (tf.TensorSpec((None, None), "int32"), tf.TensorSpec((None,), "int32"), None)
    with pytest.raises(UncountableError, match="no static shape"):
        training_flops(model, ({"token_ids": spec[0]}, *spec[1:]))
    batches = tf.data.Dataset.from_generator(
        lambda: ((({"token_ids": IDS[:4, :size]}), LABELS[:4]) for size in (4, 8, 6)),
        output_signature=({"token_ids": spec[0]}, spec[1]),
    )
    with pytest.warns(UserWarning, match="Throughput shows no mfu"):
        found = model.fit(batches, verbose=0, callbacks=[Clock(monkeypatch), Throughput("v5e")]).history
    assert found["tokens_per_second"] == [4 * (8 + 6) / (2 * SECONDS)] and "mfu" not in found
    inputs = keras.Input((6, 4))
    recurrent = keras.Model(inputs, keras.layers.SimpleRNN(3)(inputs))
    recurrent.compile("sgd", "mse")
    with pytest.raises(UncountableError, match="runs as often as its data say"):
        training_flops(recurrent, (tf.TensorSpec((None, 6, 4)), tf.TensorSpec((None, 3)), None))


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("NVIDIA A100-SXM4-40GB", 312e12),
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA L4", 121e12),
        ("NVIDIA L40S", 362e12),
        ("Tesla T4", 65e12),
        ("v5litepod-8", 197e12),
        ("v6e-1", 918e12),
        ("tpu-v5e", 197e12),
        ("TPU v5 lite", 197e12),
        ("TPU v5p", 459e12),
        ("TPU v6 lite", 918e12),
        ("a toaster", None),
    ],
)
def test_known_peaks(name, peak):
    assert peak_flops(name) == peak
    if peak is not None:
        assert Throughput(name)._wanted == peak


@pytest.mark.parametrize("wrong", ["a toaster", -1, 0, True, [1e12]])
def test_a_peak_that_is_none_is_refused(wrong):
    with pytest.raises(ValueError, match='peak_flops is a number of operations a second, "measured", or a device'):
        Throughput(wrong)


def test_the_measured_peak_is_that_of_a_product():
    """No less than numpy's own product manages in the same minute, but for noise."""
    factor = RNG.standard_normal((1024, 1024)).astype("float32")
    factor @ factor
    best = np.inf
    for _ in range(5):
        start = time.perf_counter()
        factor @ factor
        best = min(best, time.perf_counter() - start)
    assert measured_flops(size=1024) > 0.2 * 2 * 1024**3 / best
