"""What functions of `hooks` write inside a training step, and callbacks read and write between two steps."""

from __future__ import annotations

import numpy as np

from tfxformer.backend import on_jax, on_tensorflow, strategy_of
from tfxformer.backend import tensorflow as tf
from tfxformer.training.step.carried import Watched, places_of


class StepSums:
    """Numbers that begin at zero. Inside a step an entry is read as a variable, and written by `assign`.

    Args:
        model: any compiled and built Keras model.
        shapes: of each.
        dtype: of all.
        of_replicas: bool, whether each replica writes its own, and their sum is read; else all write the same.
    """

    def __init__(self, model, shapes, dtype="float32", of_replicas=False):
        self.model = model
        if on_tensorflow():
            with strategy_of(model).scope():
                self.variables = [_variable(shape, dtype, of_replicas) for shape in shapes]
        else:
            self.watched = Watched(name="watched")
            self.variables = [
                self.watched.add_variable(shape, "zeros", dtype, name=f"sum_{index}")
                for index, shape in enumerate(shapes)
            ]

    def read(self, index: int = 0) -> np.ndarray:
        """A copy of what an entry holds; waits for the step."""
        if not on_jax():
            return np.array(tf.convert_to_tensor(self.variables[index]))
        model, variable = self.model, self.variables[index]
        if variable._value is None:  # Keras has emptied it: the state is with the step
            return np.array(model._jax_state["metrics_variables"][places_of(model, [variable])[0]])
        return np.array(variable.value)

    def write(self, value, index: int = 0) -> None:
        """Gives an entry a value, between two steps."""
        between_steps(self.model)
        self.variables[index].assign(value)


def between_steps(model) -> None:
    """Lets a callback read and write a model's variables, which on JAX hold nothing until an epoch ends."""
    if on_jax():
        model.jax_state_sync()


def _variable(shape, dtype, of_replicas: bool) -> tf.Variable:
    if not of_replicas:
        aggregation = tf.VariableAggregation.ONLY_FIRST_REPLICA
        return tf.Variable(tf.zeros(shape, dtype), trainable=False, aggregation=aggregation)
    return tf.Variable(
        tf.zeros(shape, dtype),
        trainable=False,
        synchronization=tf.VariableSynchronization.ON_READ,
        aggregation=tf.VariableAggregation.SUM,
    )
