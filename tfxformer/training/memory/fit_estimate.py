"""How much memory a training step takes on a GPU, estimated from two compilers, neither of them a GPU's."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass

from tfxformer.backend import tensorflow as tf
from tfxformer.training.memory.lowering import Lowering, training_steps
from tfxformer.training.memory.tpu_compiler import Compiler

_AMPLE = "v5p:1x1x1"  # 95 GiB: its compiler is in no need to compute anything twice
_GIB = 2**30


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes of a training step at one batch size.

    Attributes:
        batch_size: int.
        low_bytes: int, what XLA for an accelerator with memory to spare takes: it fuses most, and keeps bfloat16.
        high_bytes: int, what XLA for a CPU takes: it fuses less, and computes bfloat16 and float16 in float32.
        weight_bytes, slot_bytes: int, of the variables of the model, and of the optimizer (accumulated sums too).
        gradient_bytes: int, all gradients at once, as clipping by their norm wants them.
        output_bytes: int, the model's outputs in the dtype that they have; logits are kept more than once.

    A GPU's own libraries, some hundred MiB, come on top.
    """

    batch_size: int
    low_bytes: int
    high_bytes: int
    weight_bytes: int
    slot_bytes: int
    gradient_bytes: int
    output_bytes: int

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
        return "\n".join([f"A training step of batch {self.batch_size} takes {total}; of it", *lines])


def fit_estimate(
    model, batch_spec, batch_size: int, *, progress: Callable[[str], None] | None = None
) -> MemoryEstimate:
    """Estimates the memory of a training step on a GPU, from what XLA takes for the same program elsewhere.

    A formula would have to know every layer, and what a compiler fuses; so two compilers are asked, which bracket what
    XLA does with a program. It needs the extra [tpu-check], and the seconds of two compiles. Not verified on a GPU.

    Args:
        model: a compiled Keras model, with its dtype policy, optimizer and gradient checkpointing as it will train.
        batch_spec: as `tpu_check` has it.
        batch_size: int.
        progress: is given a line before each compile.

    Raises:
        ImportError: without the extra.
        LoweringError: where a part has no XLA program.
        ValueError: where even 95 GiB are too few.
    """
    say = progress or (lambda line: None)
    say("train step: tracing")
    lowering = Lowering(model, training_steps(model, batch_spec, replicated=False)["train"])
    module = lowering.module(batch_size)
    totals = []
    for topology in (_AMPLE, "cpu"):
        with Compiler(topology) as compiler:
            say(f"train step, batch {batch_size}: compiling for {compiler.device}")
            compiled = compiler.compile(module)
        if not compiled.fits:
            raise ValueError(f"Batch {batch_size} is larger than can be estimated: {compiled.message}")
        totals.append(max(compiled.peak_bytes, compiled.argument_bytes + compiled.temporary_bytes))
    optimizer_bytes = _bytes(model.optimizer.variables)
    known = _bytes(model.variables)
    accumulated = getattr(getattr(model, "_accumulation", None), "accumulator", None)
    sums = [] if accumulated is None else tf.nest.flatten(accumulated.gradients)
    slots = optimizer_bytes + sum(one.dtype.size * one.shape.num_elements() for one in sums)
    outputs = sum(
        tf.as_dtype(output.dtype).size * batch_size * math.prod(_sizes(output, batch_spec))
        for output in tf.nest.flatten(model.outputs)
    )
    return MemoryEstimate(
        batch_size, min(totals), max(totals), known, slots, _bytes(model.trainable_variables), outputs
    )


def _bytes(variables) -> int:
    return sum(tf.as_dtype(one.dtype).size * math.prod(one.shape) for one in variables)


def _sizes(output, batch_spec) -> list[int]:
    """An output's sizes without the batch; one that the graph leaves open is the inputs' length."""
    length = next(spec.shape[-1] for spec in tf.nest.flatten(batch_spec[0]) if spec is not None)
    return [length if size is None else size for size in output.shape[1:]]
