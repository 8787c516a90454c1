"""Heads against numpy, and the layer battery."""

import batteries
import numpy as np
import pytest
import tiny

from tfxformer.layers import GraphForm
from tfxformer.models.heads import ClassificationHead, LogitsBias, MaskedLMTransform

INPUTS = np.random.default_rng(0).normal(size=(2, 3, 6)).astype("float32")


@pytest.mark.parametrize("hidden", [None, "tanh"])
def test_classification_head(hidden):
    batteries.check_layer(lambda policy: ClassificationHead(4, hidden, 0.3, dtype=policy), INPUTS)
    head = ClassificationHead(4, hidden)
    head.build(INPUTS.shape)
    tiny.perturb(head)
    weights = {path.split("/", 1)[1]: value for path, value in tiny.weights(head).items()}
    x = INPUTS if hidden is None else np.tanh(INPUTS @ weights["dense/kernel"] + weights["dense/bias"])
    np.testing.assert_allclose(
        np.asarray(head(INPUTS)), x @ weights["output/kernel"] + weights["output/bias"], atol=1e-6
    )


def test_classification_head_with_a_norm():
    arguments = {"norm_epsilon": 1e-3, "norm_bias": False, "hidden_bias": False}
    batteries.check_layer(lambda policy: ClassificationHead(4, "relu", 0.3, **arguments, dtype=policy), INPUTS)
    head = ClassificationHead(4, "relu", **arguments)
    head.build(INPUTS.shape)
    tiny.perturb(head)
    weights = {path.split("/", 1)[1]: value.astype("float64") for path, value in tiny.weights(head).items()}
    assert set(weights) == {"dense/kernel", "norm/gamma", "output/kernel", "output/bias"}
    x = np.maximum(INPUTS @ weights["dense/kernel"], 0.0)
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-3) * weights["norm/gamma"]
    wanted = x @ weights["output/kernel"] + weights["output/bias"]
    np.testing.assert_allclose(np.asarray(head(INPUTS)), wanted, atol=5e-6)


def test_classification_head_drops_in_training_only():
    head = ClassificationHead(4, "tanh", 0.5)
    plain = np.asarray(head(INPUTS))
    np.testing.assert_array_equal(np.asarray(head(INPUTS)), plain)
    assert np.abs(np.asarray(head(INPUTS, training=True)) - plain).max() > 1e-3


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_logits_are_float32(policy):
    assert ClassificationHead(4, dtype=policy)(INPUTS).dtype == "float32"
    assert LogitsBias(dtype=policy)(INPUTS).dtype == "float32"


def test_masked_lm_transform():
    batteries.check_layer(lambda policy: MaskedLMTransform(5, "gelu", 1e-3, dtype=policy), INPUTS)
    layer = MaskedLMTransform(5, "relu", 1e-3)
    layer.build(INPUTS.shape)
    tiny.perturb(layer)
    weights = {path.split("/", 1)[1]: value.astype("float64") for path, value in tiny.weights(layer).items()}
    x = np.maximum(INPUTS @ weights["dense/kernel"] + weights["dense/bias"], 0.0)
    centred = x - x.mean(-1, keepdims=True)
    wanted = (
        centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-3) * weights["norm/gamma"] + weights["norm/beta"]
    )
    for graph_form in (GraphForm(), GraphForm(layer_norm="product")):
        np.testing.assert_allclose(np.asarray(layer(INPUTS, graph_form=graph_form)), wanted, atol=2e-6)


def test_logits_bias():
    batteries.check_layer(lambda policy: LogitsBias(dtype=policy), INPUTS)
    layer = LogitsBias()
    layer.build(INPUTS.shape)
    tiny.perturb(layer)
    (bias,) = tiny.weights(layer).values()
    np.testing.assert_allclose(np.asarray(layer(INPUTS)), INPUTS + bias, atol=1e-7)
