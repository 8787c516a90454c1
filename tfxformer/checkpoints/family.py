"""What a page of `families/` says: a reference family's config keys and tensor names, as data.

A page maps config.json keys to our switches and the reference's module names to our layer paths; everything else
(reading, writing, transposing, checking) is the same for all and stands in this folder once.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tfxformer.checkpoints.files.errors import CheckpointError
from tfxformer.checkpoints.layout import Module, Place, place
from tfxformer.models import (
    AttentionConfig,
    ConvolutionConfig,
    DeltaRuleConfig,
    FeedForwardConfig,
    HeadConfig,
    NormConfig,
    StackConfig,
    TransformerConfig,
)

OWN_HEAD = "language_model_head"
SETTINGS_KEY = "tfxformer"  # our own settings in config.json; other readers pass over it
# Switches that config.json may not have: they change nothing outside training, or the file's tensors tell them.
UNSTATED = (
    "stochastic_depth", "dropout", "attention_dropout", "embedding_dropout", "classifier_dropout", "pooler",
    "initializer_range", "initializer",
)  # fmt: skip


@dataclass(frozen=True)
class Key:
    """A switch's key in config.json and its default there; a function of the whole config where it depends.

    Attributes:
        name: the key.
        default: what an absent or null key means.
        also: other names that files have for the key.
    """

    name: str
    default: Any
    also: tuple[str, ...] = ()

    def read(self, reference: Mapping) -> Any:
        """The key's value in a config.json; its default where the key is absent or null.

        Raises:
            CheckpointError: where two names of the key have different values.
        """
        values = {name: reference[name] for name in (self.name, *self.also) if reference.get(name) is not None}
        if not values:
            return self.default(reference) if callable(self.default) else self.default
        first, *others = values.values()
        if any(value != first for value in others):
            raise CheckpointError(f"config.json contradicts itself: {values} are names of one value.")
        return first

    def write(self, written: dict, value) -> None:
        """Sets the key in a config.json, unless it says so already (perhaps in other words)."""
        if any(name in written for name in (self.name, *self.also)) and self.read(written) == value:
            return
        for name in self.also:
            written.pop(name, None)
        written[self.name] = value


@dataclass(frozen=True)
class Rule:
    """Switches that config.json says in several keys, or not one to one.

    Attributes:
        keys: the keys that it reads, older spellings too.
        read: config.json -> our switches by path ("decoder.attention.rotary") and their values; may raise
            CheckpointError.
        write: TransformerConfig -> keys of config.json and their values.
    """

    keys: tuple[str, ...]
    read: Callable[[Mapping], dict[str, Any]]
    write: Callable[[TransformerConfig], dict[str, Any]]

    def apply(self, written: dict, config: TransformerConfig) -> None:
        """Sets the keys in a config.json, unless they say so already (perhaps in an older spelling)."""
        ours = {**{key: value for key, value in written.items() if key not in self.keys}, **self.write(config)}
        if any(key in written for key in self.keys) and self.read(written) == self.read(ours):
            return
        for key in self.keys:
            written.pop(key, None)
        written.update(self.write(config))


@dataclass(frozen=True)
class Head:
    """A head of the reference.

    Attributes:
        architecture: the class that has it.
        modules: our path -> the reference's module (a name, or `Module`).
        prefix: what stands before backbone tensors in this class's files; None for the family's.
    """

    architecture: str
    modules: Mapping[str, str | Module]
    prefix: str | None = None


@dataclass(frozen=True)
class Blocks:
    """The blocks of one of a family's stacks.

    Attributes:
        name: (config, i) -> the reference's module of block i.
        modules: our path within a block -> the reference's within its (a name, or `Module`); a function of the config
            where names depend on it.
    """

    name: Callable[[TransformerConfig, int], str]
    modules: Mapping[str, str | Module] | Callable[[TransformerConfig], Mapping[str, str | Module]]


@dataclass(frozen=True)
class Family:
    """One reference family.

    Attributes:
        name: `TransformerConfig.family` and `model_type` in config.json.
        prefix: what stands before backbone tensors in checkpoints with a head ("bert."), absent in bare ones.
        architecture: the reference's class of the bare encoder, decoder, or both.
        encoder_architecture: that of the encoder alone, where the family has a decoder, too.
        keys: our switch ("encoder.num_layers") -> `Key`.
        fixed: our switch -> the one value that the family has.
        rules: `Rule`s, for switches that are not one key each.
        required: config.json key -> the values that we implement; another one is an error.
        modules: our layer path -> the reference's module (a name, or `Module`), for everything outside the blocks.
        own_tables: in their place, where the encoder has a token table of its own.
        numbered: our layer path -> the reference's module, each with a "{}" for the number of a block.
        blocks: our stack's name -> `Blocks`.
        pooler: the reference's pooler module, or None.
        heads: our task name -> `Head`.
        other_heads: module names of the reference's heads that we have no task for.
        tied: tensors that repeat another one in older files, where the model has no such table of its own.
        computed: tensor that some files hold and we compute -> what it must be, of a config.
        written: keys that a saved config.json has, whatever the one said that the model came from.
        writes_computed: whether the reference wants these tensors in a file.
    """

    name: str
    prefix: str
    architecture: str
    keys: Mapping[str, Key]
    fixed: Mapping[str, Any]
    modules: Mapping[str, str | Module]
    blocks: Mapping[str, Blocks]
    heads: Mapping[str, Head]
    rules: tuple[Rule, ...] = ()
    own_tables: Mapping[str, str | Module] = field(default_factory=dict)
    encoder_architecture: str | None = None
    numbered: Mapping[str, str] = field(default_factory=dict)
    pooler: str | None = None
    required: Mapping[str, tuple] = field(default_factory=dict)
    other_heads: tuple[str, ...] = ()
    tied: Mapping[str, str] = field(default_factory=dict)
    computed: Mapping[str, Callable[[TransformerConfig], np.ndarray]] = field(default_factory=dict)
    written: Mapping[str, Any] = field(default_factory=dict)
    writes_computed: bool = False

    def read_config(self, reference: Mapping) -> TransformerConfig:
        """config.json as a TransformerConfig.

        Raises:
            CheckpointError: for a value that is not implemented here.
        """
        self._check_numbers(reference)
        for key, values in self.required.items():
            if key in reference and reference[key] not in values:
                raise CheckpointError(
                    f"config.json says {key}={reference[key]!r}; for {self.name!r} tfxformer implements "
                    f"{' or '.join(map(repr, values))} only, and would be silently wrong otherwise."
                )
        values: dict = {"family": self.name}
        for path, value in self.fixed.items():
            _set(values, path, value)
        for path, key in self.keys.items():
            _set(values, path, key.read(reference))
        try:
            for rule in self.rules:
                for path, value in rule.read(reference).items():
                    _set(values, path, value)
            return TransformerConfig.from_dict(values)
        except CheckpointError:
            raise
        except (ValueError, TypeError, AttributeError) as error:  # numbers, lists and dicts in each other's places
            said = [
                key.name for path, key in self.keys.items() if re.search(rf"\b{path.rpartition('.')[2]}\b", str(error))
            ]
            keys = f" (in config.json: {', '.join(said)})" if said else ""
            raise CheckpointError(f"config.json does not describe a {self.name!r} model: {error}{keys}") from error

    def _check_numbers(self, reference: Mapping) -> None:
        """Refuses NaN and infinity in the keys that are read: JSON has neither, but Python's reader takes both."""
        names = [name for key in self.keys.values() for name in (key.name, *key.also)]
        for name in (*names, *(name for rule in self.rules for name in rule.keys)):
            if not all(math.isfinite(number) for number in _floats(reference.get(name))):
                raise CheckpointError(f"config.json says {name}={reference[name]!r}: every number must be finite.")

    def write_config(self, config: TransformerConfig, reference: Mapping | None = None) -> dict:
        """A TransformerConfig as config.json.

        Args:
            config: the model's.
            reference: the config.json it came from: its unknown keys, and its words where they say the same, stay.

        Raises:
            CheckpointError: for a switch that the reference family does not have.
        """
        written = {**(reference or {}), "model_type": self.name}
        for _ in range(2):  # a key's default may depend on a key that comes later
            for path, key in self.keys.items():
                if getattr(config, path.partition(".")[0]) is not None:  # of an encoder alone the decoder's keys stay
                    key.write(written, _get(config, path))
        for rule in self.rules:
            rule.apply(written, config)
        written |= self.written
        for path, theirs, ours in _differences(self.read_config(written), config):
            raise CheckpointError(
                f"A {self.name!r} model has {path}={theirs!r}, this one {ours!r}: transformers "
                "could not open it. Save it with model.save('model.keras') instead."
            )
        return written

    def module_names(self, config: TransformerConfig, task: str | None) -> dict[str, Module]:
        """Our layer path -> the reference's module, for a model of `config` with the head of `task`."""
        names = dict(self.modules) if config.source_vocabulary_size is None else {**self.modules, **self.own_tables}
        for stack, described in config.stacks.items():
            blocks = self.blocks[stack]
            modules = blocks.modules(config) if callable(blocks.modules) else blocks.modules
            for index in range(described.num_blocks):
                block = blocks.name(config, index)
                for ours, theirs in modules.items():
                    names[f"{stack}_block_{index}/{ours}"] = _within(block, theirs)
        for ours, theirs in self.numbered.items():
            longest = max(described.num_blocks for described in config.stacks.values())
            names |= {ours.format(index): theirs.format(index) for index in range(longest)}
        if self.pooler:
            names["pooler"] = self.pooler
        if task in self.heads:
            names.update(self.heads[task].modules)
        return {path: as_module(module) for path, module in names.items()}

    def places(self, paths: Iterable[str], config: TransformerConfig, task: str | None) -> dict[str, Place]:
        """Where each variable (by path) lies, for a model of `config` with the head of `task`.

        Raises:
            CheckpointError: for a variable that the page has no module for.
        """
        modules = self.module_names(config, task)
        own = {name for module in modules.values() for name in module.names}
        tied = {name: other for name, other in self.tied.items() if name.rpartition(".")[0] not in own}
        found = {}
        for path in paths:
            layer, _, leaf = path.rpartition("/")
            if layer not in modules:
                raise CheckpointError(f"The {self.name!r} page names no tensor for {path!r}.")
            found[path] = place(modules[layer], leaf, stack_of(path, config), tied)
        return found

    def prefix_of(self, task: str | None) -> str:
        """What stands before backbone tensors in a checkpoint with the head of `task`; nothing without one."""
        if task not in self.heads:
            return ""
        own = self.heads[task].prefix
        return self.prefix if own is None else own

    @property
    def prefixes(self) -> tuple[str, ...]:
        """All that may stand before backbone tensors, whatever head a checkpoint has."""
        return tuple(dict.fromkeys((self.prefix, *map(self.prefix_of, self.heads))))

    def own_head(self, names) -> str | None:
        """The tensor of a language model's own head among `names` (without prefix), or None."""
        modules = [head.modules[OWN_HEAD] for head in self.heads.values() if OWN_HEAD in head.modules]
        if not modules:
            return None
        module = as_module(modules[0])
        return next((f"{name}.weight" for name in module.names if f"{name}.weight" in names), None)

    def architecture_of(self, config: TransformerConfig, task: str | None) -> str:
        """The reference's class of a model with the head of `task`."""
        if task in self.heads:
            return self.heads[task].architecture
        return self.architecture if config.decoder or not self.encoder_architecture else self.encoder_architecture

    def is_head(self, tensor: str) -> bool:
        """Whether a tensor (without prefix) belongs to a known head or the pooler, which may go unused."""
        heads = [as_module(module) for head in self.heads.values() for module in head.modules.values()]
        modules = [name for module in heads for name in module.names]
        modules += [*self.other_heads, *([self.pooler] if self.pooler else [])]
        return any(tensor == module or tensor.startswith(module + ".") for module in modules)


