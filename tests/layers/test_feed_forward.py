"""The feed-forward half against numpy."""

import batteries
import numpy as np
import pytest
import tiny

from tfxformer.layers import FeedForward

INPUTS = np.random.default_rng(0).normal(size=(2, 3, 6)).astype("float32")


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("use_bias", [False, True])
def test_equals_numpy(gated, use_bias, training):
    layer = FeedForward(10, "silu", gated, use_bias)
    layer.build((None, None, 6))
    tiny.perturb(layer)
    weights = {path.split("/", 1)[1]: value.astype("float64") for path, value in tiny.weights(layer).items()}
    assert len(weights) == (3 if gated else 2) * (2 if use_bias else 1)

    def dense(name, x):
        return x @ weights[f"{name}/kernel"] + weights.get(f"{name}/bias", 0.0)

    def silu(x):
        return x / (1.0 + np.exp(-x))

    inner = silu(dense("gate", INPUTS)) * dense("expand", INPUTS) if gated else silu(dense("expand", INPUTS))
    np.testing.assert_allclose(np.asarray(layer(INPUTS, training=training)), dense("output", inner), atol=2e-6)


@pytest.mark.parametrize("gated", [False, True])
def test_battery(gated):
    batteries.check_layer(lambda policy: FeedForward(10, "gelu", gated, dtype=policy), INPUTS)


def test_unknown_activation():
    with pytest.raises(ValueError, match=r"Unknown activation 'gleu'; known: .*gelu"):
        FeedForward(10, "gleu").build((None, None, 6))
