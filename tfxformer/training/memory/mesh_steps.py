"""A model's own steps on JAX, with its variables laid out on a mesh of devices that need not be there."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import keras
import numpy as np
from keras import tree

from tfxformer.backend import deferred
from tfxformer.training.devices.layout import BATCH, MODEL, itemsize, parts_of_a_batch, tensor_parallel
from tfxformer.training.optimizers.optimizers import updating_optimizer


class MeshStep(NamedTuple):
    """What is to be lowered.

    Attributes:
        name: str.
        function: of the values of `variables`, and of tensors; pure.
        variables: tuple of lists of variables.
        specs: tuple of nests with shape and dtype; None as the first size is the batch.
        keeps_state: bool, whether it returns (logs, the new values), which then take the place of the old.
    """

    name: str
    function: Callable
    variables: tuple
    specs: tuple
    keeps_state: bool


class MeshSteps:
    """The steps of a model while it is laid out; made by `on_mesh`."""

    def __init__(self, model, batch_spec, distribution):
        self.model, self.distribution = model, distribution
        weights, others = model.trainable_variables, model.non_trainable_variables
        slots, metrics = model.optimizer.variables, model.metrics_variables
        kept = {"specs": (tuple(batch_spec),), "keeps_state": True}
        self.slots = [*slots, *getattr(getattr(model, "_sums", None), "variables", ())]
        self.train = MeshStep("train", model.train_step, (weights, others, slots, metrics), **kept)
        self.eval = MeshStep("eval", model.test_step, (weights, others, metrics), **kept)

    def of_function(self, name: str, function: Callable, specs: tuple) -> MeshStep:
        """The step of a function that reads the model's variables."""
        variables = self.model.variables

        def pure(values, *arguments):
            with keras.StatelessScope(zip(variables, values[0], strict=True)):
                return function(*arguments)

        return MeshStep(name, pure, (variables,), specs, False)

    @property
    def parts(self) -> int:
        """Over how many devices, or groups of them, a batch is shared."""
        return parts_of_a_batch(self.distribution)

    def sharding(self, variable):
        """How a variable lies, as JAX has it."""
        layout = getattr(variable, "_layout", None)
        layout = self.distribution.get_variable_layout(variable) if layout is None else layout
        return getattr(layout, "backend_layout", layout)

    def bytes_each(self, variables) -> int:
        """Of variables, on one device."""
        return sum(
            itemsize(one._dtype) * math.prod(self.sharding(one).shard_shape(tuple(one.shape))) for one in variables
        )


@contextlib.contextmanager
def on_mesh(model, batch_spec, devices, sizes: tuple[int, int]) -> Iterator[MeshSteps]:
    """Lays a compiled model out on devices, which may be those of a topology; everything is as before afterwards.

    Weights, optimizer and sums are Keras' own, by `layout`'s rules: what `training.strategy` with this mesh trains.
    The optimizer is a new one of the same config, whose variables have no values.

    Args:
        batch_spec: (x, y, sample_weight) as `fit` has them, with shape and dtype; None as the first size is the batch.
        devices: list of jax.Device.
        sizes: (data, model), whose product is the number of devices.

    Raises:
        ValueError: for a model that is not compiled.
    """
    import jax

    if getattr(model, "optimizer", None) is None:
        raise ValueError(f"{model.name} has no optimizer: compile it first; the train step is made of it.")
    mesh = keras.distribution.DeviceMesh(sizes, (BATCH, MODEL), np.array(devices))
    distribution, before = tensor_parallel(mesh), keras.distribution.distribution()
    symbols = tree.map_structure(
        lambda spec: None if spec is None else jax.ShapeDtypeStruct((2, *spec.shape[1:]), dtype_of(spec)),
        tuple(batch_spec),
    )
    with _laid_out(model, distribution, symbols):
        keras.distribution.set_distribution(distribution)
        try:
            yield MeshSteps(model, batch_spec, distribution)
        finally:
            keras.distribution.set_distribution(before)


def dtype_of(spec) -> str:
    """The dtype of a spec, an array or a Keras tensor by its name."""
    return keras.backend.standardize_dtype(spec.dtype)


@contextlib.contextmanager
def _laid_out(model, distribution, symbols) -> Iterator[None]:
    """The model with its weights laid out, and a new optimizer whose slots lie as they do."""
    given, layouts = model.optimizer, {}
    new = type(given).from_config(given.get_config())
    updating_optimizer(new).accumulated_by_model = getattr(model, "gradient_accumulation_steps", 1)
    with getattr(model, "without_sums", contextlib.nullcontext)():
        try:
            model.optimizer = None  # what `fit` would build of the first batch, metrics too, but no slots
            model._symbolic_build(data_batch=symbols)
            for variable in model.variables:
                layouts[id(variable)] = (variable, variable._layout)
                variable._layout = None
                variable._layout = distribution.get_variable_layout(variable)
            model.optimizer = new
            with deferred():
                new.build(model.trainable_variables)  # Keras reads the slots' layout from the weights
                model._symbolic_build(data_batch=symbols)  # the sums of an accumulation
            yield
        finally:
            for variable, layout in layouts.values():
                variable._layout = layout
            model.optimizer = given
