"""Attention against its definition in numpy, float64."""

import batteries
import keras
import numpy as np
import pytest
import tiny
from optional_tensorflow import tf

from tfxformer.layers import Attention, padding_bias
from tfxformer.layers.kernels import clusters

B, S, T, D, N, H = 2, 5, 7, 12, 4, 3
GENERATOR = np.random.default_rng(0)
INPUTS = GENERATOR.normal(size=(B, S, D)).astype("float32")
SOURCE = GENERATOR.normal(size=(B, T, D)).astype("float32")
BIAS = GENERATOR.normal(size=(B, N, S, S)).astype("float32")


def reference(layer, inputs, source=None, bias=None):
    """Softmax attention head by head, query by query."""
    weights = {path.split("/", 1)[1]: value.astype("float64") for path, value in tiny.weights(layer).items()}

    def dense(name, x):
        return x @ weights[f"{name}/kernel"] + weights.get(f"{name}/bias", 0.0)

    source = inputs if source is None else source
    query, key, value = dense("query", inputs), dense("key", source), dense("value", source)
    heads, groups, width = layer.num_heads, layer.num_key_value_heads, layer.head_size
    context = np.zeros((*inputs.shape[:2], heads * width))
    for b in range(inputs.shape[0]):
        for head in range(heads):
            columns = slice(head * width, (head + 1) * width)
            group = head // (heads // groups)
            shared = slice(group * width, (group + 1) * width)
            for s in range(inputs.shape[1]):
                scores = key[b, :, shared] @ query[b, s, columns] / np.sqrt(width)
                if bias is not None:
                    scores = (
                        scores
                        + np.broadcast_to(bias, (*inputs.shape[:1], heads, inputs.shape[1], len(scores)))[b, head, s]
                    )
                shares = np.exp(scores - scores.max())
                context[b, s, columns] = shares / shares.sum() @ value[b, :, shared]
    return dense("output", context)


def make(groups=None, use_bias=True, **arguments):
    layer = Attention(N, H, groups, use_bias, **arguments)
    layer.build((None, None, D))
    return tiny.perturb(layer)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("groups", [None, 2, 1])
@pytest.mark.parametrize("use_bias", [True, False])
def test_self_attention(groups, use_bias, training, plain_kernels):
    layer = make(groups, use_bias)
    assert sum("bias" in path for path in tiny.weights(layer)) == (4 if use_bias else 0)
    for bias in (None, BIAS):
        actual = np.asarray(layer(INPUTS, bias=bias, training=training))
        np.testing.assert_allclose(actual, reference(layer, INPUTS, bias=bias), atol=2e-6)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("groups", [None, 2])
def test_cross_attention(groups, training, plain_kernels):
    layer = make(groups)
    mask = np.array([[1] * T, [1] * 4 + [0] * 3])
    bias = np.asarray(padding_bias(mask, -1e9))
    actual = np.asarray(layer(INPUTS, source=SOURCE, bias=bias, training=training))
    np.testing.assert_allclose(actual, reference(layer, INPUTS, SOURCE, bias), atol=2e-6)
    changed = SOURCE.copy()
    changed[1, 4:] = 100.0  # what is masked is not seen
    np.testing.assert_array_equal(np.asarray(layer(INPUTS, source=changed, bias=bias, training=training)), actual)


def causal_bias(queries, position):
    """Query i, at `position` + i, sees the keys up to itself of a cache of S."""
    return np.where(np.arange(S) <= position + np.arange(queries)[:, None], 0.0, -1e9).astype("float32")


@pytest.mark.parametrize("groups", [None, 2])
@pytest.mark.parametrize("chunks", [(1, 1, 1, 1, 1), (3, 1, 1), (2, 3)])
def test_cached_steps_equal_the_full_pass(groups, chunks):
    layer = make(groups)
    full = np.asarray(layer(INPUTS, bias=causal_bias(S, 0)))
    np.testing.assert_allclose(full, reference(layer, INPUTS, bias=causal_bias(S, 0)), atol=2e-6)
    cache = (np.zeros((B, groups or N, S, H), "float32"), np.zeros((B, groups or N, H, S), "float32"))
    position, steps = 0, []
    for count in chunks:
        part = INPUTS[:, position : position + count]
        bias = causal_bias(count, position)
        outputs, cache = layer(part, bias=bias, cache=cache, position=tf.constant(position))
        steps.append(np.asarray(outputs))
        position += count
    np.testing.assert_allclose(np.concatenate(steps, axis=1), full, atol=2e-6)


def test_finished_cache_is_read_only():
    """Cross-attention with keys and values made once: the source is not read again."""
    layer = make(2)
    wanted = np.asarray(layer(INPUTS, source=SOURCE))
    cache = layer.finished_cache(SOURCE)
    outputs, kept = layer(INPUTS, cache=cache)
    np.testing.assert_allclose(np.asarray(outputs), wanted, atol=2e-6)
    assert all(a is b or np.array_equal(a, b) for a, b in zip(kept, cache, strict=True))


def test_battery():
    batteries.check_layer(lambda policy: Attention(N, H, 2, dtype=policy), INPUTS, bias=BIAS)


def test_kernels_stay_two_dimensional():
    assert {v.path.split("/", 1)[1]: tuple(v.shape) for v in make(2).trainable_variables} == {
        "query/kernel": (D, N * H),
        "query/bias": (N * H,),
        "key/kernel": (D, 2 * H),
        "key/bias": (2 * H,),
        "value/kernel": (D, 2 * H),
        "value/bias": (2 * H,),
        "output/kernel": (N * H, D),
        "output/bias": (D,),
    }


def test_heads_that_do_not_divide():
    with pytest.raises(ValueError, match=r"num_heads \(4\) must be a multiple of num_key_value_heads \(3\)"):
        Attention(4, 8, 3)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_padding_bias_is_finite(dtype):
    """-1e9 is -inf in float16: a row without a real token, as in a padded batch, would be NaN."""
    bias = padding_bias(np.array([[1, 1, 0], [0, 0, 0]]), -1e9, dtype)
    assert bias.shape == (2, 1, 1, 3) and bias.dtype == dtype
    values = np.asarray(keras.ops.cast(bias, "float32"))
    assert np.isfinite(values).all() and (values[0, 0, 0, :2] == 0).all() and values.min() < -1e4
    shares = np.asarray(keras.ops.cast(keras.ops.softmax(bias + bias * 0), "float32"))
    np.testing.assert_allclose(shares[1, 0, 0], 1 / 3, atol=1e-2)
    assert shares[0, 0, 0, 2] == 0


def test_training_gradients_equal_inference_gradients(clusters_of_any_size):
    """The kernels' own gradients (as XLA clusters) against automatic ones of the plain graph."""
    layer = make(2)
    for source in (None, SOURCE):
        gradients = []
        for training in (False, True):
            with tf.GradientTape() as tape:
                outputs = layer(INPUTS, source=source, training=training)
                loss = tf.reduce_sum(outputs * tf.sin(tf.range(D, dtype="float32")))
            gradients.append([np.asarray(g) for g in tape.gradient(loss, [v.value for v in layer.trainable_variables])])
        for plain, kernel in zip(*gradients, strict=True):
            np.testing.assert_allclose(kernel, plain, atol=2e-5)
    assert clusters.use_clusters() == (not tf.config.list_physical_devices("GPU"))