def stack_of(path: str, config: TransformerConfig) -> StackConfig:
    """The stack that a variable is part of, by its path; of what stands beside the blocks the first."""
    stacks = config.stacks
    return next((stack for name, stack in stacks.items() if path.startswith(name)), next(iter(stacks.values())))


def as_module(module: str | Module) -> Module:
    """A page's module, where a name alone stands for a whole, transposed one."""
    return Module(module) if isinstance(module, str) else module


def _within(block: str, module: str | Module) -> Module:
    module = as_module(module)
    bias = None if module.bias is None else f"{block}.{module.bias}"
    also = tuple(f"{block}.{name}" for name in module.also)
    return dataclasses.replace(module, name=f"{block}.{module.name}", also=also, bias=bias)


def _floats(value) -> Iterator[float]:
    """All floats in a JSON value."""
    if isinstance(value, float):
        yield value
    elif isinstance(value, (list, Mapping)):
        for inner in value.values() if isinstance(value, Mapping) else value:
            yield from _floats(inner)


def _set(values: dict, path: str, value) -> None:
    *outer, last = path.split(".")
    for name in outer:
        values = values.setdefault(name, {})
    values[last] = value


def _get(config, path: str):
    for name in path.split("."):
        if isinstance(config, Mapping) and name not in config:  # a switch of every kind of attention
            config = next(iter(config.values()))
        config = config[name] if isinstance(config, Mapping) else getattr(config, name, None)
    return config


