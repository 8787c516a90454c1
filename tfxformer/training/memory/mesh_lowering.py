"""A step on JAX as StableHLO, from shapes alone: one program for all devices of a mesh, as `fit` runs it."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterator

import keras
from keras import tree

from tfxformer.training.devices.layout import BATCH
from tfxformer.training.memory.lowering import LoweringError, as_on_accelerators, short
from tfxformer.training.memory.mesh_steps import MeshStep, MeshSteps, dtype_of
from tfxformer.training.memory.tpu_compiler import LIBTPU


class MeshLowering:
    """A step of a model that is laid out, for any batch size.

    Args:
        steps: of the model, whose layout it is.
        step: `MeshStep`.
        platform: "tpu" or "cpu", for which the program is written.

    Attributes:
        seconds: 0.0; each batch size is traced anew.
    """

    seconds = 0.0

    def __init__(self, steps: MeshSteps, step: MeshStep, platform: str = "tpu"):
        self.step, self._steps, self._platform = step, steps, platform

    @property
    def variable_bytes(self) -> int:
        """Of the step's variables on one device."""
        return sum(map(self._steps.bytes_each, self.step.variables))

    def module(self, batch_size: int) -> bytes:
        """The program of a batch size of each part of the mesh: a StableHLO module, variables among its arguments.

        Raises:
            LoweringError: where JAX cannot trace it.
        """
        import jax

        state = tuple([self._value(one) for one in kind] for kind in self.step.variables)
        rows = batch_size * self._steps.parts
        arguments = tree.map_structure(lambda spec: None if spec is None else self._tensor(spec, rows), self.step.specs)
        options = {}
        if self.step.keeps_state:  # as Keras' make_train_function has it
            shardings = tree.map_structure(lambda value: value.sharding, state)
            options = {"donate_argnums": 0, "out_shardings": (None, shardings)}
        try:
            with as_on_accelerators(self._steps.model):
                traced = jax.jit(self.step.function, **options).trace(state, *arguments)
                lowered = traced.lower(lowering_platforms=(self._platform,))
        except (ValueError, TypeError, RuntimeError, NotImplementedError) as error:
            raise LoweringError(f"The {self.step.name} step cannot be traced: {short(error)}") from error
        written = io.BytesIO()
        lowered.compiler_ir().operation.write_bytecode(written)
        return written.getvalue()

    def _value(self, variable):
        """A variable's value, as JAX traces it."""
        import jax

        dtype = keras.backend.standardize_dtype(variable._dtype)
        return jax.ShapeDtypeStruct(tuple(variable.shape), dtype, sharding=self._steps.sharding(variable))

    def _tensor(self, spec, rows: int):
        """An argument, its rows shared over the parts of the mesh where they are the batch."""
        import jax

        of_batch = bool(spec.shape) and spec.shape[0] is None
        axes = [BATCH if of_batch else None, *[None] * (len(spec.shape) - 1)][: len(spec.shape)]
        layout = keras.distribution.TensorLayout(axes, self._steps.distribution.device_mesh)
        shape = (rows, *spec.shape[1:]) if of_batch else tuple(spec.shape)
        return jax.ShapeDtypeStruct(shape, dtype_of(spec), sharding=layout.backend_layout)


def chips(topology: str) -> list:
    """The devices of a topology, which need not be there: jax.Device, to lay something out on."""
    from jax.experimental import topologies

    with _environment(LIBTPU):
        return list(topologies.get_topology_desc(topology, platform="tpu").devices)


@contextlib.contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    """Environment variables that libtpu reads when it is loaded; what the user has set stays, and comes back."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update({name: value for name, value in values.items() if before[name] is None})
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
