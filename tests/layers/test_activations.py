"""Activations against their formulas in float64, and against transformers' own."""

import math

import numpy as np
import pytest

from tfxformer.layers.activations import ACTIVATIONS, activation

X = np.concatenate([np.linspace(-9.0, 9.0, 400), [-30.0, -1e-4, 0.0, 1e-4, 30.0]])


def erf_gelu(x):
    return x * 0.5 * (1.0 + np.vectorize(math.erf)(x / math.sqrt(2.0)))


def tanh_gelu(x):
    return 0.5 * x * (1.0 + np.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * x**3)))


def sigmoid(x):
    return 1.0 / (1.0 + np.exp(-x))


TRUTH = {
    "gelu": erf_gelu,
    "gelu_python": erf_gelu,
    "gelu_new": tanh_gelu,
    "gelu_fast": tanh_gelu,
    "gelu_pytorch_tanh": tanh_gelu,
    "gelu_accurate": tanh_gelu,
    "quick_gelu": lambda x: x * sigmoid(1.702 * x),
    "relu": lambda x: np.maximum(x, 0.0),
    "relu2": lambda x: np.maximum(x, 0.0) ** 2,
    "relu6": lambda x: np.clip(x, 0.0, 6.0),
    "silu": lambda x: x * sigmoid(x),
    "swish": lambda x: x * sigmoid(x),
    "mish": lambda x: x * np.tanh(np.logaddexp(x, 0.0)),
    "tanh": np.tanh,
    "sigmoid": sigmoid,
    "hardswish": lambda x: x * np.clip(x + 3.0, 0.0, 6.0) / 6.0,
    "leaky_relu": lambda x: np.where(x > 0, x, 0.01 * x),
    "linear": lambda x: x,
}


def test_every_activation_has_a_truth():
    assert set(TRUTH) == set(ACTIVATIONS)


@pytest.mark.parametrize("training", [None, False, True])
@pytest.mark.parametrize("name", TRUTH)
def test_activation_is_its_formula(name, training):
    result = activation(name)(X.astype("float32"), training=training)
    # XLA's erf ends at 1 - 2e-7: at -30 that is 3e-6 of GELU, where float32 itself resolves 2e-6 of x.
    np.testing.assert_allclose(np.asarray(result), TRUTH[name](X), rtol=2e-6, atol=4e-6)


def test_unknown_name_lists_the_known():
    with pytest.raises(ValueError, match=r"Unknown activation 'gelu_2'.*gelu_new.*relu"):
        activation("gelu_2")


@pytest.mark.reference
def test_names_mean_what_transformers_means():
    torch = pytest.importorskip("torch")
    activations = pytest.importorskip("transformers.activations")
    x = torch.from_numpy(X.astype("float32"))
    for name in ACTIVATIONS:
        if name in activations.ACT2FN:
            expected = activations.ACT2FN[name](x).numpy()
            np.testing.assert_allclose(
                np.asarray(activation(name)(x.numpy())), expected, rtol=3e-6, atol=3e-6, err_msg=name
            )
    known = {name for name in ACTIVATIONS if name in activations.ACT2FN}
    assert known >= set(ACTIVATIONS) - {"hardswish", "gelu_accurate"}
