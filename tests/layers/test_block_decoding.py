"""The decoder block against numpy: orders of norms, grouped heads, rotary positions, caches, an encoder's output."""

import batteries
import keras
import numpy as np
import pytest
import tiny
from optional_tensorflow import tf

from tfxformer.layers import GraphForm, RotaryPositions, TransformerBlock
from tfxformer.layers.attention.masks import causal_visibility, hidden_bias
from tfxformer.layers.attention.position_scores import alibi_bias
from tfxformer.layers.attention.rotary import Rotary

B, S, D, N, H, T = 3, 6, 8, 4, 6, 9  # D is not N * H
INPUTS = np.random.default_rng(0).normal(size=(B, S, D)).astype("float32")
SOURCE = np.random.default_rng(1).normal(size=(B, 5, D)).astype("float32")
MASK = np.array([[1] * 6, [0] * 2 + [1] * 4, [1, 1, 1, 2, 2, 2]], "int32")
BIAS = np.asarray(hidden_bias(causal_visibility(MASK), -1e9))
SLOTS = np.arange(S, dtype="int32")[None]
ALIBI = BIAS + np.asarray(alibi_bias(SLOTS, SLOTS, N))
ROTARY = Rotary(fraction=0.7)  # 4 of 6 channels
TURNS = tuple(np.asarray(x) for x in RotaryPositions(ROTARY, H)(SLOTS))


def make(
    norm_placement="pre", norm="layer", groups=2, gated=False, activation="relu", attention_dropout=0.0, dtype=None,
    seed=0, bias=True, **arguments,
):  # fmt: skip
    layer = TransformerBlock(
        {
            "num_heads": N,
            "head_size": H,
            "num_key_value_heads": groups,
            "use_bias": bias,
            "output_bias": not bias,
            "dropout": attention_dropout,
        },
        {"size": 10, "activation": activation, "gated": gated, "use_bias": bias},
        norm_placement=norm_placement,
        norm=norm,
        norm_epsilon=1e-3,
        dtype=dtype,
        name="block",
        **arguments,
    )
    layer.build((None, None, D))
    return tiny.perturb(layer, seed)


class Reference:
    """The block in numpy, float64; relu only."""

    def __init__(self, layer):
        self.layer = layer
        self.weights = {path.split("/", 1)[1]: value.astype("float64") for path, value in tiny.weights(layer).items()}

    def dense(self, name, x):
        return x @ self.weights[f"{name}/kernel"] + self.weights.get(f"{name}/bias", 0.0)

    def norm(self, name, x):
        if self.layer.norm == "rms":
            return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-3) * self.weights[f"{name}/gamma"]
        centred = x - x.mean(-1, keepdims=True)
        scale = np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-3)
        return centred / scale * self.weights[f"{name}/gamma"] + self.weights[f"{name}/beta"]

    def attend(self, name, x, source, bias, turns=None):
        def heads(part, y):
            y = self.dense(f"{name}/{part}", y).reshape(B, y.shape[1], -1, H)
            if part == "value" or turns is None:
                return y
            half = turns[0].shape[-1] // 2  # tables are whole rows; the sines of their second half are the plain ones
            phases = (turns[0] + 1j * turns[1])[0, 0][:, None, half:]
            numbers = (y[..., :half] + 1j * y[..., half : 2 * half]) * phases
            return np.concatenate([numbers.real, numbers.imag, y[..., 2 * half :]], -1)

        query, key, value = heads("query", x), heads("key", source), heads("value", source)
        context = np.zeros(query.shape)
        for head in range(N):
            group = head // (N // key.shape[2])
            scores = np.einsum("bsh,bth->bst", query[:, :, head], key[:, :, group]) / np.sqrt(H)
            scores += np.broadcast_to(bias, (B, N, *scores.shape[1:]))[:, head]
            shares = np.exp(scores - scores.max(-1, keepdims=True))
            context[:, :, head] = shares / shares.sum(-1, keepdims=True) @ value[:, :, group]
        return self.dense(f"{name}/output", context.reshape(B, x.shape[1], -1))

    def feed_forward(self, x):
        inner = self.dense("feed_forward/expand", x)
        gate = self.dense("feed_forward/gate", x) if "feed_forward/gate/kernel" in self.weights else None
        inner = np.maximum(inner, 0) if gate is None else np.maximum(gate, 0) * inner
        return self.dense("feed_forward/output", inner)

    def __call__(self, x, bias, turns=None, source=None):
        x = x.astype("float64")
        crosses = source is not None
        no_bias = np.zeros((1, 1, 1, 1))
        if self.layer.norm_placement == "post":
            x = self.norm("attention_norm", x + self.attend("self_attention", x, x, bias, turns))
            if crosses:
                crossed = self.attend("cross_attention", x, source, no_bias)
                x = self.norm("cross_attention_norm", x + crossed)
            return self.norm("feed_forward_norm", x + self.feed_forward(x))
        normed = self.norm("attention_norm", x)
        attended = self.attend("self_attention", normed, normed, bias, turns)
        if self.layer.norm_placement == "parallel":
            return x + attended + self.feed_forward(self.norm("feed_forward_norm", x))
        x = x + attended
        if crosses:
            x = x + self.attend("cross_attention", self.norm("cross_attention_norm", x), source, no_bias)
        return x + self.feed_forward(self.norm("feed_forward_norm", x))


