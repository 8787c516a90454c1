"""The residual stream's kernel: sum and norm as plain operations have them, forward and backward."""

import batteries
import numpy as np
import pytest
import tensorflow as tf
import tiny

from tfxformer.layers import DecoderBlock
from tfxformer.layers.normalization import make_norm

RANDOM = np.random.default_rng(0)
X, RESIDUAL, FIRST, SECOND = (tf.constant(RANDOM.normal(1.0, 1.0, (4, 3, 16)).astype("float32")) for _ in range(4))


@pytest.mark.parametrize("clusters", [True, False])
@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
@pytest.mark.parametrize("kind", ["layer", "rms"])
@pytest.mark.parametrize("residual", [True, False])
def test_of_sum(kind, policy, residual, clusters, monkeypatch):
    if not clusters:
        monkeypatch.setattr("tfxformer.layers.kernels.use_clusters", lambda: False)
    layer = make_norm(kind, 1e-5, policy, "norm")
    layer.build((None, None, 16))
    tiny.perturb(layer)
    variables = [variable.value for variable in layer.trainable_variables]
    inputs = [tf.cast(x, layer.compute_dtype) for x in ((X, RESIDUAL) if residual else (X,))]
    results = []
    for training in (False, True):
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            total, normed = layer.of_sum(*inputs, training=training)
            loss = tf.reduce_sum(tf.cast(total, "float32") * FIRST + tf.cast(normed, "float32") * SECOND)
        results.append([total, normed, *tape.gradient(loss, [*inputs, *variables])])
    plain, kernel = results
    assert [x.dtype for x in kernel] == [x.dtype for x in plain]
    tolerance = 1e-5 if policy == "float32" else 3e-2
    batteries.assert_close(batteries.numpy_of(kernel), batteries.numpy_of(plain), tolerance)


@pytest.mark.parametrize(("position", "cross_attention"), [("pre", False), ("pre", True), ("parallel", False)])
@pytest.mark.parametrize("norm", ["layer", "rms"])
def test_a_block_in_training_is_the_block(position, cross_attention, norm):
    """Outputs and gradients of a block without dropout: training's kernels against the plain operations."""
    block = DecoderBlock(
        {"num_heads": 4, "head_size": 4},
        {"size": 24},
        cross_attention,
        norm_position=position,
        norm=norm,
        norm_epsilon=1e-5,
    )
    block.build((None, None, 16))
    tiny.perturb(block)
    arguments = {"source": RESIDUAL} if cross_attention else {}
    results = []
    for training in (False, True):
        with tf.GradientTape() as tape:
            tape.watch(X)
            outputs = block(X, training=training, **arguments)
            loss = tf.reduce_sum(outputs * FIRST)
        variables = [variable.value for variable in block.trainable_variables]
        results.append([outputs, *tape.gradient(loss, [X, *variables])])
    batteries.assert_close(batteries.numpy_of(results[1]), batteries.numpy_of(results[0]), 2e-5)
