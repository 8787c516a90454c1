"""Dense equals Keras', and its bias gradient in bfloat16 equals the exact sum."""

import keras
import numpy as np
import pytest
from optional_tensorflow import tf

from tfxformer.layers import Dense


@pytest.mark.parametrize("activation", [None, "tanh"])
@pytest.mark.parametrize("use_bias", [True, False])
def test_equals_keras_dense(activation, use_bias):
    ours = Dense(5, activation=activation, use_bias=use_bias, bias_initializer="normal")
    ours.build((None, None, 7))
    keras_dense = keras.layers.Dense(5, activation=activation, use_bias=use_bias)
    keras_dense.build((None, None, 7))
    keras_dense.set_weights(ours.get_weights())
    x = np.random.default_rng(0).normal(size=(3, 4, 7)).astype("float32")
    for training in (False, True):
        np.testing.assert_allclose(ours(x, training=training), keras_dense(x), atol=1e-6)


def test_bias_gradient_in_bfloat16():
    layer = Dense(8, dtype="mixed_bfloat16")
    layer.build((None, None, 4))
    x = np.zeros((32, 128, 4), "float32")
    upstream = tf.constant(np.random.default_rng(0).uniform(0.5, 1.0, (32, 128, 8)), tf.bfloat16)
    with tf.GradientTape() as tape:
        outputs = layer(x, training=True)
    gradient = tape.gradient(outputs, layer.bias.value, output_gradients=upstream)
    exact = np.asarray(upstream).astype("float64").sum(axis=(0, 1))
    np.testing.assert_allclose(np.asarray(gradient).astype("float64"), exact, rtol=1e-2)


def test_lora_reaches_the_training_path():
    layer = Dense(6)
    layer.build((None, 4))
    layer.enable_lora(2)
    layer.lora_kernel_b.assign(np.ones((2, 6), "float32"))
    x = np.random.default_rng(0).normal(size=(3, 4)).astype("float32")
    np.testing.assert_allclose(layer(x, training=True), layer(x), atol=1e-5)