CASES = {
    "gpt2": {"groups": None},
    "llama": {"norm": "rms", "gated": True, "bias": False},
    "one group": {"groups": 1},
    "neox": {"norm_placement": "parallel", "groups": None},
    "opt-350m": {"norm_placement": "post", "groups": None},
    "post, rms, gated": {"norm_placement": "post", "norm": "rms", "gated": True},
}


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("name", list(CASES))
def test_equals_numpy(name, training, plain_kernels):
    layer = make(**CASES[name])
    for bias, turns in ((BIAS, None), (BIAS, TURNS), (ALIBI, None)):
        wanted = Reference(layer)(INPUTS, bias, turns)
        actual = layer(INPUTS, bias=bias, rotary=turns, training=training)
        np.testing.assert_allclose(np.asarray(actual)[0], wanted[0], atol=5e-6)
        real = MASK != 0
        np.testing.assert_allclose(np.asarray(actual)[real], wanted[real], atol=5e-6)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("norm_placement", ["pre", "post"])
def test_cross_attention_equals_numpy(norm_placement, training, plain_kernels):
    layer = make(norm_placement, cross_attention=True)
    wanted = Reference(layer)(INPUTS, BIAS, source=SOURCE)
    actual = np.asarray(layer(INPUTS, bias=BIAS, source=SOURCE, training=training))
    np.testing.assert_allclose(actual[MASK != 0], wanted[MASK != 0], atol=5e-6)


def empty(groups=2):
    return np.zeros((B, groups, T, H), "float32"), np.zeros((B, groups, H, T), "float32")


@pytest.mark.parametrize("chunks", [(6,), (4, 2), (1,) * 6])
@pytest.mark.parametrize("norm_placement", ["pre", "post", "parallel"])
def test_cache_equals_the_whole(norm_placement, chunks):
    """New tokens on a cache longer than the row, whose unused slots hold what must not be seen."""
    layer = make(norm_placement)
    whole = np.asarray(layer(INPUTS, bias=BIAS, rotary=TURNS))
    cache = tuple(x + 9.0 for x in empty())
    bias = np.concatenate([BIAS, np.full((B, 1, S, T - S), -1e9, "float32")], axis=-1)
    parts, start = [], 0
    for length in chunks:
        rows = slice(start, start + length)
        turns = tuple(x[:, :, rows] for x in TURNS)
        part, cache = layer(INPUTS[:, rows], bias=bias[:, :, rows], rotary=turns, cache=cache, position=start)
        parts.append(np.asarray(part))
        start += length
    np.testing.assert_allclose(np.concatenate(parts, axis=1)[MASK != 0], whole[MASK != 0], atol=5e-6)
    keys, values = (np.asarray(x) for x in cache)
    assert keys.shape == (B, 2, T, H) and values.shape == (B, 2, H, T)
    assert (keys[:, :, S:] == 9.0).all() and (values[..., S:] == 9.0).all()


