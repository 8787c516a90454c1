"""Which steps are compiled: TensorFlow's, of one replica, or JAX's, one program for all chips of a mesh."""

from __future__ import annotations

import contextlib
import importlib.metadata
import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

from tfxformer.backend import BackendError, backend, on_jax
from tfxformer.backend import tensorflow as tf
from tfxformer.training.devices.layout import layout
from tfxformer.training.memory.lowering import Lowering, training_steps
from tfxformer.training.memory.mesh_lowering import MeshLowering, chips
from tfxformer.training.memory.mesh_steps import on_mesh
from tfxformer.training.memory.tpu_compiler import Compiler

_GIB = 2**30
_COMPILED = "Compiled ahead of time by the TPU's own compiler; nothing was run on a TPU. "


class Road(NamedTuple):
    """How a model's steps come to the compiler.

    Attributes:
        train, eval: the steps.
        lowering: of a step, and a platform where it is not a TPU's: a `Lowering` or `MeshLowering`.
        of_function: a step of the caller's, a `Step`, as one that `lowering` takes.
        bytes_each: of variables on one device.
        slots: the variables of the optimizer, and the sums of an accumulation.
        parts: over how many chips, or groups of them, a batch is shared.
        partitions: how many chips one program is for.
        mesh: (data, model) sizes, or None for a replica's step.
        notes: what the figures include and what not.
        versions: of the backend.
    """

    train: object
    eval: object
    lowering: Callable
    of_function: Callable
    bytes_each: Callable
    slots: list
    parts: int
    partitions: int
    mesh: tuple[int, int] | None
    notes: list[str]
    versions: dict[str, str]


def check_mesh(mesh) -> None:
    """Refuses a mesh where no program is for several chips.

    Raises:
        BackendError: on TensorFlow.
    """
    if mesh is not None and not on_jax():
        raise BackendError(
            f"A mesh of chips needs Keras on JAX, and it runs on {backend()}: set the environment variable "
            "KERAS_BACKEND=jax before Python starts."
        )


@contextlib.contextmanager
def road(model, batch_spec, compiler: Compiler, mesh=None, *, replicated: bool = True) -> Iterator[Road]:
    """The road of the backend that Keras runs on; it holds while the context does.

    Args:
        model: compiled.
        batch_spec: (x, y, sample_weight), of tf.TensorSpec or keras.KerasTensor.
        compiler: for whose chips it is.
        mesh: (data, model) sizes of all chips, see `check_mesh`; None is data parallel.
        replicated: of TensorFlow alone, see `training_steps`.

    Raises:
        ValueError: for a mesh that does not hold all chips, or a model that is not compiled.
    """
    if on_jax():
        yield from _on_mesh(model, batch_spec, compiler, mesh)
        return
    steps = training_steps(model, batch_spec, replicated=replicated)
    accumulated = getattr(getattr(model, "_accumulation", None), "accumulator", None)
    yield Road(
        steps["train"],
        steps["eval"],
        lambda step, platform="tpu": Lowering(model, step),
        lambda step: step,
        lambda variables: sum(tf.as_dtype(one.dtype).size * math.prod(one.shape) for one in variables),
        [*model.optimizer.variables, *([] if accumulated is None else tf.nest.flatten(accumulated.gradients))],
        compiler.chips,
        1,
        None,
        _replica_notes(model, compiler),
        {"tensorflow": tf.__version__},
    )


def _on_mesh(model, batch_spec, compiler: Compiler, mesh) -> Iterator[Road]:
    sizes = _sizes(mesh, compiler)
    with on_mesh(model, batch_spec, chips(compiler.topology), sizes) as steps:
        yield Road(
            steps.train,
            steps.eval,
            lambda step, platform="tpu": MeshLowering(steps, step, platform),
            lambda step: steps.of_function(*step),
            steps.bytes_each,
            steps.slots,
            steps.parts,
            compiler.chips,
            sizes,
            _mesh_notes(model, sizes),
            {"jax": importlib.metadata.version("jax")},
        )


def _sizes(mesh, compiler: Compiler) -> tuple[int, int]:
    """(data, model) sizes of a mesh that holds all chips."""
    try:
        data, model = (compiler.chips, 1) if mesh is None else map(int, mesh)
    except (TypeError, ValueError):
        raise ValueError(f"mesh is the sizes (data, model), such as (1, 8), not {mesh!r}.") from None
    if data < 1 or model < 1 or data * model != compiler.chips:
        raise ValueError(
            f"A mesh of {data} x {model} wants {data * model} chips, and {compiler.topology} has {compiler.chips}: "
            f"give sizes whose product is {compiler.chips}, or another topology."
        )
    return data, model


def _accumulation_notes(model) -> list[str]:
    steps = getattr(model, "gradient_accumulation_steps", 1)
    if steps == 1:
        return []
    return [f"A batch is one of {steps} that an update accumulates; their sums are among the arguments."]


def _replica_notes(model, compiler: Compiler) -> list[str]:
    notes = [
        f"{_COMPILED}TensorFlow's CPU kernels wrote the program that was compiled; on a TPU its TPU kernels do.",
        *_accumulation_notes(model),
    ]
    if compiler.chips > 1:
        gradients = 4 * sum(math.prod(weight.shape) for weight in model.trainable_variables)
        notes.append(
            f"Data parallel on {compiler.chips} chips: the step of one replica was compiled, batch sizes are a chip's. "
            f"Not included: the all-reduce of {gradients / _GIB:.2f} GiB of gradients, its time and its buffers (up to "
            "as much again)."
        )
    return notes


def _mesh_notes(model, sizes: tuple[int, int]) -> list[str]:
    notes = [f"{_COMPILED}The program is that of the model's own step on JAX.", *_accumulation_notes(model)]
    data, shards = sizes
    if data * shards == 1:
        return notes
    rows = layout(model, sizes)
    shared = f"{shards} chips share the weights" if shards > 1 else "Each chip has all weights"
    notes.append(
        f"{shared}, {rows.bytes_each / _GIB:.2f} GiB on each; a batch size is that of one of the {data} parts of a "
        "batch. What chips send each other is included, with its buffers; the bytes are those of its results on a chip."
    )
    whole = [row for row in rows if row.why_whole]
    if whole:
        notes.append(f"{len(whole)} weights stay on every chip: {whole[0].path} ({whole[0].why_whole}), ...")
    return notes
