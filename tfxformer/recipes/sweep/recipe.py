"""A sweep as a value, read from a YAML file: the model, the data, and the settings that are tried together."""

from __future__ import annotations

import dataclasses
import itertools
import json
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path

import yaml

WHOLE, TRIMMED = "whole", "trimmed"
BASELINE_MODE = "float32"
SIZES = ("bytes", "zipped_bytes", "median_ms")
TASKS = ("text-classification", "token-classification")


@dataclass(frozen=True)
class Tune:
    """How the checkpoint learns the task.

    Attributes:
        epochs: int.
        learning_rate: float, peak; 10 % warmup, then linear to zero.
        lora: int rank, to train LoRA factors beside every kernel and merge them; None to train all weights.
    """

    epochs: int = 2
    learning_rate: float = 1e-4
    lora: int | None = None

    def __str__(self):
        return "all weights tuned" if self.lora is None else f"LoRA of rank {self.lora}"


@dataclass(frozen=True)
class Structure:
    """What is left of each size of the model; None leaves it as it is.

    Attributes:
        layers: int, evenly spread ones with the last among them.
        heads, neurons: int of each layer, the most important ones by the first-order Taylor criterion.
    """

    layers: int | None = None
    heads: int | None = None
    neurons: int | None = None

    def __post_init__(self):
        if self.layers is self.heads is self.neurons is None:
            raise ValueError("says nothing: give layers, heads or neurons, how many are left")

    def __str__(self):
        sizes = {"layers": self.layers, "heads": self.heads, "neurons": self.neurons}
        return ", ".join(f"{count} {name}" for name, count in sizes.items() if count is not None)


@dataclass(frozen=True)
class Distil:
    """How the smaller model learns from the tuned one, on the training texts and their labels.

    Attributes:
        epochs, learning_rate: as of `Tune`.
        label_weight: float, weight of the labels' loss beside the teacher's; 0 to learn from the teacher alone.
        temperature: float, of the logits.
        hidden_states: bool, whether the teacher's hidden states are learned too.
    """

    epochs: int = 3
    learning_rate: float = 1e-4
    label_weight: float = 1.0
    temperature: float = 2.0
    hidden_states: bool = False

    def __str__(self):
        return f"distilled for {self.epochs} epochs" + (" with hidden states" if self.hidden_states else "")


@dataclass(frozen=True)
class Prune:
    """Magnitude pruning in a further fit, which learns from the teacher where the point is distilled.

    Attributes:
        sparsity: float in (0, 1), share of the kernels' weights that become zero.
        epochs, learning_rate: as of `Tune`.
    """

    sparsity: float = 0.5
    epochs: int = 1
    learning_rate: float = 1e-4

    def __post_init__(self):
        if not 0 < self.sparsity < 1:
            raise ValueError(f"sparsity={self.sparsity!r} must be a share between 0 and 1")

    def __str__(self):
        return f"{self.sparsity:.0%} zeros"


@dataclass(frozen=True)
class Choose:
    """Which point is exported.

    Attributes:
        within_points: float, the most that its score on the held-out texts may lie below the baseline's, in hundredths
            of the score; see `results.choose`.
        smallest: "bytes", "zipped_bytes" or "median_ms": of those, the one with the least.
    """

    within_points: float = 1.0
    smallest: str = "bytes"

    def __post_init__(self):
        if self.smallest not in SIZES:
            raise ValueError(f"smallest={self.smallest!r} is none of {', '.join(SIZES)}")


@dataclass(frozen=True)
class Point:
    """One combination of settings, in the order in which a model goes through them."""

    tune: Tune = Tune()
    vocabulary: str = WHOLE
    structure: Structure | None = None
    distil: Distil | None = None
    prune: Prune | None = None
    quantize: str = "dynamic_int8"

    def __post_init__(self):
        if self.vocabulary not in (WHOLE, TRIMMED):
            raise ValueError(f"vocabulary: {self.vocabulary!r} is neither {WHOLE} nor {TRIMMED}")

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
class Recipe:
    """A sweep.

    Attributes:
        name: str, of the exported file.
        model: str, a Hugging Face folder, a hub id, or the name of a checkpoint of `samples` ("minilm").
        data: str, the name of a split of `samples` ("vader_movies"), or {"train": file, "test": file}: .csv, .tsv or
            .jsonl files with the columns text and label, their paths beside the recipe's.
        sweep: tuple of grids, each {axis of Point: tuple of settings}: all combinations of each grid are tried.
        task: one of `TASKS`.
        sequence_length: int S, tokens of a text.
        validation: float, share of the training texts that no fit sees; the choice is made on them.
        train_texts, test_texts: int, how many are used; None for all.
        batch_size: int. dtype: policy of training, None for float32. seed: int.
        latency_rounds: int, timed runs of each file.
        choose: Choose.
    """

    name: str
    model: str
    data: str | dict
    sweep: tuple
    task: str = "text-classification"
    sequence_length: int = 128
    validation: float = 0.1
    train_texts: int | None = None
    test_texts: int | None = None
    batch_size: int = 32
    dtype: str | None = None
    seed: int = 0
    latency_rounds: int = 50
    choose: Choose = field(default_factory=Choose)

    def __post_init__(self):
        if self.task not in TASKS:
            raise ValueError(f"task={self.task!r}: sweeps are for {' and '.join(TASKS)}")
        if not 0 < self.validation < 1:
            raise ValueError(f"validation={self.validation!r} must be a share of the training texts between 0 and 1")
        if not self.name or Path(self.name).name != self.name:
            raise ValueError(f"name={self.name!r} must be a file's name without folders")

    def to_dict(self) -> dict:
        """The recipe as JSON values."""
        return json.loads(json.dumps(dataclasses.asdict(self)))

    @property
    def points(self) -> list[Point]:
        """The baseline (tuned as the first point is, nothing made smaller, float32), then all points, each once."""
        found = [Point(**settings) for grid in self.sweep for settings in _combinations(grid)]
        baseline = Point(tune=found[0].tune, quantize=BASELINE_MODE)
        return list(dict.fromkeys([baseline, *found]))


