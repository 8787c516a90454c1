"""Recomputed blocks: the gradients of kept ones, also where a train step computes on values in place of variables."""

import keras
import numpy as np
import pytest
import tiny
from optional_tensorflow import tf

from tfxformer.layers.kernels.recomputing import recomputed

pytestmark = pytest.mark.usefixtures("plain_kernels")


def gradients(model, inputs, jit):
    """Of the sum of the outputs' squares by values that stand in for the weights, as `training.TrainStep` has it."""
    variables = model.trainable_variables

    @tf.function(jit_compile=jit, autograph=False)
    def run(values):
        with tf.GradientTape() as tape:
            tape.watch(values)
            with keras.StatelessScope(list(zip(variables, values, strict=True))):
                loss = tf.reduce_sum(tf.square(model(inputs, training=True)["sequence_output"]))
        return tape.gradient(loss, values)

    return run([tf.identity(variable.value) for variable in variables])


@pytest.mark.parametrize(("family", "jit", "sizes"), [("bert", False, {}), ("gpt2", True, {"decoder__num_layers": 1})])
def test_values_in_place_of_weights_get_their_gradients(family, jit, sizes):
    kept, again = (
        gradients(model, tiny.inputs_for(model), jit)
        for model in (tiny.backbone(family, gradient_checkpointing=flag, **sizes) for flag in (False, True))
    )
    for one, other in zip(kept, again, strict=True):
        if one is None:  # the pooler, which this loss does not read
            assert other is None
            continue
        one, other = (np.asarray(tf.convert_to_tensor(gradient)) for gradient in (one, other))
        assert np.abs(one).max() > 0
        np.testing.assert_allclose(other, one, rtol=0, atol=1e-5 * max(1.0, np.abs(one).max()))


def test_variables_get_theirs_too_and_nothing_is_kept():
    # A kernel from a seed: of a random one, a sum that cancels may differ by more than the last digits.
    layer = keras.layers.Dense(3, kernel_initializer=keras.initializers.GlorotUniform(seed=0))
    x = tf.random.stateless_normal((4, 3), [0, 1])
    layer.build(x.shape)
    calls = []

    def inside(x):
        calls.append(x)
        return layer(x)

    with tf.GradientTape() as tape:
        tape.watch(x)
        y = tf.reduce_sum(recomputed(layer, inside, x) ** 2)
    found = tape.gradient(y, [layer.kernel.value, layer.bias.value, x])
    assert len(calls) == 2  # once forward, once for the gradient
    output = np.asarray(x) @ np.asarray(layer.kernel)
    np.testing.assert_allclose(found[0], 2 * np.asarray(x).T @ output, rtol=1e-5)
    np.testing.assert_allclose(found[1], 2 * output.sum(0), rtol=1e-5)
    np.testing.assert_allclose(found[2], 2 * output @ np.asarray(layer.kernel).T, rtol=1e-5)
