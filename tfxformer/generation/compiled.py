"""A function of a model as one compiled function, on TensorFlow and on JAX."""

from __future__ import annotations

import keras
from keras import ops

from tfxformer.backend import on_tensorflow
from tfxformer.backend import tensorflow as tf


def compiled(model, function, jit_compile: bool = True, signature=None):
    """`function` compiled; it reads the model's variables as they are when it is called.

    Args:
        model: what `function` calls; its variables are arguments of the program on JAX, which would make constants of
            them otherwise.
        function: of nests of tensors to nests of tensors.
        jit_compile: bool, by XLA; without it a graph of TensorFlow. JAX has no other way than XLA.
        signature: tuple of nests of `(shape, dtype)`, whose unknown sizes one graph of TensorFlow serves; JAX compiles
            every shape anew.
    """
    if on_tensorflow():
        specs = None if signature is None else _specs(signature)
        return tf.function(function, jit_compile=jit_compile or None, input_signature=specs)
    import jax

    variables = model.variables

    @jax.jit
    def pure(values, *arguments):
        with keras.StatelessScope(zip(variables, values, strict=True)):
            return function(*arguments)

    return lambda *arguments: pure([variable.value for variable in variables], *arguments)


def _specs(signature):
    return keras.tree.map_structure(lambda spec: tf.TensorSpec(spec.shape, spec.dtype, spec.name), signature)


def shape_of(shape: tuple, dtype: str, name: str | None = None) -> keras.KerasTensor:
    """An entry of a signature."""
    return keras.KerasTensor(shape, dtype, name=name)


def to_tensors(*arrays) -> tuple:
    """Arrays as tensors of their own dtypes."""
    return tuple(ops.convert_to_tensor(array) for array in arrays)
