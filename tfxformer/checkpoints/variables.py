"""Fills a model's variables straight from arrays, without random values first.

A model built under `backend.deferred()` has variables without values; `initialize` gives each its array as its first
value, so that filling costs one pass over the file and no second copy. The names with an underscore are Keras' own
(3.15); this file and `backend.deferred` are the only places that use them.
"""

from __future__ import annotations

import keras
import numpy as np

from tfxformer.backend import on_jax, on_tensorflow
from tfxformer.backend import tensorflow as tf

_ALIGNMENT = 16  # bytes; TensorFlow shares the memory of no array that lies on less


def initialize(variable: keras.Variable, value: np.ndarray | None = None, *, transpose: bool = False) -> None:
    """Gives a variable its value: the array's, or without one its initializer's.

    Args:
        variable: with a value (then assigned) or without (then created with this one).
        value: array of the variable's shape; cast to the variable's dtype. The variable owns a copy: the array may
            be a read-only view of a mapped file.
        transpose: whether to transpose the (two-dimensional) value. TensorFlow does it on all cores, and straight
            into the memory that the variable keeps; numpy would add a copy.
    """
    if value is None:
        if variable._value is None:
            variable._deferred_initialize()
        return
    sharding = _sharding(variable)
    if sharding is not None:
        _initialize_by_parts(variable, value.T if transpose else value, sharding)
        return
    if value.dtype != variable.dtype:
        value = value.astype(variable.dtype)
    tensor = _tensor(value, transpose)
    if variable._value is not None:
        variable.assign(tensor)
        return
    variable._initializer = lambda shape, dtype: tensor
    variable._deferred_initialize()


def _tensor(value: np.ndarray, transpose: bool):
    """A tensor with memory of its own. `tf.convert_to_tensor` copies an array twice, an operator once or not at all."""
    if not on_tensorflow():
        return keras.ops.transpose(value) if transpose else keras.ops.convert_to_tensor(value)
    if transpose:
        return tf.raw_ops.Transpose(x=value, perm=tuple(reversed(range(value.ndim))))
    if value.ctypes.data % _ALIGNMENT:
        return tf.raw_ops.Identity(input=value)
    return tf.raw_ops.DeepCopy(x=value)  # an array that lies as tensors do is read where it is


def _sharding(variable: keras.Variable):
    """How Keras' distribution on JAX lays a variable out; None without one."""
    if not on_jax() or keras.distribution.distribution() is None:
        return None
    variable._initialize_layout()
    return getattr(variable._layout, "backend_layout", variable._layout)  # of Keras 3.15, and of 3.13


def _initialize_by_parts(variable: keras.Variable, value: np.ndarray, sharding) -> None:
    """Gives each device its part, cut from the array: neither a device nor the host holds a copy of the whole."""
    import jax

    def part(index) -> np.ndarray:
        return np.array(value[index], variable.dtype, order="C")  # a copy: the file may be written anew

    tensor = jax.make_array_from_callback(value.shape, sharding, part)
    if variable._value is not None:
        variable.assign(tensor)
        return
    variable._initialize(tensor)
    variable._initializer = None
