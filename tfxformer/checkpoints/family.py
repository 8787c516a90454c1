"""What a page of `families/` says: a reference family's config keys and tensor names, as data.

A page maps config.json keys to our switches and the reference's module names to our layer paths; everything else
(reading, writing, transposing, checking) is the same for all and stands in this folder once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tfxformer.checkpoints.safetensors import CheckpointError
from tfxformer.models import TransformerConfig

# Our variable's last name -> the reference's, and the names that files of TensorFlow origin have in its place.
LEAVES = {
    "kernel": ("weight",),
    "bias": ("bias",),
    "embeddings": ("weight",),
    "gamma": ("weight", "gamma"),
    "beta": ("bias", "beta"),
}


@dataclass(frozen=True)
class Key:
    """A switch's key in config.json and its default there; a function of the whole config where it depends."""

    name: str
    default: Any

    def read(self, reference: Mapping) -> Any:
        """The key's value in a config.json; its default where the key is absent or null."""
        value = reference.get(self.name)
        if value is not None:
            return value
        return self.default(reference) if callable(self.default) else self.default


@dataclass(frozen=True)
class Head:
    """A head of the reference: the class that has it, and its modules by our paths."""

    architecture: str
    modules: Mapping[str, str]


@dataclass(frozen=True)
class Family:
    """One reference family.

    Attributes:
        name: `TransformerConfig.family` and `model_type` in config.json.
        prefix: what stands before backbone tensors in checkpoints with a head ("bert."), absent in bare ones.
        architecture: the reference's class of the bare encoder.
        keys: our switch ("encoder.num_layers") -> `Key`.
        fixed: our switch -> the one value that the family has; another one cannot be written.
        required: config.json key -> the values that we implement; another one is an error.
        modules: our layer path -> the reference's module, for everything outside the blocks.
        block: (config, i) -> the reference's module of block i.
        block_modules: our path within a block -> the reference's within its.
        pooler: the reference's pooler module, or None.
        heads: our task name -> `Head`.
        other_heads: module names of the reference's heads that we have no task for.
        tied: tensors that repeat another one in older files.
    """

    name: str
    prefix: str
    architecture: str
    keys: Mapping[str, Key]
    fixed: Mapping[str, Any]
    modules: Mapping[str, str]
    block: Callable[[TransformerConfig, int], str]
    block_modules: Mapping[str, str]
    heads: Mapping[str, Head]
    pooler: str | None = None
    required: Mapping[str, tuple] = field(default_factory=dict)
    other_heads: tuple[str, ...] = ()
    tied: Mapping[str, str] = field(default_factory=dict)

    def read_config(self, reference: Mapping) -> TransformerConfig:
        """config.json as a TransformerConfig.

        Raises:
            CheckpointError: for a value that is not implemented here.
        """
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
            return TransformerConfig.from_dict(values)
        except (ValueError, TypeError) as error:
            raise CheckpointError(f"config.json does not describe a {self.name!r} model: {error}") from error

    def write_config(self, config: TransformerConfig) -> dict:
        """A TransformerConfig as config.json.

        Raises:
            CheckpointError: for a switch that the reference family does not have.
        """
        values = config.to_dict()
        for path, value in self.fixed.items():
            if _get(values, path) != value:
                raise CheckpointError(
                    f"A {self.name!r} model has {path}={value!r}, this one {_get(values, path)!r}: transformers "
                    "could not open it. Save it with model.save('model.keras') instead."
                )
        return {"model_type": self.name, **{key.name: _get(values, path) for path, key in self.keys.items()}}

    def module_names(self, config: TransformerConfig, task: str | None) -> dict[str, str]:
        """Our layer path -> the reference's module, for a model of `config` with the head of `task`."""
        names = dict(self.modules)
        kind = "encoder" if config.decoder is None else "decoder"
        for index in set(config.stack.block_order):
            block = self.block(config, index)
            for ours, theirs in self.block_modules.items():
                names[f"{kind}_block_{index}/{ours}"] = f"{block}.{theirs}"
        if self.pooler:
            names["pooler"] = self.pooler
        if task in self.heads:
            names.update(self.heads[task].modules)
        return names

    def is_head(self, tensor: str) -> bool:
        """Whether a tensor (without prefix) belongs to a known head or the pooler, which may go unused."""
        modules = [m for head in self.heads.values() for m in head.modules.values()]
        modules += [*self.other_heads, *([self.pooler] if self.pooler else [])]
        return any(tensor.startswith(module + ".") for module in modules)


def _set(values: dict, path: str, value) -> None:
    *outer, last = path.split(".")
    for name in outer:
        values = values.setdefault(name, {})
    values[last] = value


def _get(values: dict, path: str):
    for name in path.split("."):
        values = values[name]
    return values
