"""numpy's side of `keras.ops`: what is written once on `ops` runs on these where there is no Keras."""

from __future__ import annotations

import functools
from types import SimpleNamespace

import numpy as np


def _scatter(indices, values, shape):
    """Zeros with values added at indices [N, 2]."""
    result = np.zeros(shape, values.dtype)
    np.add.at(result, (indices[:, 0], indices[:, 1]), values)
    return result


def _softmax(x, axis=-1):
    weights = np.exp(x - x.max(axis=axis, keepdims=True))
    return weights / weights.sum(axis=axis, keepdims=True)


_NAMES = (
    *("abs", "equal", "logical_and", "maximum", "multiply", "power", "reshape", "stack", "take", "where"),
    *(
        "bitwise_not",
        "bitwise_or",
        "count_nonzero",
        "exp",
        "greater_equal",
        "log",
        "max",
        "ones_like",
        "sum",
        "zeros_like",
    ),
)
NUMPY = SimpleNamespace(
    **{name: getattr(np, name) for name in _NAMES},
    fori_loop=lambda lower, upper, body, state: functools.reduce(lambda s, i: body(i, s), range(lower, upper), state),
    log_softmax=lambda x, axis=-1: np.log(_softmax(x, axis)),
    scatter=_scatter,
    softmax=_softmax,
    view=lambda x, dtype: x.view(dtype),
)
