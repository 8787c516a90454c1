"""Fills a model's variables straight from arrays, without random values first.

A model built under `deferred()` has variables without values; `initialize` gives each its array as its first
value, so that filling costs one pass over the file and no second copy. The names with an underscore are Keras' own
(3.15); this file is the only place that uses them.
"""

from __future__ import annotations

import keras
import numpy as np


def deferred():
    """A scope in which variables are created without values; fill each with `initialize` afterwards."""
    return keras.StatelessScope(initialize_variables=False)


def initialize(variable: keras.Variable, value: np.ndarray | None = None) -> None:
    """Gives a variable its value: the array's, or without one its initializer's.

    Args:
        variable: with a value (then assigned) or without (then created with this one).
        value: array of the variable's shape; cast to the variable's dtype. The variable owns a copy: the array may
            be a read-only view of a mapped file.
    """
    if value is None:
        if variable._value is None:
            variable._deferred_initialize()
        return
    value = np.asarray(value)
    if value.dtype != variable.dtype:
        value = value.astype(variable.dtype)
    if variable._value is not None:
        variable.assign(np.ascontiguousarray(value))
        return
    variable._initializer = lambda shape, dtype: keras.ops.convert_to_tensor(value, dtype)
    variable._deferred_initialize()
