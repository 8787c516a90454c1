"""How much memory a training step takes on a GPU, estimated from two compilers, neither of them a GPU's."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass

from keras import tree

from tfxformer.training.devices.layout import itemsize
from tfxformer.training.memory.batch_search import largest_by_figures
from tfxformer.training.memory.roads import Road, check_mesh, road
from tfxformer.training.memory.tpu_compiler import Compiled, Compiler

# Chips of 95 GiB, by their number: their compiler is in no need to compute anything twice.
_AMPLE = {1: "v5p:1x1x1", 2: "v5p:2x1x1", 4: "v5p:2x2x1", 8: "v5p:2x2x2", 16: "v5p:2x2x4"}
_MIB, _GIB = 2**20, 2**30
# What nvidia-smi shows as a GPU's memory, MiB.
_GPUS = {
    "t4": 15360,
    "v100-16": 16384,
    "v100-32": 32768,
    "l4": 23034,
    "a10g": 23028,
    "rtx-4090": 24564,
    "a100-40": 40960,
    "l40s": 46068,
    "a100-80": 81920,
    "h100": 81559,
    "h200": 143771,
}


def gpu_memory(name: str) -> int:
    """Bytes of a GPU's memory by its name.

    Raises:
        ValueError: for an unknown name.
    """
    if name.lower() not in _GPUS:
        raise ValueError(f"Unknown GPU {name!r}; known: {', '.join(_GPUS)}. Of others give the memory itself.")
    return _GPUS[name.lower()] * _MIB


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes of a training step at one batch size, on one device.

    Attributes:
        batch_size: int, of all devices together.
        low_bytes: int, what XLA for an accelerator with memory to spare takes: it fuses most, and keeps bfloat16.
        high_bytes: int, what XLA for a CPU takes: it fuses less, and computes bfloat16 and float16 in float32.
        weight_bytes, slot_bytes: int, of the variables of the model, and of the optimizer (accumulated sums too).
        gradient_bytes: int, all gradients at once, as clipping by their norm wants them.
        output_bytes: int, the model's outputs in the dtype that they have; logits are kept more than once. Of a mesh
            the part of a batch that the devices share weights for, whole.
        mesh: (data, model) sizes, or None.
        memory_bytes: int, what a batch was searched for, or None.
        possible_batch: int, the largest that one compiler brings into it, where `batch_size` is the largest of both;
            None where the batch was given. Up to a twentieth more was not tried.

    A GPU's own libraries, some hundred MiB, come on top; a fused attention of theirs takes less than what was compiled.
    """

    batch_size: int
    low_bytes: int
    high_bytes: int
    weight_bytes: int
    slot_bytes: int
    gradient_bytes: int
    output_bytes: int
    mesh: tuple[int, int] | None = None
    memory_bytes: int | None = None
    possible_batch: int | None = None

    def fits(self, memory_bytes: float) -> bool | None:
        """Whether a GPU with so much memory can train it; None where the estimates do not agree."""
        if self.low_bytes > memory_bytes:
            return False
        return True if self.high_bytes <= memory_bytes else None

    def to_dict(self) -> dict:
        """As JSON has it."""
        return asdict(self)

    def __str__(self) -> str:
        parts = {
            "weights": self.weight_bytes,
            "optimizer": self.slot_bytes,
            "gradients": self.gradient_bytes,
            "outputs (logits), once": self.output_bytes,
        }
        lines = [f"  {name}: {count / _GIB:.2f} GiB" for name, count in parts.items()]
        total = f"{self.low_bytes / _GIB:.2f} to {self.high_bytes / _GIB:.2f} GiB"
        each = "" if self.mesh is None else f" on each device of the mesh {self.mesh[0]}x{self.mesh[1]}"
        found = []
        if self.possible_batch is not None:
            found = [
                f"Of {self.memory_bytes / _GIB:.2f} GiB: batch {self.batch_size} fits by both compilers, "
                f"{self.possible_batch} by the one that takes less"
            ]
        return "\n".join([*found, f"A training step of batch {self.batch_size} takes {total}{each}; of it", *lines])


