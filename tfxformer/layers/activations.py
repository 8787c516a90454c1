"""Activations under Hugging Face's names, with their exact meaning."""

from __future__ import annotations

from keras import ops

from tfxformer.layers.kernels import formulas as kernels


def _quick_gelu(x):
    return x * ops.sigmoid(1.702 * x)


def _squared_relu(x):
    return ops.square(ops.relu(x))


def _mish(x):
    return x * ops.tanh(ops.softplus(x))


# "gelu" is the erf form and its four tanh forms are one function, whatever their names suggest.
ACTIVATIONS = {
    **dict.fromkeys(("gelu", "gelu_python"), lambda x: ops.gelu(x, approximate=False)),
    **dict.fromkeys(
        ("gelu_new", "gelu_fast", "gelu_pytorch_tanh", "gelu_accurate"),
        lambda x: ops.gelu(x, approximate=True),
    ),
    "quick_gelu": _quick_gelu,
    "relu": ops.relu,
    "relu2": _squared_relu,
    "relu6": ops.relu6,
    **dict.fromkeys(("silu", "swish"), ops.silu),
    "mish": _mish,
    "tanh": ops.tanh,
    "sigmoid": ops.sigmoid,
    "hardswish": ops.hard_silu,
    "leaky_relu": lambda x: ops.leaky_relu(x, negative_slope=0.01),
    "linear": lambda x: x,
}
_TANH_FORM = {
    **dict.fromkeys(("gelu", "gelu_python"), False),
    **dict.fromkeys(("gelu_new", "gelu_fast", "gelu_pytorch_tanh", "gelu_accurate"), True),
}


def activation(name):
    """The function of an activation's name.

    Args:
        name: str, a key of `ACTIVATIONS`.

    Returns:
        f(x, training=None, bias=None), the activation of x + bias: in training, GELU runs as the CPU's kernel
        where there is one, in which the bias is free.

    Source: `transformers.activations.ACT2FN`.

    Raises ValueError for a name that is unknown.
    """
    if name not in ACTIVATIONS:
        raise ValueError(f"Unknown activation {name!r}; known: {', '.join(sorted(ACTIVATIONS))}.")
    function = ACTIVATIONS[name]

    def activate(x, training=None, bias=None):
        if training and name in _TANH_FORM:
            return kernels.gelu(x, bias, approximate=_TANH_FORM[name])
        if training:
            return function(kernels.add_bias(x, bias))
        return function(x if bias is None else x + bias)

    return activate
