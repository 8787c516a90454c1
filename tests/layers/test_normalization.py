"""Normalizations in every writing."""

import batteries
import keras
import numpy as np
import pytest
import tiny
from optional_tensorflow import tf

from tfxformer.layers import GraphForm, LayerNormalization
from tfxformer.layers.normalization import make_norm

# A mean much larger than the deviation: what goes wrong in half precision.
INPUTS = (30.0 + np.random.default_rng(0).normal(size=(4, 3, 16))).astype("float32")


def make(epsilon=1e-5, dtype=None):
    layer = LayerNormalization(epsilon=epsilon, dtype=dtype)
    layer.build((None, None, 16))
    return tiny.perturb(layer)


@pytest.mark.parametrize("epsilon", [1e-12, 1e-3])
@pytest.mark.parametrize("writing", ["fused", "product", "inner_product"])
def test_equals_numpy(writing, epsilon):
    layer = make(epsilon)
    weights = {path.rpartition("/")[2]: value for path, value in tiny.weights(layer).items()}
    wide = INPUTS.astype("float64")
    centred = wide - wide.mean(-1, keepdims=True)
    scale = np.sqrt((centred**2).mean(-1, keepdims=True) + epsilon)
    wanted = centred / scale * weights["gamma"] + weights["beta"]
    actual = layer(INPUTS, graph_form=GraphForm(layer_norm=writing))
    np.testing.assert_allclose(np.asarray(actual), wanted, atol=1e-5)


@pytest.mark.parametrize("writing", ["fused", "product", "inner_product"])
def test_a_norm_without_weights_equals_numpy(writing):
    layer = make_norm("plain_layer", 1e-3, "float32", "norm")
    again = LayerNormalization.from_config(layer.get_config())
    centred = INPUTS.astype("float64") - INPUTS.mean(-1, dtype="float64", keepdims=True)
    wanted = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-3)
    for one in (layer, again):
        np.testing.assert_allclose(one(INPUTS, graph_form=GraphForm(layer_norm=writing)), wanted, atol=1e-5)
        assert one.variables == []


@pytest.mark.parametrize("writing", ["fused", "product"])
@pytest.mark.parametrize("kind", ["rms", "zero_centred_rms"])
def test_rms_norms_equal_numpy(kind, writing):
    layer = make_norm(kind, 1e-3, "float32", "norm")
    layer.build((None, None, 16))
    np.testing.assert_array_equal(layer.gamma, np.full(16, 0.0 if kind == "zero_centred_rms" else 1.0))
    gamma = np.random.default_rng(2).normal(size=16).astype("float32")
    layer.gamma.assign(gamma)
    wide = INPUTS.astype("float64")
    wanted = wide / np.sqrt((wide**2).mean(-1, keepdims=True) + 1e-3) * (gamma + (kind == "zero_centred_rms"))
    np.testing.assert_allclose(layer(INPUTS, graph_form=GraphForm(layer_norm=writing)), wanted, atol=1e-5)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
@pytest.mark.parametrize("writing", ["fused", "product", "inner_product"])
def test_statistics_are_float32_in_half_precision(writing, policy):
    low = policy.removeprefix("mixed_")
    rounded = keras.ops.cast(INPUTS, low)
    wanted = make()(keras.ops.cast(rounded, "float32"))
    actual = make(dtype=policy)(rounded, graph_form=GraphForm(layer_norm=writing))
    assert actual.dtype == low
    error = np.abs(np.asarray(keras.ops.cast(actual, "float32")) - np.asarray(wanted)).max()
    assert error < {"float16": 2e-3, "bfloat16": 1.6e-2}[low] * 2  # the rounding of the result alone


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
@pytest.mark.parametrize("kind", ["layer", "plain_layer", "rms", "zero_centred_rms"])
def test_the_kernel_of_training_is_the_same_function(kind, policy):
    layer = make_norm(kind, 1e-5, policy, "norm")
    layer.build((None, None, 16))
    tiny.perturb(layer)
    inputs, upstream = tf.constant(INPUTS - 29.0), np.random.default_rng(1).normal(size=INPUTS.shape)
    results = []
    for training in (False, True):
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            outputs = layer(inputs, training=training)
            loss = tf.reduce_sum(tf.cast(outputs, "float32") * upstream)
        gradients = tape.gradient(loss, [inputs, *(v.value for v in layer.trainable_variables)])
        results.append([outputs, *gradients])
    assert results[0][0].dtype == results[1][0].dtype == layer.compute_dtype
    tolerance = 1e-5 if policy == "float32" else 3e-2
    batteries.assert_close(batteries.numpy_of(results[1]), batteries.numpy_of(results[0]), tolerance)


def test_battery():
    batteries.check_layer(lambda policy: LayerNormalization(epsilon=1e-5, dtype=policy), INPUTS - 30.0)


@pytest.mark.parametrize("change", [{"layer_norm": "folded"}, {"embedding": "onehot"}])
def test_unknown_graph_form(change):
    with pytest.raises(ValueError, match="Unknown"):
        GraphForm(**change)
