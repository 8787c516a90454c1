"""Fills a model from a checkpoint's tensors, each exactly once, and says what was left over."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field

import keras
import numpy as np

from tfxformer.checkpoints.family import LEAVES, Family
from tfxformer.checkpoints.safetensors import CheckpointError
from tfxformer.checkpoints.variables import initialize
from tfxformer.models import TransformerConfig

# Buffers that older files carry; they hold no weights.
_JUNK = re.compile(r"(^|\.)(position_ids|token_type_ids|attention\.bias|masked_bias|rotary_emb\.inv_freq)$")
_SEED = "seed_generator_state"


@dataclass
class LoadReport:
    """What became of a checkpoint: heads of the model that are new, heads of the file that went unused."""

    new: list[str] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)

    def warn(self) -> None:
        """Says both in one warning, if there is anything to say."""
        parts = []
        if self.new:
            parts.append(f"new, with random weights: {', '.join(sorted(self.new))}")
        if self.unused:
            parts.append(f"in the file, but not used: {', '.join(sorted(self.unused))}")
        if parts:
            warnings.warn("Heads: " + "; ".join(parts) + ".", stacklevel=3)


def weights(model: keras.Model) -> dict[str, keras.Variable]:
    """The variables that a checkpoint holds, by path; without the states of random generators."""
    return {v.path: v for v in model.variables if v.name != _SEED}


def tensor_names(model, family: Family, config: TransformerConfig, task: str | None) -> dict[str, list[str]]:
    """Variable path -> the names that its tensor may have, without the family's prefix, preferred first."""
    modules = family.module_names(config, task)
    names = {}
    for path in weights(model):
        module, _, leaf = path.rpartition("/")
        if module not in modules:
            raise CheckpointError(f"The {family.name!r} page names no tensor for {path!r}.")
        names[path] = [f"{modules[module]}.{end}" for end in LEAVES[leaf]]
        names[path] += [alias for alias, name in family.tied.items() if name in names[path]]
    return names


def strip_prefix(tensors: Mapping, prefix: str) -> dict[str, str]:
    """Name without the family's prefix -> name in the file.

    Raises:
        CheckpointError: for a tensor that the file has both with and without the prefix.
    """
    names: dict[str, str] = {}
    for name in tensors:
        twin = names.setdefault(name.removeprefix(prefix), name)
        if twin != name:
            raise CheckpointError(
                f"The checkpoint has both {twin!r} and {name!r}, two tensors for one place: one would be silently "
                "dropped. Remove the wrong one."
            )
    return names


def load_weights(model, tensors, family: Family, config: TransformerConfig, task: str | None) -> LoadReport:
    """Fills every variable of `model` from `tensors`.

    Args:
        model: keras.Model, built under `variables.deferred()` or plainly.
        tensors: a mapping with `.shape(name)` and `.dtype(name)`, as `pretrained.open_checkpoint` gives it.
        family, config, task: which page, and which head the model has.

    Returns:
        LoadReport.

    Raises:
        CheckpointError: for backbone tensors that are missing, misshaped or unknown, and heads that are incomplete.
    """
    available = strip_prefix(tensors, family.prefix)
    names = tensor_names(model, family, config, task)
    sources: dict[str, str | None] = {}
    for path, candidates in names.items():
        sources[path] = next((name for name in candidates if name in available), None)
    report = LoadReport()
    _check_missing(names, sources, family, report)
    variables = weights(model)
    for path, name in sources.items():
        if name is not None:
            _check_shape(path, variables[path], name, tensors.shape(available[name]))
            _check_dtype(name, tensors.dtype(available[name]))
    _check_unused(set(available) - set(sources.values()), tensors, available, family, report)
    for path, name in sources.items():
        if name is None:
            initialize(variables[path])
        else:
            initialize(variables[path], tensors[available[name]], transpose=path.endswith("/kernel"))
    for variable in model.variables:
        if variable.name == _SEED:
            initialize(variable)
    return report


def _check_missing(names, sources, family, report) -> None:
    missing = [path for path, name in sources.items() if name is None]
    lost = [path for path in missing if not family.is_head(names[path][0])]
    if lost:
        shown = ", ".join(names[path][0] for path in lost[:5])
        raise CheckpointError(
            f"The checkpoint lacks {len(lost)} tensors of its {family.name!r} encoder: {shown}"
            f"{', ...' if len(lost) > 5 else ''}. Is config.json that of another model?"
        )
    for head in sorted({path.split("/")[0] for path in missing}):
        parts = [path for path in sources if path.split("/")[0] == head]
        absent = [path for path in parts if sources[path] is None]
        if len(absent) < len(parts):
            raise CheckpointError(
                f"The checkpoint has only a part of the head {head!r}; missing: "
                f"{', '.join(names[path][0] for path in absent)}."
            )
        report.new.append(head)


def _check_shape(path, variable, name, shape) -> None:
    wanted = tuple(variable.shape)
    if path.endswith("/kernel"):
        wanted = wanted[::-1]  # the reference stores [out, in]
    if tuple(shape) != wanted:
        raise CheckpointError(
            f"Tensor {name!r} has shape {list(shape)}, the model wants {list(wanted)} for {path!r}. "
            "For a head: do the labels match the checkpoint's? For others: does config.json?"
        )


def _check_dtype(name, dtype) -> None:
    if dtype.name not in ("float16", "bfloat16", "float32", "float64"):
        raise CheckpointError(
            f"Tensor {name!r} holds {dtype.name} values, not floats: a quantized checkpoint? Its numbers mean nothing "
            "without their scales; give the unquantized one."
        )


def _check_unused(unused, tensors, available, family, report) -> None:
    unknown = []
    for name in sorted(unused):
        if _JUNK.search(name):
            continue
        twin = family.tied.get(name)
        if twin is not None and twin in available:
            if not np.array_equal(tensors[available[name]], tensors[available[twin]]):
                raise CheckpointError(
                    f"Tensor {name!r} differs from {twin!r}, but a {family.name!r} model has them as one."
                )
        elif family.is_head(name):
            report.unused.append(name.rpartition(".")[0])
        else:
            unknown.append(name)
    report.unused = sorted(set(report.unused))
    if unknown:
        shown = ", ".join(unknown[:5])
        raise CheckpointError(
            f"The checkpoint has {len(unknown)} tensors that a {family.name!r} model has no place for: {shown}"
            f"{', ...' if len(unknown) > 5 else ''}. They would be silently dropped otherwise."
        )
