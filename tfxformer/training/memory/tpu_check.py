"""Whether a model's steps compile for a TPU and fit into its memory, found without one."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field

from keras import tree

from tfxformer.training.memory.batch_search import Search
from tfxformer.training.memory.collectives import collectives
from tfxformer.training.memory.lowering import LoweringError, Step
from tfxformer.training.memory.roads import Road, check_mesh, road
from tfxformer.training.memory.tpu_compiler import Compiled, Compiler, CompilerError

SEARCH_SECONDS = 270.0
_SEARCH_TOKENS = 2**17  # a search begins with a batch of so many numbers in its inputs' rows
_MIB, _GIB = 2**20, 2**30


@dataclass(frozen=True)
class StepCheck:
    """One step at one batch size.

    Attributes:
        step: "train", "eval", or the name of another.
        batch_size: int, of one chip, or of the chips of a mesh that share the weights; None where the step could not
            be lowered.
        fits: bool.
        peak_bytes, argument_bytes, temporary_bytes: int, of a chip's memory, or None: see `Compiled`. A batch that
            fits without a peak was found to by a compile that was not refused and not waited for.
        needed_bytes: int, the compiler's figure where it does not fit.
        flops: float, of one step of one chip, or None.
        collectives: of a mesh of several chips, see `collectives`; else None.
        lower_seconds, compile_seconds: float.
        message: why not, or "".
    """

    step: str
    batch_size: int | None
    fits: bool
    peak_bytes: int | None = None
    argument_bytes: int | None = None
    temporary_bytes: int | None = None
    needed_bytes: int | None = None
    flops: float | None = None
    collectives: dict[str, dict[str, int]] | None = None
    lower_seconds: float = 0.0
    compile_seconds: float = 0.0
    message: str = ""

    def refusal(self) -> str:
        """Why it does not fit, in a line."""
        if self.batch_size is None:
            return self.message
        return f"The {self.step} step does not fit at batch {self.batch_size}: {self.message}"

    def __str__(self) -> str:
        name = self.step if self.batch_size is None else f"{self.step}, batch {self.batch_size}"
        if not self.fits:
            needed = "" if self.needed_bytes is None else f", the compiler needs {_gib(self.needed_bytes)}"
            return f"{name}: does not fit{needed} ({self.compile_seconds:.0f} s)\n    {self.message}"
        if self.peak_bytes is None:
            return f"{name}: not refused in {self.compile_seconds:.0f} s, then left"
        flops = "" if self.flops is None else f", {self.flops:.3g} FLOPs"
        sent = [
            f"\n    {kind}: {found['count']}, {found['bytes'] / _MIB:.1f} MiB"
            for kind, found in (self.collectives or {}).items()
        ]
        return (
            f"{name}: fits, peak {_gib(self.peak_bytes)} (arguments {_gib(self.argument_bytes)}){flops}, "
            f"lowered in {self.lower_seconds:.0f} s, compiled in {self.compile_seconds:.0f} s{''.join(sent)}"
        )


@dataclass(frozen=True)
class TPUReport:
    """What `tpu_check` found.

    Attributes:
        topology, device: str.
        chips: int.
        mesh: (data, model) sizes, or None for the step of one replica, as `tf.distribute` runs it.
        memory_bytes: int, what a program may have of a chip's.
        steps: list of StepCheck, the one that counts of each step and batch size that was asked for.
        search: list of StepCheck, all batches that were tried; empty where the batch size was given.
        largest_batch: int, as in `StepCheck`, or None where it was given, or none fits.
        refused_batch: int, the smallest that was refused; between the two nothing was tried.
        search_seconds, trace_seconds: float.
        notes: list of str, what the figures include and what not.
        versions: dict of str.
    """

    topology: str
    device: str
    chips: int
    memory_bytes: int
    steps: list[StepCheck]
    search: list[StepCheck] = field(default_factory=list)
    largest_batch: int | None = None
    refused_batch: int | None = None
    search_seconds: float = 0.0
    trace_seconds: float = 0.0
    notes: list[str] = field(default_factory=list)
    versions: dict = field(default_factory=dict)
    mesh: tuple[int, int] | None = None

    @property
    def fits(self) -> bool:
        """Whether all steps compile and fit."""
        return all(step.fits for step in self.steps)

    def to_dict(self) -> dict:
        """As JSON has it."""
        return {"fits": self.fits, **asdict(self)}

    def __str__(self) -> str:
        chips = f"{self.chips} chips, each" if self.chips > 1 else "1 chip"
        mesh = "" if self.mesh is None else f", mesh {self.mesh[0]}x{self.mesh[1]} (data x model)"
        lines = [f"{self.topology}: {self.device}, {chips} with {_gib(self.memory_bytes)} for a program{mesh}"]
        if self.search:
            lines += ["", f"Search for the largest batch of a chip, {self.search_seconds:.0f} s:"]
            lines += [f"  {str(check).splitlines()[0]}" for check in self.search]
            beyond = "" if self.refused_batch is None else f"; {self.refused_batch} is refused"
            found = "none fits" if self.largest_batch is None else f"{self.largest_batch}{beyond}"
            lines += [f"  Largest batch that fits: {found}"]
        return "\n".join([*lines, "", *map(str, self.steps), "", *self.notes])


def tpu_check(
    model,
    batch_spec,
    *,
    topology: str = "v5e:1x1",
    mesh: tuple[int, int] | None = None,
    batch_size: int | Iterable[int] | None = None,
    further_steps: Iterable[tuple[Step, int]] = (),
    search_seconds: float = SEARCH_SECONDS,
    progress: Callable[[str], None] | None = None,
) -> TPUReport:
    """Compiles the train and eval steps of a model for a TPU: whether they fit, what they take, the largest batch.

    ```python
    tokens = keras.KerasTensor((None, 128), "int32")  # None is the batch
    report = training.tpu_check(model, (tokens, keras.KerasTensor((None,), "int32")), topology="v5e:1x1")
    ```

    Args:
        model: a compiled Keras model. On TensorFlow see `lowering.training_steps` for what its steps are; on JAX they
            are its `train_step` and `test_step`, and it may have been made within `shapes_only`.
        batch_spec: (x, y) or (x, y, sample_weight) as `fit` has them, of keras.KerasTensor or tf.TensorSpec with the
            first size None.
        topology: chips by kind and grid. Several are data parallel: on TensorFlow each has a replica, whose step is
            compiled; on JAX one program is, for all of them.
        mesh: on JAX (data, model) sizes whose product is the number of chips, as `training.strategy` takes them.
        batch_size: of all chips together, as `fit` has it; several to compare; None searches the largest.
        further_steps: (step, its batch size) to compile besides.
        search_seconds: float, when a search ends at the latest, but for the compile of what it found.
        progress: is given a line before each compile.

    Raises:
        ImportError: without the extra [tpu-check].
        BackendError: for a mesh on TensorFlow.
        ValueError: for an unknown topology, a mesh that does not hold its chips, a model that is not compiled, a batch
            that the chips cannot share.
        CompilerError: where the compiler fails for another reason than memory.
    """
    check_mesh(mesh)
    say = progress or (lambda line: None)
    with Compiler(topology) as compiler, road(model, batch_spec, compiler, mesh) as way:
        sizes = None if batch_size is None else _shares(batch_size, way.parts, topology)
        check = _Check(way, compiler, say)
        found = check.search(way.train, search_seconds) if sizes is None else check.train(way.train, sizes)
        largest = max((one.batch_size for one in found if one.fits and one.batch_size), default=None)
        if largest is not None:
            found.append(check.once(way.eval, largest))
        found += [check.once(way.of_function(step), size) for step, size in further_steps]
        return check.report(found, largest if sizes is None else None)


class _Check:
    """Lowers and compiles, and takes down what was tried."""

    def __init__(self, way: Road, compiler: Compiler, say: Callable[[str], None]):
        self.way, self.compiler, self.say = way, compiler, say
        self.tried: list[StepCheck] = []
        self.refused: int | None = None
        self.search_seconds = self.trace_seconds = 0.0

    def report(self, steps: list[StepCheck], largest: int | None) -> TPUReport:
        """All that was found."""
        compiler = self.compiler
        return TPUReport(
            compiler.topology,
            compiler.device,
            compiler.chips,
            compiler.memory_bytes,
            steps,
            self.tried,
            largest,
            self.refused,
            self.search_seconds,
            self.trace_seconds,
            self.way.notes,
            {**self.way.versions, **compiler.versions},
            self.way.mesh,
        )

    def train(self, step, sizes: list[int]) -> list[StepCheck]:
        """The train step at given sizes."""
        try:
            lowering = self._lowering(step)
            return [self._compile(lowering, size)[0] for size in sizes]
        except LoweringError as error:
            return [StepCheck(step.name, None, False, message=str(error))]

    def once(self, step, size: int) -> StepCheck:
        """Any step at one size."""
        return self.train(step, [size])[0]

    def search(self, step, seconds: float) -> list[StepCheck]:
        """The train step at the largest size that fits, or, where none does, at the smallest."""
        start = time.monotonic()

        def attempt(size: int, patience: float | None) -> Compiled:
            check, compiled = self._compile(lowering, size, patience)
            self.tried.append(check)
            return compiled

        try:
            lowering = self._lowering(step)
            fixed = lowering.variable_bytes
            left = seconds - (time.monotonic() - start)
            search = Search(attempt, _first_batch(step), self.compiler.memory_bytes, fixed, left)
            best = search.run()
        except LoweringError as error:
            return [StepCheck(step.name, None, False, message=str(error))]
        self.search_seconds, self.refused = time.monotonic() - start, search.refused
        if best is None:
            return [min(self.tried, key=lambda check: check.batch_size)]
        whole = (one for one in self.tried if one.batch_size == best.batch_size and one.peak_bytes is not None)
        return [next(whole)]

    def _lowering(self, step):
        self.say(f"{step.name} step: tracing")
        lowering = self.way.lowering(step)
        self.trace_seconds += lowering.seconds
        return lowering

    def _compile(self, lowering, size: int, patience: float | None = None) -> tuple[StepCheck, Compiled]:
        name = lowering.step.name
        self.say(f"{name} step, batch {size}: compiling for {self.compiler.device}")
        start = time.monotonic()
        try:
            compiled = lowering.module(size)
        except LoweringError as error:
            if error.operations:
                raise
            compiled = Compiled(False, 0.0, message=str(error))  # of this size: counts beyond 32 bits, say
        lowered = time.monotonic() - start
        if isinstance(compiled, bytes):
            compiled = self.compiler.compile(compiled, patience, self.way.partitions)
        figures = {key: value for key, value in compiled._asdict().items() if key in StepCheck.__dataclass_fields__}
        if compiled.program:
            figures["collectives"] = collectives(compiled.program, self.way.partitions)
        check = StepCheck(name, size, lower_seconds=lowered, compile_seconds=compiled.seconds, **figures)
        return check, compiled


def _gib(count: int) -> str:
    return f"{count / _GIB:.2f} GiB"


def _shares(batch_size, parts: int, topology: str) -> list[int]:
    """The batch sizes of one chip."""
    sizes = [batch_size] if isinstance(batch_size, int) else list(batch_size)
    for size in sizes:
        if size < 1 or size % parts:
            raise ValueError(f"batch_size={size} cannot be shared by the {parts} chips of {topology}: give a multiple.")
    return [size // parts for size in sizes]


def _first_batch(step) -> int:
    """A power of two that is rather too large than too small, by the longest row of the inputs."""
    rows = (math.prod(spec.shape[1:]) for spec in tree.flatten(step.specs) if spec is not None)
    return max(8, 2 ** round(math.log2(_SEARCH_TOKENS / max(1, *rows, 1))))


__all__ = ["CompilerError", "LoweringError", "Step", "StepCheck", "TPUReport", "tpu_check"]