def test_finished_cross_attention_needs_no_source():
    layer = make(cross_attention=True)
    whole = layer(INPUTS, bias=BIAS, source=SOURCE)
    keys = np.asarray(layer.cross_attention.key(SOURCE)).reshape(B, 5, 2, H).transpose(0, 2, 1, 3)
    values = np.asarray(layer.cross_attention.value(SOURCE)).reshape(B, 5, 2, H).transpose(0, 2, 3, 1)
    again = layer(INPUTS, bias=BIAS, source_cache=(keys, values))
    np.testing.assert_allclose(np.asarray(again), np.asarray(whole), atol=2e-6)


@pytest.mark.parametrize("name", ["llama", "neox"])
def test_layer(name):
    def new(dtype):
        values = dict(CASES[name])
        attention = {"num_heads": N, "head_size": H, "num_key_value_heads": values.pop("groups", 2)}
        values.pop("bias", None)
        gated = values.pop("gated", False)
        return TransformerBlock(attention, {"size": 10, "gated": gated}, norm_epsilon=1e-3, dtype=dtype, **values)

    batteries.check_layer(new, INPUTS, bias=BIAS, rotary=TURNS)


def test_forms_compute_the_same():
    layer = make("parallel")
    plain = layer(INPUTS, bias=BIAS)
    product = layer(INPUTS, bias=BIAS, graph_form=GraphForm(layer_norm="product"))
    np.testing.assert_allclose(np.asarray(product), np.asarray(plain), atol=2e-6)


@pytest.mark.parametrize("cross_attention", [False, True])
def test_gradient_checkpointing_is_exact(cross_attention, plain_kernels):
    """The backward pass drops the same units as the forward pass did; in a graph in test_block.py."""

    def gradients(flag):
        layer = make(
            dropout=0.3, attention_dropout=0.3, stochastic_depth=0.2, gradient_checkpointing=flag,
            cross_attention=cross_attention,
        )  # fmt: skip
        layer.seed_generator.state.assign([7, 1])
        source = SOURCE if cross_attention else None
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(layer(INPUTS, bias=BIAS, rotary=TURNS, source=source, training=True) ** 2)
        return tape.gradient(loss, [v.value for v in layer.trainable_variables])

    for ours, theirs in zip(gradients(True), gradients(False), strict=True):
        np.testing.assert_allclose(np.asarray(ours), np.asarray(theirs), atol=2e-5)


def test_parallel_blocks_have_no_cross_attention():
    with pytest.raises(ValueError, match="cross-attention cannot have norm_placement"):
        make("parallel", cross_attention=True)
    with pytest.raises(ValueError, match="Unknown norm placement 'both'; known: post, pre, parallel"):
        make("both")


def test_symbolic_shapes():
    layer = make()
    cache = tuple(keras.KerasTensor(x.shape, "float32") for x in empty())
    outputs, new = layer(keras.KerasTensor((B, 2, D)), cache=cache, position=keras.KerasTensor((), "int32"))
    assert outputs.shape == (B, 2, D) and [x.shape for x in new] == [x.shape for x in cache]


@pytest.mark.parametrize(("position", "cross_attention"), [("pre", False), ("pre", True), ("parallel", False)])
@pytest.mark.parametrize("norm", ["layer", "rms"])
def test_a_block_in_training_is_the_block(position, cross_attention, norm):
    """Outputs and gradients of a block without dropout: training's kernels against the plain operations."""
    layer = tiny.perturb(make(position, norm, cross_attention=cross_attention))
    arguments = {"source": SOURCE} if cross_attention else {}
    inputs, results = tf.constant(INPUTS), []
    for training in (False, True):
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            outputs = layer(inputs, bias=BIAS, rotary=TURNS, training=training, **arguments)
            loss = tf.reduce_sum(outputs * INPUTS[::-1])
        gradients = tape.gradient(loss, [inputs, *(variable.value for variable in layer.trainable_variables)])
        results.append([outputs, *gradients])
    batteries.assert_close(batteries.numpy_of(results[1]), batteries.numpy_of(results[0]), 2e-5)
