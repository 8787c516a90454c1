"""(IA)^3: scales of outputs and of inputs, against numpy, in inference and in training."""

import numpy as np
import pytest
import tiny
from optional_tensorflow import tf

from tfxformer.layers import Dense
from tfxformer.layers.adapters.base import attach
from tfxformer.layers.adapters.low_rank import LowRank, product
from tfxformer.layers.adapters.scaling import Scaling

INPUTS = np.random.default_rng(3).normal(size=(2, 5, 6)).astype("float32")


def dense(adapter=None, units=4, **arguments):
    layer = Dense(units, **arguments)
    layer.build((None, None, 6))
    if adapter is not None:
        attach(layer, adapter)
    return tiny.perturb(layer)


def by_numpy(layer):
    kernel, bias, scale = (np.asarray(x) for x in (layer.base_kernel, layer.base_bias, layer.adapter.scale))
    if layer.adapter.of_inputs:
        return (INPUTS * scale) @ kernel + bias
    return (INPUTS @ kernel + bias) * scale


@pytest.mark.parametrize("of_inputs", [False, True])
@pytest.mark.parametrize("training", [False, True])
def test_scales(of_inputs, training):
    layer = dense(Scaling(of_inputs))
    assert layer.adapter.scale.shape == ((6,) if of_inputs else (4,))
    np.testing.assert_allclose(layer(INPUTS, training=training), by_numpy(layer), atol=1e-5)


@pytest.mark.parametrize("of_inputs", [False, True])
def test_the_gradient_is_that_of_the_scaled_kernel(of_inputs):
    layer = dense(Scaling(of_inputs))
    variables = [layer.adapter.scale.value, layer.base_bias.value]

    def gradients(training):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(layer(INPUTS, training=training) ** 2)
        return tape.gradient(loss, variables)

    for ours, wanted in zip(gradients(True), gradients(False), strict=True):
        np.testing.assert_allclose(ours, wanted, rtol=1e-4, atol=1e-4)


def test_the_gradient_in_bfloat16_is_summed_in_float32():
    """Over 8,192 rows of ones; a bfloat16 sum ends at 256."""
    layer = Dense(1, dtype="mixed_bfloat16", use_bias=False, kernel_initializer="ones")
    layer.build((None, 1))
    attach(layer, Scaling(dtype="mixed_bfloat16"))
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(tf.cast(layer(tf.ones((8192, 1), "bfloat16"), training=True), "float32"))
    np.testing.assert_allclose(tape.gradient(loss, layer.adapter.scale.value), [8192.0])


def test_side_by_side_with_others():
    layers = (dense(Scaling()), dense(), dense(LowRank(2), units=3))
    apart = np.concatenate([np.asarray(product(INPUTS, (layer,))) for layer in layers], axis=-1)
    np.testing.assert_allclose(product(INPUTS, layers), apart, atol=1e-6)


def test_a_new_one_changes_nothing():
    layer = dense()
    before = np.asarray(layer(INPUTS))
    attach(layer, Scaling())
    np.testing.assert_array_equal(layer(INPUTS), before)
