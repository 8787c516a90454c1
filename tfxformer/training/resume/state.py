"""All that training changes, kept and given back exactly."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
from keras import ops

from tfxformer.backend import on_jax, strategy_of, whole_value
from tfxformer.files import replacing
from tfxformer.training.step.accumulation import Accumulator, copies
from tfxformer.training.step.carried import Watched


def value_of(variable) -> np.ndarray:
    """A copy of a variable's value, under any strategy; of one that hosts share, every process asks at once."""
    if on_jax():
        return np.array(whole_value(variable))
    return np.array(ops.convert_to_tensor(variable))


def state_variables(model) -> list[keras.Variable]:
    """The variables that a step may change: weights, random states, those of optimizer and metrics, each once.

    Not what callbacks watch: they begin anew with each fit.
    """
    metrics = [one for metric in model.metrics if not isinstance(metric, Watched) for one in metric.variables]
    variables = (*model.variables, *model.optimizer.variables, *metrics)
    return list({id(variable): variable for variable in variables}.values())


def accumulator_of(model) -> Accumulator | None:
    """The unfinished accumulation of a `DistributedModel`; None where it has none, or not yet."""
    return getattr(getattr(model, "_accumulation", None), "accumulator", None)


class State:
    """The values of `state_variables(model)` at one moment, in memory or in a file.

    Gradients that a `DistributedModel` has accumulated are kept too, those of each of this process' replicas.

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
            with strategy_of(model).scope():
                model.optimizer.build(model.trainable_variables)
        self._model, self._accumulator = model, accumulator_of(model)
        self._variables = state_variables(model)
        if self._accumulator is not None:
            sums = [local for variable in self._accumulator.sums for local in copies(variable)]
            self._variables += [self._accumulator.batches, *sums]
        values = [value_of(variable) for variable in self._variables]
        self.path, self._values = None if path is None else Path(path).expanduser(), None
        self.put(values)

    def put(self, values: list[np.ndarray]) -> None:
        """Keeps these values in place of those there are."""
        if self.path is None:
            self._values = values
        else:
            self._write(values)

    def _write(self, values):
        with replacing(self.path) as part, part.open("wb") as file:
            np.savez(file, *values)

    def values(self) -> list[np.ndarray]:
        """What is kept."""
        if self.path is None:
            return self._values
        with np.load(self.path, allow_pickle=False) as file:
            values = [file[f"arr_{index}"] for index in range(len(self._variables))]
        return [
            # bfloat16, which numpy files do not know
            value.view(keras.backend.standardize_dtype(variable.dtype)) if value.dtype.kind == "V" else value
            for variable, value in zip(self._variables, values, strict=True)
        ]

    def restore(self) -> None:
        """Gives every variable its value of then; metrics that had no variables yet begin anew."""
        for variable, value in zip(self._variables, self.values(), strict=True):
            variable.assign(value)
        accumulator = accumulator_of(self._model)
        if accumulator is not None and accumulator is not self._accumulator:  # made since: nothing was accumulated then
            accumulator.reset()
        known = set(map(id, self._variables))
        for metric in self._model.metrics:
            if any(id(variable) not in known for variable in metric.variables):
                metric.reset_state()

    def discard(self) -> None:
        """Removes the file, where there is one."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)