def fit_estimate(
    model,
    batch_spec,
    batch_size: int | None = None,
    *,
    memory_bytes: int | None = None,
    mesh: tuple[int, int] | None = None,
    progress: Callable[[str], None] | None = None,
) -> MemoryEstimate:
    """Estimates the memory of a training step on a GPU, from what XLA takes for the same program elsewhere.

    A formula would have to know every layer, and what a compiler fuses; so two compilers are asked, which bracket what
    XLA does with a program. It needs the extra [tpu-check], and the seconds of two compiles, of a search several. Not
    verified on a GPU.

    Args:
        model: a compiled Keras model, with its dtype policy, optimizer and gradient checkpointing as it will train; on
            JAX it may have been made within `shapes_only`.
        batch_spec: as `tpu_check` has it.
        batch_size: int, of all devices together; None searches the largest for `memory_bytes`.
        memory_bytes: int, of a GPU; `gpu_memory` has some by name.
        mesh: on JAX (data, model) sizes of 1, 2, 4, 8 or 16 GPUs.
        progress: is given a line before each compile.

    Raises:
        ImportError: without the extra.
        BackendError: for a mesh on TensorFlow.
        LoweringError: where a part has no XLA program.
        ValueError: where even 95 GiB are too few, no batch fits, or neither a batch nor a memory was given.
    """
    check_mesh(mesh)
    if batch_size is None and memory_bytes is None:
        raise ValueError("fit_estimate wants a batch_size, or memory_bytes to search the largest one for.")
    devices = _devices(mesh)
    with contextlib.ExitStack() as stack:
        ample = stack.enter_context(Compiler(_AMPLE[devices]))
        way = stack.enter_context(road(model, batch_spec, ample, mesh, replicated=False))
        cpu = stack.enter_context(Compiler(f"cpu:{devices}"))
        asked = _Asked(way, {"tpu": ample, "cpu": cpu}, progress or (lambda line: None))
        possible = None
        if batch_size is None:
            found = [asked.largest(platform, memory_bytes) for platform in ("cpu", "tpu")]
            batch_size, possible = min(found) * way.parts, max(found) * way.parts
            if not batch_size:
                raise ValueError(f"Not even a batch of {way.parts} fits into {memory_bytes / _GIB:.2f} GiB.")
        if batch_size % way.parts:
            raise ValueError(f"batch_size={batch_size} cannot be shared by {way.parts} devices: give a multiple.")
        totals = [asked.total(platform, batch_size // way.parts) for platform in ("tpu", "cpu")]
        return MemoryEstimate(
            batch_size,
            min(totals),
            max(totals),
            way.bytes_each(model.variables),
            way.bytes_each(way.slots),
            way.bytes_each(model.trainable_variables),
            _output_bytes(model, batch_spec, batch_size // way.parts),
            way.mesh,
            memory_bytes,
            possible,
        )


class _Asked:
    """What both compilers say of a train step's batch sizes; each is asked once."""

    def __init__(self, way: Road, compilers: dict[str, Compiler], say: Callable[[str], None]):
        self._way, self._compilers, self._say = way, compilers, say
        say("train step: tracing")
        self._lowerings = {platform: way.lowering(way.train, platform) for platform in compilers}
        self._known: dict[tuple[str, int], Compiled] = {}

    def total(self, platform: str, batch: int) -> int:
        """Bytes of a batch of each part of the mesh.

        Raises:
            ValueError: where the compiler has not as much.
        """
        compiled = self._compiled(platform, batch)
        if not compiled.fits:
            raise ValueError(f"Batch {batch} is larger than can be estimated: {compiled.message}")
        return max(compiled.peak_bytes, compiled.argument_bytes + compiled.temporary_bytes)

    def largest(self, platform: str, memory_bytes: int) -> int:
        """The largest batch of each part of the mesh that a compiler brings into a memory; 0 where none is."""

        def total(batch: int) -> int:
            compiled = self._compiled(platform, batch)
            return self.total(platform, batch) if compiled.fits else compiled.needed_bytes or 2 * memory_bytes

        return largest_by_figures(total, memory_bytes, self._lowerings[platform].variable_bytes)

    def _compiled(self, platform: str, batch: int) -> Compiled:
        if (platform, batch) not in self._known:
            compiler = self._compilers[platform]
            self._say(f"train step, batch {batch}: compiling for {compiler.device}")
            module = self._lowerings[platform].module(batch)
            self._known[platform, batch] = compiler.compile(module, None, self._way.partitions)
        return self._known[platform, batch]


def _devices(mesh) -> int:
    """How many a mesh has."""
    devices = 1 if mesh is None else math.prod(mesh)
    if devices not in _AMPLE:
        raise ValueError(f"mesh={mesh!r} has {devices} devices; estimated can be {', '.join(map(str, _AMPLE))}.")
    return devices


def _output_bytes(model, batch_spec, batch: int) -> int:
    outputs = tree.flatten(model.outputs)
    return sum(itemsize(output.dtype) * batch * math.prod(_sizes(output, batch_spec)) for output in outputs)


def _sizes(output, batch_spec) -> list[int]:
    """An output's sizes without the batch; one that the graph leaves open is the inputs' length."""
    length = next(spec.shape[-1] for spec in tree.flatten(batch_spec[0]) if spec is not None)
    return [length if size is None else size for size in output.shape[1:]]
