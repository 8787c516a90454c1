"""Fills a model from a checkpoint's tensors, each exactly once, and says what was left over."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import keras
import numpy as np

from tfxformer.arguments import notices
from tfxformer.checkpoints.family import OWN_HEAD, Family
from tfxformer.checkpoints.files.errors import CheckpointError
from tfxformer.checkpoints.layout import Place
from tfxformer.checkpoints.variables import initialize
from tfxformer.models import TransformerConfig

# Buffers that older files carry; they hold no weights.
_JUNK = re.compile(
    r"(^|\.)(position_ids|EncDecAttention\.relative_attention_bias\.weight|token_type_ids|(attention|attn)\.bias|masked_bias|rotary_emb\.inv_freq|decoder\.version)$"
)
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
            notices.warn("Heads: " + "; ".join(parts) + ".")


def weights(model: keras.Model) -> dict[str, keras.Variable]:
    """The variables that a checkpoint holds, by path; without the states of random generators."""
    return {v.path: v for v in model.variables if v.name != _SEED}


# What wrappers of torch (DataParallel and its kin, compile, FSDP, activation checkpointing) put into names.
_WRAPPERS = re.compile(r"(?<![^.])(module|_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")


def unwrapped(name: str) -> str:
    """A tensor's name without what torch's wrappers put into it: "module.", "_orig_mod." and the like."""
    return _WRAPPERS.sub("", name)


def strip_prefix(tensors: Mapping, family: Family) -> dict[str, str]:
    """Name without the prefix of the family or of a head's class (and torch's wrappers) -> name in the file.

    Raises:
        CheckpointError: for a tensor that the file has both with and without the prefix.
    """
    names: dict[str, str] = {}
    for name in tensors:
        short = unwrapped(name)
        prefix = next((one for one in family.prefixes if one and short.startswith(one)), "")
        twin = names.setdefault(short.removeprefix(prefix), name)
        if twin != name:
            raise CheckpointError(
                f"The checkpoint has both {twin!r} and {name!r}, two tensors for one place: one would be silently "
                "dropped. Remove the wrong one."
            )
    return names


def is_tied(config: TransformerConfig, tensors: Mapping, family: Family) -> bool:
    """Whether a language model's logits come from the token table: what the file holds decides before its config.

    Args:
        config: the model's, `heads.tied` as config.json says.
        tensors: the checkpoint's.
        family: its page.
    """
    if family.own_head(names := strip_prefix(tensors, family)) is None:
        return config.heads.tied
    head = tensors[names[family.own_head(names)]]
    table = tensors.get(names.get(f"{family.module_names(config, None)['token_embedding'].name}.weight"))
    return config.heads.tied and table is not None and np.array_equal(head, table)


def load_weights(model, tensors, family: Family, config: TransformerConfig, task: str | None) -> LoadReport:
    """Fills every variable of `model` from `tensors`.

    Args:
        model: keras.Model, built under `backend.deferred()` or plainly.
        tensors: a mapping with `.shape(name)` and `.dtype(name)`, as `pretrained.open_checkpoint` gives it.
        family, config, task: which page, and which head the model has.

    Returns:
        LoadReport.

    Raises:
        CheckpointError: for backbone tensors that are missing, misshaped or unknown, and heads that are incomplete.
    """
    available = strip_prefix(tensors, family)
    variables = weights(model)
    places = family.places(variables, config, task)
    sources = {path: next((name for name in where.names if name in available), None) for path, where in places.items()}
    report = LoadReport()
    _check_missing(places, sources, family, report)
    for path, name in sources.items():
        if name is not None:
            wanted = places[path].tensor_shape(variables[path].shape)
            _check_shape(path, wanted, name, tensors.shape(available[name]))
            _check_dtype(name, tensors.dtype(available[name]))
    unused = set(available) - set(sources.values())
    if config.heads.tied:
        unused.discard(family.own_head(available))  # equal to the table, says `is_tied`
    for name in unused & set(family.computed):
        _check_computed(name, tensors[available[name]], family.computed[name](config))
    unused -= set(family.computed)
    _check_unused(unused, tensors, available, family, set(sources.values()), report)
    for path, name in sources.items():
        if name is None:
            initialize(variables[path])
        else:
            where = places[path]
            initialize(variables[path], where.read(tensors[available[name]]), transpose=where.transposed)
    for variable in model.variables:
        if variable.name == _SEED:
            initialize(variable)
    return report


def _check_missing(places: Mapping[str, Place], sources, family, report) -> None:
    missing = [path for path, name in sources.items() if name is None]
    lost = list(dict.fromkeys(places[path].names[0] for path in missing if not family.is_head(places[path].names[0])))
    if lost:
        raise CheckpointError(
            f"The checkpoint lacks {len(lost)} tensors of its {family.name!r} model: {', '.join(lost[:5])}"
            f"{', ...' if len(lost) > 5 else ''}. Is config.json that of another model?"
        )
    for head in sorted({path.split("/")[0] for path in missing}):
        parts = [path for path in sources if path.split("/")[0] == head]
        absent = [path for path in parts if sources[path] is None]
        names = ", ".join(places[path].names[0] for path in absent)
        if head == OWN_HEAD:
            raise CheckpointError(
                f"The checkpoint has no {names}, and config.json says that the head is not the token table "
                "(tie_word_embeddings is false): new random weights would be a useless language model. Give the whole "
                f"checkpoint, correct config.json, or train a new head: tasks.CausalLM(tfxformer.from_pretrained(...))."
            )
        if len(absent) < len(parts):
            raise CheckpointError(f"The checkpoint has only a part of the head {head!r}; missing: {names}.")
        report.new.append(head)


def _check_computed(name: str, found: np.ndarray, wanted: np.ndarray) -> None:
    if found.shape != wanted.shape or not np.allclose(
        found.astype("float32"), wanted, atol=1e-2 if found.itemsize < 4 else 1e-6
    ):
        raise CheckpointError(
            f"Tensor {name!r} is not what its model computes in its place, a table of sines and cosines: were its "
            "positions trained?"
        )


def _check_shape(path, wanted, name, shape) -> None:
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


def _check_unused(unused, tensors, available, family, used, report) -> None:
    unknown = []
    modules = {name.rpartition(".")[0] for name in used if name is not None}
    for name in sorted(unused):
        if _JUNK.search(name):
            continue
        twin = family.tied.get(name)
        if twin is not None and twin in available:
            if not np.array_equal(tensors[available[name]], tensors[available[twin]]):
                raise CheckpointError(
                    f"Tensor {name!r} differs from {twin!r}, but a {family.name!r} model has them as one."
                )
        elif family.is_head(name) and name.rpartition(".")[0] not in modules:
            report.unused.append(name.rpartition(".")[0] or name)  # a buffer has no module
        else:
            unknown.append(name)
    report.unused = sorted(set(report.unused))
    if unknown:
        shown = ", ".join(unknown[:5])
        raise CheckpointError(
            f"The checkpoint has {len(unknown)} tensors that a {family.name!r} model has no place for: {shown}"
            f"{', ...' if len(unknown) > 5 else ''}. They would be silently dropped otherwise."
        )