def read_recipe(path) -> Recipe:
    """The recipe of a YAML file.

    Raises:
        ValueError: naming the file, the key, and what is wanted there. OSError: where it cannot be read.
    """
    path = Path(path)
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not YAML: {error}") from error
    try:
        recipe = make_recipe(content)
    except ValueError as error:
        raise ValueError(f"{path}: {error}.") from error
    if isinstance(recipe.data, dict):  # files are named from the recipe's own folder
        files = {part: str(path.parent / name) for part, name in recipe.data.items()}
        recipe = dataclasses.replace(recipe, data=files)
    return recipe


def make_recipe(content) -> Recipe:
    """A recipe of plain values, as YAML has them.

    Raises:
        ValueError: naming the key and what is wanted there.
    """
    content = _mapping(content, "the recipe", Recipe)
    if isinstance(content.get("data"), dict) and set(content["data"]) != {"train", "test"}:
        raise ValueError("data: files are {train: FILE, test: FILE}")
    grids = content.get("sweep")
    grids = grids if isinstance(grids, list) else [grids]
    if not grids or not all(isinstance(grid, dict) and grid for grid in grids):
        raise ValueError(f"sweep: wanted a mapping of {', '.join(AXES)} to lists of settings, or a list of such")
    grids = tuple(_grid(grid, f"sweep[{index}]" if len(grids) > 1 else "sweep") for index, grid in enumerate(grids))
    choose = _made(Choose, content.get("choose", {}), "choose")
    return _made(Recipe, {**content, "sweep": grids, "choose": choose}, "the recipe")


def _grid(grid: dict, place: str) -> dict:
    _known(grid, AXES, place)
    kinds = typing.get_type_hints(Point)
    found = {}
    for axis, settings in grid.items():
        if not isinstance(settings, list) or not settings:
            raise ValueError(f"{place}.{axis}: wanted a list of settings, got {settings!r}")
        made = [_value(kinds[axis], one, f"{place}.{axis}[{index}]") for index, one in enumerate(settings)]
        found[axis] = tuple(made)
    for settings in _combinations(found):
        try:
            Point(**settings)
        except ValueError as error:
            raise ValueError(f"{place}.{error}") from error
    return found


def _combinations(grid: dict):
    return (dict(zip(grid, settings, strict=True)) for settings in itertools.product(*grid.values()))


def _made(cls, content, place: str):
    """A dataclass of plain values, each of the kind that its field has."""
    content = _mapping(content, place, cls)
    kinds = typing.get_type_hints(cls)
    inside = "" if cls is Recipe else f"{place}."
    values = {name: _value(kinds[name], value, f"{inside}{name}") for name, value in content.items()}
    try:
        return cls(**values)
    except (TypeError, ValueError) as error:
        missing = [one.name for one in fields(cls) if one.name not in values and _required(one)]
        raise ValueError(f"{place}: {f'lacks {missing}' if missing else error}") from error


def _value(kind, value, place: str):
    """A value as its field wants it; YAML reads 1e-4 as a text, which is taken for the number it means."""
    if isinstance(kind, types.UnionType):
        if value is None and type(None) in kind.__args__:
            return None
        kinds = [one for one in kind.__args__ if one is not type(None)]
        kind = next((one for one in kinds if one in (str, dict) and isinstance(value, one)), kinds[0])
    if dataclasses.is_dataclass(kind):
        return value if isinstance(value, kind) else _made(kind, value, place)
    if kind is float and isinstance(value, (int, str)) and not isinstance(value, bool):
        try:
            value = float(value)
        except ValueError as error:
            raise ValueError(f"{place}: wanted a number, got {value!r}") from error
    if not isinstance(value, kind) or (kind is int and (isinstance(value, bool) or value < 0)):
        names = {float: "a number", int: "an integer of 0 or more", str: "a text", bool: "true or false"}
        raise ValueError(f"{place}: wanted {names.get(kind, kind.__name__)}, got {value!r}")
    return value


def _mapping(content, place: str, cls) -> Mapping:
    if not isinstance(content, Mapping):
        raise ValueError(f"{place}: wanted a mapping of {', '.join(one.name for one in fields(cls))}, got {content!r}")
    _known(content, [one.name for one in fields(cls)], place)
    return content


def _known(content: Mapping, names, place: str) -> None:
    if unknown := [name for name in content if name not in names]:
        raise ValueError(f"{place}: unknown {', '.join(map(repr, unknown))}; known: {', '.join(names)}")


def _required(one) -> bool:
    return one.default is dataclasses.MISSING and one.default_factory is dataclasses.MISSING
