"""The encoder block against numpy, and its switches: first row, checkpointing, stochastic depth, dropout."""

import batteries
import keras
import numpy as np
import pytest
import tiny
from optional_tensorflow import tf

from tfxformer.layers import GraphForm, TransformerBlock, padding_bias
from tfxformer.layers.quantization.graph_form import DEFAULT

B, S, D = 3, 6, 8
INPUTS = np.random.default_rng(0).normal(size=(B, S, D)).astype("float32")
BIAS = np.asarray(padding_bias(np.array([[1] * 6, [1] * 4 + [0] * 2, [1] * 6]), -1e9))


def make(norm_placement="post", activation="gelu", gated=False, attention_dropout=0.0, dtype=None, seed=0, **arguments):
    layer = TransformerBlock(
        {"num_heads": 2, "head_size": 4, "dropout": attention_dropout},
        {"size": 10, "activation": activation, "gated": gated},
        norm_placement=norm_placement,
        norm_epsilon=1e-3,
        dtype=dtype,
        name="block",
        **arguments,
    )
    layer.build((None, None, D))
    return tiny.perturb(layer, seed)


def reference(layer, x, bias):
    """The block in numpy, float64; relu only."""
    weights = {path.split("/", 1)[1]: value.astype("float64") for path, value in tiny.weights(layer).items()}

    def dense(name, x):
        return x @ weights[f"{name}/kernel"] + weights[f"{name}/bias"]

    def norm(name, x):
        centred = x - x.mean(-1, keepdims=True)
        scale = np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-3)
        return centred / scale * weights[f"{name}/gamma"] + weights[f"{name}/beta"]

    def attend(x):
        query, key, value = (
            dense(f"self_attention/{name}", x).reshape(B, S, 2, 4) for name in ("query", "key", "value")
        )
        scores = np.einsum("bsnh,btnh->bnst", query, key) / 2.0 + bias
        shares = np.exp(scores - scores.max(-1, keepdims=True))
        shares /= shares.sum(-1, keepdims=True)
        return dense("self_attention/output", np.einsum("bnst,btnh->bsnh", shares, value).reshape(B, S, 8))

    def feed_forward(x):
        inner = np.maximum(dense("feed_forward/expand", x), 0.0)
        if "feed_forward/gate/kernel" in weights:
            inner = np.maximum(dense("feed_forward/gate", x), 0.0) * dense("feed_forward/expand", x)
        return dense("feed_forward/output", inner)

    scale = layer.residual_scale
    if layer.norm_placement == "pre":
        x = x + scale * attend(norm("attention_norm", x))
        return x + scale * feed_forward(norm("feed_forward_norm", x))
    if layer.norm_placement == "output":
        x = x + scale * norm("attention_norm", attend(x))
        return x + scale * norm("feed_forward_norm", feed_forward(x))
    if layer.norm_placement == "parallel":
        half = feed_forward(norm("feed_forward_norm", x))
        return x + scale * (attend(norm("attention_norm", x)) + half)
    x = norm("attention_norm", x + scale * attend(x))
    return norm("feed_forward_norm", x + scale * feed_forward(x))


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("norm_placement", ["post", "pre"])
def test_equals_numpy(norm_placement, gated, training, plain_kernels):
    layer = make(norm_placement, "relu", gated)
    wanted = reference(layer, INPUTS, BIAS)
    np.testing.assert_allclose(np.asarray(layer(INPUTS, bias=BIAS, training=training)), wanted, atol=5e-6)
    product = layer(INPUTS, bias=BIAS, graph_form=GraphForm(layer_norm="product"))
    np.testing.assert_allclose(np.asarray(product), wanted, atol=5e-6)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("norm_placement", ["post", "pre", "parallel", "output"])
def test_scaled_halves_equal_numpy(norm_placement, training, plain_kernels):
    layer = make(norm_placement, "relu", residual_scale=0.3)
    actual = layer(INPUTS, bias=BIAS, training=training)
    np.testing.assert_allclose(np.asarray(actual), reference(layer, INPUTS, BIAS), atol=5e-6)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("norm_placement", ["post", "pre"])
def test_first_row_alone(norm_placement, training, plain_kernels):
    layer = make(norm_placement)
    whole = np.asarray(layer(INPUTS, bias=BIAS, training=training))
    first = np.asarray(layer(INPUTS, bias=BIAS, training=training, first_only=True))
    assert first.shape == (B, 1, D)
    np.testing.assert_allclose(first[:, 0], whole[:, 0], atol=2e-6)
    symbolic = layer(keras.KerasTensor((None, None, D)), first_only=True)
    assert symbolic.shape == (None, 1, D)


@pytest.mark.parametrize("norm_placement", ["post", "pre"])
def test_battery(norm_placement):
    batteries.check_layer(lambda policy: make(norm_placement, gated=True, dtype=policy), INPUTS, bias=BIAS)


