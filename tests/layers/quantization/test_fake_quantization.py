"""Fake quantization: numpy's int8 grid, a gradient that passes, and the same layers when it is over."""

import batteries
import keras
import numpy as np
import pytest
import tiny
from optional_tensorflow import tf

from tfxformer.layers import Dense, TransformerBlock
from tfxformer.layers.quantization import observing
from tfxformer.layers.quantization.fake_quantization import FakeQuantization, RangeObserver, rounding
from tfxformer.layers.quantization.graph_form import DEFAULT, STATIC_INT8

GENERATOR = np.random.default_rng(0)


def on_the_grid(x, lowest, highest):
    """The values that int8 with a scale and a whole zero point has nearest to x (Jacob et al., 2018, section 2)."""
    scale = (highest - lowest) / 255
    zero = np.round(-lowest / scale)
    return (np.clip(np.round(x / scale) + zero, 0, 255) - zero) * scale


def dense(**arguments):
    layer = Dense(6, **arguments)
    layer.build((None, 8))
    return tiny.perturb(layer)


def test_activations_and_kernels_round_to_int8():
    layer, x = dense(), GENERATOR.normal(size=(5, 8)).astype("float32")
    with rounding(FakeQuantization({(layer, "product"): (-0.7, 1.3)}, DEFAULT)):
        found = np.asarray(layer(x))
    kernel = np.asarray(layer.kernel)
    scale = np.abs(kernel).max(axis=0) / 127
    product = x @ (np.round(kernel / scale) * scale) + np.asarray(layer.bias)
    np.testing.assert_allclose(found, on_the_grid(product, -0.7, 1.3), atol=2e-6)
    assert len(np.unique(np.round(found / (2.0 / 255)))) > 10 and found.max() <= 1.31


def test_the_gradient_passes_inside_of_the_range_only():
    layer, x = dense(use_bias=False), tf.constant(GENERATOR.normal(size=(5, 8)).astype("float32"))
    with rounding(FakeQuantization({(layer, "product"): (-0.3, 0.3)}, DEFAULT)), tf.GradientTape() as tape:
        loss = tf.reduce_sum(layer(x))
    kernel = np.asarray(layer.kernel)
    scale = np.abs(kernel).max(axis=0) / 127
    inside = np.abs(x @ (np.round(kernel / scale) * scale)) < 0.3
    assert 0 < inside.sum() < inside.size
    gradient = tape.gradient(loss, layer.trainable_variables)[0]
    np.testing.assert_allclose(gradient, x.numpy().T @ inside.astype("float32"), atol=1e-5)


def test_ranges_hold_zero_and_all_that_was_seen():
    layer = dense(activation="relu")
    observer = RangeObserver([layer], DEFAULT)
    with rounding(observer):
        for shift in (1.0, 3.0):
            layer(np.full((2, 8), shift, "float32"))
    products = [np.full((2, 8), s) @ np.asarray(layer.kernel) + np.asarray(layer.bias) for s in (1.0, 3.0)]
    found = observer.fake_quantization().ranges
    lowest, highest = found[id(layer), "product"]
    assert lowest == pytest.approx(min(0, *(p.min() for p in products)), abs=1e-5)
    assert highest == pytest.approx(max(0, *(p.max() for p in products)), abs=1e-5)
    assert found[id(layer), "activation"][0] == 0.0


def test_other_layers_do_not_round():
    layer, other, x = dense(), dense(), GENERATOR.normal(size=(5, 8)).astype("float32")
    wanted = np.asarray(other(x))
    with rounding(FakeQuantization({(layer, "product"): (-0.1, 0.1)}, DEFAULT)):
        np.testing.assert_array_equal(other(x), wanted)
        assert np.abs(layer(x)).max() <= 0.11


def block(norm_placement="post", checkpointing=False, gated=False):
    arguments = {"attention": {"num_heads": 2, "head_size": 8}, "norm_placement": norm_placement}
    arguments["feed_forward"] = {"size": 24, "gated": gated, "activation": "silu" if gated else "gelu"}
    layer = TransformerBlock(**arguments, gradient_checkpointing=checkpointing, name="block")
    layer.build((None, None, 16))
    return tiny.perturb(layer)


class Model(keras.Model):
    """Any model around a layer of ours: `observing` calls it."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def call(self, batch):
        return self.layer(batch["x"])


@pytest.mark.parametrize("norm_placement", ["post", "pre"])
@pytest.mark.parametrize("gated", [False, True])
def test_training_rounds_as_a_file_does_and_a_second_run_too(norm_placement, gated):
    """The output of training is that of inference under rounding; checkpointed, the gradients are the same."""
    x = GENERATOR.normal(size=(2, 5, 16)).astype("float32")
    results = []
    for checkpointing in (False, True):
        layer = block(norm_placement, checkpointing, gated)
        quantization = observing.observe_ranges(Model(layer), [{"x": x}], STATIC_INT8)
        plain = np.asarray(layer(x))
        with rounding(quantization):
            inference = np.asarray(layer(x))
            with tf.GradientTape() as tape:
                training = layer(x, training=True)
                loss = tf.reduce_sum(training**2)
        gradients = tape.gradient(loss, layer.trainable_variables)  # outside: a recomputation knows it all the same
        np.testing.assert_allclose(training, inference, atol=1e-6)
        assert 1e-3 < np.abs(inference - plain).max() < 0.5
        np.testing.assert_array_equal(layer(x), plain)
        results.append([np.asarray(gradient) for gradient in gradients])
    for one, other in zip(*results, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)
    assert max(np.abs(gradient).max() for gradient in results[0]) > 0.1


def test_in_half_precision_the_grid_stays():
    layer = dense(dtype="mixed_bfloat16")
    x = GENERATOR.normal(size=(64, 8)).astype("float32")
    with rounding(FakeQuantization({(layer, "product"): (-0.9, 1.3)}, DEFAULT)):
        found = batteries.numpy_of(layer(x))
    assert np.abs(found - on_the_grid(found, -0.9, 1.3)).max() <= 2.0**-8
