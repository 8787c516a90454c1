"""A sweep as a value, read from a YAML file: the model, the data, and the settings that are tried together."""

from __future__ import annotations

import dataclasses
import itertools
import json
from dataclasses import dataclass, field, fields
from pathlib import Path

from tfxformer.data.files.rows import WRITES_TARGETS
from tfxformer.export.language_model import REFUSED
from tfxformer.export.quantization.quantize import MODES
from tfxformer.models.config.transformer import STACKS
from tfxformer.recipes.sweep.rules import Checked, least, number, one_of, rule, share

WHOLE, TRIMMED = "whole", "trimmed"
BASELINE_MODE = "float32"
SIZES = ("bytes", "zipped_bytes", "median_ms")
TASKS = ("text-classification", "token-classification", WRITES_TARGETS)
DTYPES = ("float32", "float16", "bfloat16", "mixed_float16", "mixed_bfloat16")
OF_TARGETS = ("target_length", "source_language", "target_language")  # of recipes whose model writes
MOST_POINTS = 1000  # a sweep of more would not end in anyone's life


@dataclass(frozen=True)
class Tune(Checked):
    """How the checkpoint learns the task.

    Attributes:
        epochs: int.
        learning_rate: float, peak; 10 % warmup, then linear to zero.
        lora: int rank, to train LoRA factors beside every kernel and merge them; None to train all weights.
    """

    epochs: int = least(2)
    learning_rate: float = number(1e-4)
    lora: int | None = least(None)

    def __str__(self):
        return "all weights tuned" if self.lora is None else f"LoRA of rank {self.lora}"


@dataclass(frozen=True)
class Structure(Checked):
    """What is left of each size of the model; None leaves it as it is.

    Attributes:
        layers: int, evenly spread ones with the last among them.
        heads, neurons: int of each layer, the most important ones by the first-order Taylor criterion.
        stack: "encoder" or "decoder", which of an encoder-decoder; None for both of it, each losing as much.
    """

    layers: int | None = least(None)
    heads: int | None = least(None)
    neurons: int | None = least(None)
    stack: str | None = one_of(None, STACKS, none=True)

    def __post_init__(self):
        super().__post_init__()
        if self.layers is self.heads is self.neurons is None:
            raise ValueError("says nothing: give layers, heads or neurons, how many are left")

    def __str__(self):
        sizes = {"layers": self.layers, "heads": self.heads, "neurons": self.neurons}
        said = ", ".join(f"{count} {name}" for name, count in sizes.items() if count is not None)
        return said if self.stack is None else f"{said} in the {self.stack}"


@dataclass(frozen=True)
class Distil(Checked):
    """How the smaller model learns from the tuned one, on the training texts and their labels.

    Attributes:
        epochs, learning_rate: as of `Tune`.
        label_weight: float, weight of the labels' loss beside the teacher's; 0 to learn from the teacher alone.
        temperature: float, of the logits.
        hidden_states: bool, whether the teacher's hidden states are learned too.
        beams: int, of an encoder-decoder: to learn the targets that the teacher writes by so many beams (1 is greedily)
            in place of the data's (`compression.teacher_targets`); None for these.
    """

    epochs: int = least(3)
    learning_rate: float = number(1e-4)
    label_weight: float = number(1.0, zero=True)
    temperature: float = number(2.0)
    hidden_states: bool = False
    beams: int | None = least(None)

    def __str__(self):
        said = f"distilled for {self.epochs} epochs" + (" with hidden states" if self.hidden_states else "")
        return said if self.beams is None else f"{said} on targets of {self.beams} beam{'s'[: self.beams > 1]}"


@dataclass(frozen=True)
class Prune(Checked):
    """Magnitude pruning in a further fit, which learns from the teacher where the point is distilled.

    Attributes:
        sparsity: float in (0, 1), share of the kernels' weights that become zero.
        epochs, learning_rate: as of `Tune`.
    """

    sparsity: float = share(0.5)
    epochs: int = least(1)
    learning_rate: float = number(1e-4)

    def __str__(self):
        return f"{self.sparsity:.0%} zeros"


@dataclass(frozen=True)
class Choose(Checked):
    """Which point is exported.

    Attributes:
        most_points_lost: float, the most that its score on the held-out texts may lie below the baseline's, in
            hundredths of the score, or those that chrF has itself; see `results.choose`.
        smallest: "bytes", "zipped_bytes" or "median_ms": of those, the one with the least.
    """

    most_points_lost: float = number(1.0, zero=True)
    smallest: str = one_of("bytes", SIZES)