def gradients(layer, inputs=INPUTS, training=True, compiled=False, graph=True):
    """Loss and gradients of weights and inputs, in a graph as `fit` runs it, or op by op."""
    variables = [v.value for v in layer.trainable_variables]

    def run(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            outputs = layer(x, bias=BIAS, training=training)
            loss = tf.reduce_sum(outputs * tf.sin(tf.range(D, dtype=outputs.dtype)))
        return loss, tape.gradient(loss, [x, *variables])

    run = tf.function(run, jit_compile=compiled) if graph else run
    loss, result = run(tf.constant(inputs))
    return [np.asarray(loss), *(np.asarray(gradient) for gradient in result)]


def reset(layer):
    for variable in layer.variables:
        if variable.name == "seed_generator_state":
            variable.assign([7, 1])
    return layer


@pytest.mark.parametrize("norm_placement", ["post", "pre"])
def test_training_gradients_equal_inference_gradients(norm_placement):
    """The training kernels (XLA clusters where there are only CPUs) against automatic gradients of the plain graph."""
    layer = make(norm_placement)
    for kernel, plain in zip(gradients(layer), gradients(layer, training=False), strict=True):
        np.testing.assert_allclose(kernel, plain, atol=3e-5)


@pytest.mark.parametrize(
    ("rates", "graph"),
    [
        ({}, False),
        ({"dropout": 0.3, "attention_dropout": 0.2}, False),
        ({"dropout": 0.2, "attention_dropout": 0.2, "stochastic_depth": 0.4}, True),
    ],
)
def test_checkpointed_gradients_are_the_same(rates, graph, plain_kernels):
    """With dropout too: the second forward pass must drop what the first dropped."""
    plain, checkpointed = (reset(make(gradient_checkpointing=flag, **rates)) for flag in (False, True))
    wanted = gradients(plain, graph=graph)
    for ours, theirs in zip(gradients(checkpointed, graph=graph), wanted, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)
    if rates:
        assert abs(wanted[0] - gradients(plain, graph=False)[0]) > 1e-4  # the next step drops others


def test_checkpointed_gradients_with_clusters():
    rates = {"dropout": 0.3, "attention_dropout": 0.2}
    plain, checkpointed = (reset(make(gradient_checkpointing=flag, **rates)) for flag in (False, True))
    for ours, theirs in zip(gradients(checkpointed), gradients(plain), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_checkpointing_under_xla(plain_kernels):
    rates = {"dropout": 0.3, "attention_dropout": 0.2, "gradient_checkpointing": True}
    eager = gradients(reset(make(**rates)), graph=False)
    compiled = gradients(reset(make(**rates)), compiled=True)
    for ours, theirs in zip(compiled, eager, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=2e-5)


@pytest.mark.parametrize("norm_placement", ["post", "pre"])
@pytest.mark.parametrize("rate", ["dropout", "attention_dropout", "stochastic_depth"])
def test_random_only_in_training(norm_placement, rate, plain_kernels):
    layer, plain = reset(make(norm_placement, **{rate: 0.5})), make(norm_placement)  # six coins may fall alike twice
    wanted = np.asarray(plain(INPUTS, bias=BIAS))
    np.testing.assert_array_equal(np.asarray(layer(INPUTS, bias=BIAS)), wanted)
    first, second = (np.asarray(layer(INPUTS, bias=BIAS, training=True)) for _ in range(2))
    assert np.abs(first - wanted).max() > 1e-3 and np.abs(first - second).max() > 1e-3


def test_stochastic_depth_leaves_out_halves_of_samples(plain_kernels):
    """With both halves left out, a pre-norm block is the identity for that sample; else halves count 1 / (1 - rate)."""
    layer = make("pre", stochastic_depth=0.5)
    inputs = np.repeat(INPUTS[:1], 64, axis=0)
    outputs = np.asarray(layer(inputs, training=True))
    kinds = {tuple(np.round(row.ravel(), 4)) for row in outputs}
    assert len(kinds) == 4  # neither, attention, feed-forward, both
    assert any(np.array_equal(row, INPUTS[0]) for row in outputs)
    counts = [int(np.isclose(outputs, row, atol=1e-5).all(axis=(1, 2)).sum()) for row in outputs]
    assert min(counts) >= 4  # each near 16 of 64


def test_all_padding_is_finite_in_half_precision():
    layer = make(dtype="mixed_float16")
    bias = padding_bias(np.zeros((B, S)), DEFAULT.mask_value, "float16")
    assert np.isfinite(np.asarray(layer(INPUTS, bias=bias))).all()


def test_unknown_norm_placement():
    with pytest.raises(ValueError, match="Unknown norm placement 'middle'; known: post, pre"):
        make("middle")
