"""All that training changes, kept and given back exactly."""

from __future__ import annotations

import os
from pathlib import Path

import keras
import numpy as np
from keras import ops


def value_of(variable) -> np.ndarray:
    """A copy of a variable's value, under any strategy."""
    return np.array(ops.convert_to_tensor(variable))


def state_variables(model) -> list[keras.Variable]:
    """The variables that a step may change: weights, random states, those of optimizer and metrics, each once."""
    metrics = [variable for metric in model.metrics for variable in metric.variables]
    variables = (*model.variables, *model.optimizer.variables, *metrics)
    return list({id(variable): variable for variable in variables}.values())


class State:
    """The values of `state_variables(model)` at one moment, in memory or in a file.

    Args:
        model: a compiled and built model.
        path: a file (.npz) to keep them in, written whole or not at all; None keeps them in memory.

    Raises:
        ValueError: for a model that is not built, or not compiled.
        OSError: where the file cannot be written.
    """

    def __init__(self, model, path=None):
        if getattr(model, "optimizer", None) is None or not all(layer.built for layer in model._flatten_layers()):
            raise ValueError(f"{model.name} has not all its variables yet: compile it, and call it on a batch once.")
        if not model.optimizer.built:  # without a strategy Keras does it in the first step only
            with model.distribute_strategy.scope():
                model.optimizer.build(model.trainable_variables)
        self._model, self._variables = model, state_variables(model)
        values = [value_of(variable) for variable in self._variables]
        self.path, self._values = (None, values) if path is None else (Path(path), None)
        if path is not None:
            self._write(values)

    def _write(self, values):
        temporary = self.path.with_name(f".{self.path.name}.{os.getpid()}.tmp")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("wb") as file:
                np.savez(file, *values)
            temporary.replace(self.path)
        except OSError as error:
            raise type(error)(error.errno, f"{self.path} could not be written: {error.strerror}") from error
        finally:
            if temporary.parent.is_dir():
                temporary.unlink(missing_ok=True)

    def restore(self) -> None:
        """Gives every variable its value of then; metrics that had no variables yet begin anew."""
        if self.path is None:
            values = self._values
        else:
            with np.load(self.path, allow_pickle=False) as file:
                values = [file[f"arr_{index}"] for index in range(len(self._variables))]
        for variable, value in zip(self._variables, values, strict=True):
            if value.dtype.kind == "V":  # bfloat16, which numpy files do not know
                value = value.view(keras.backend.standardize_dtype(variable.dtype))
            variable.assign(value)
        known = set(map(id, self._variables))
        for metric in self._model.metrics:
            if any(id(variable) not in known for variable in metric.variables):
                metric.reset_state()

    def discard(self) -> None:
        """Removes the file, where there is one."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)