def _differences(theirs, ours, prefix: str = "") -> Iterator[tuple[str, Any, Any]]:
    """(path, their value, our value) of every switch that differs, but for `UNSTATED` ones."""
    if isinstance(ours, StackConfig) and _kinds(theirs) == _kinds(ours):
        theirs = dataclasses.replace(theirs, attention=ours.attention, pattern=ours.pattern)  # by whatever names
    for name in (f.name for f in dataclasses.fields(ours) if f.name not in UNSTATED):
        one, other = getattr(theirs, name), getattr(ours, name)
        if isinstance(one, dict) and one.keys() == other.keys():
            for kind in one:
                inner = f"{prefix}{name}.{kind}." if len(one) > 1 else f"{prefix}{name}."
                yield from _differences(one[kind], other[kind], inner)
        elif type(one) is type(other) and isinstance(one, _PARTS):
            yield from _differences(one, other, f"{prefix}{name}.")
        elif one != other:
            yield f"{prefix}{name}", one, other


_PARTS = (StackConfig, ConvolutionConfig, DeltaRuleConfig, FeedForwardConfig, HeadConfig, NormConfig)


def _kinds(stack: StackConfig) -> list[AttentionConfig | str]:
    """The attention of each layer, or what stands in its place."""
    return [stack.attention.get(kind, kind) for kind in stack.kinds]