@dataclass(frozen=True)
class Point(Checked):
    """One combination of settings, in the order in which a model goes through them."""

    tune: Tune = Tune()
    vocabulary: str = one_of(WHOLE, (WHOLE, TRIMMED))
    structure: Structure | None = None
    distil: Distil | None = None
    prune: Prune | None = None
    quantize: str = one_of("dynamic_int8", tuple(MODES))

    def __str__(self):
        parts = [self.structure, self.distil, self.prune, self.quantize]
        if self.vocabulary == TRIMMED:
            parts.insert(0, "trimmed vocabulary")
        if self.tune.lora is not None:
            parts.insert(0, self.tune)
        return ", ".join(str(part) for part in parts if part is not None)

    def until(self, axis: str) -> dict:
        """The settings that a model has gone through after `axis`, those that change something, as JSON values."""
        taken = itertools.takewhile(lambda name: name != axis, AXES)
        settings = {name: getattr(self, name) for name in [*taken, axis]}
        return {
            name: dataclasses.asdict(value) if dataclasses.is_dataclass(value) else value
            for name, value in settings.items()
            if value not in (None, WHOLE)
        }


AXES = tuple(one.name for one in fields(Point))


@dataclass(frozen=True)
class Recipe(Checked):
    """A sweep.

    Attributes:
        name: str, of the exported file.
        model: str, a Hugging Face folder, a hub id, or the name of a checkpoint of `samples` ("minilm").
        data: str, the name of a split of `samples` ("vader_movies"), or {"train": file, "test": file}: .csv, .tsv or
            .jsonl files with the columns text and label, or source and target, their paths beside the recipe's.
        sweep: tuple of grids, each {axis of Point: tuple of settings}: all combinations of each grid are tried.
        task: one of `TASKS`.
        sequence_length: int S, tokens of a text or source.
        target_length: int, tokens of a target, which the file can write; None for what the training targets need.
        source_language, target_language: str, codes of the data's languages, where the model knows several.
        validation: float, share of the training texts that no fit sees; the choice is made on them.
        train_texts, test_texts: int, how many are used; None for all.
        batch_size: int. dtype: policy of training, None for float32. seed: int.
        latency_rounds: int, timed runs of each file, 2 or more (quartiles need them).
        choose: Choose.

    Raises ValueError for a value against its rule, and for what the task has not.
    """

    name: str = rule(
        dataclasses.MISSING,
        lambda name: bool(name) and Path(name).name == name,
        "a file's name without folders",
    )
    model: str
    data: str | dict
    sweep: tuple
    task: str = one_of("text-classification", TASKS)
    sequence_length: int = least(128)
    target_length: int | None = least(None)
    source_language: str | None = None
    target_language: str | None = None
    validation: float = share(0.1)
    train_texts: int | None = least(None)
    test_texts: int | None = least(None)
    batch_size: int = least(32)
    dtype: str | None = one_of(None, DTYPES, none=True)
    seed: int = least(0, 0)
    latency_rounds: int = least(50, 2)
    choose: Choose = field(default_factory=Choose)

    def __post_init__(self):
        super().__post_init__()
        settings = [one for grid in self.sweep for listed in grid.values() for one in listed]
        if self.task == WRITES_TARGETS:
            refused = [one for one in settings if isinstance(one, str) and one in REFUSED]
            if isinstance(self.data, str):
                raise ValueError("data must be {train: FILE, test: FILE}, with the columns source and target")
            if refused:
                raise ValueError(f"quantize={refused[0]!r} is not for decoders: {REFUSED[refused[0]]}")
            return
        for name, found in (
            *((name, getattr(self, name)) for name in OF_TARGETS),
            ("stack", [one for one in settings if isinstance(one, Structure) and one.stack]),
            ("beams", [one for one in settings if isinstance(one, Distil) and one.beams]),
        ):
            if found:
                raise ValueError(f"{name} is for task={WRITES_TARGETS}; this one is {self.task}")

    @property
    def writes(self) -> bool:
        """Whether the model writes targets for sources."""
        return self.task == WRITES_TARGETS

    def to_dict(self) -> dict:
        """The recipe as JSON values."""
        return json.loads(json.dumps(dataclasses.asdict(self)))

    @property
    def points(self) -> list[Point]:
        """The baseline (tuned as the first point is, nothing made smaller, float32), then all points, each once."""
        found = [Point(**settings) for grid in self.sweep for settings in combinations(grid)]
        baseline = Point(tune=found[0].tune, quantize=BASELINE_MODE)
        return list(dict.fromkeys([baseline, *found]))


def combinations(grid: dict):
    """The settings of each point of a grid: dict by axis."""
    return (dict(zip(grid, settings, strict=True)) for settings in itertools.product(*grid.values()))
