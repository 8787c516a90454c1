"""Adapters in the files of torch's peft: adapter_config.json and adapter_model.safetensors.

Format: https://huggingface.co/docs/peft/developer_guides/checkpoint. A tensor is named "base_model.model." + module +
".lora_A.weight" ([r, in]) or ".lora_B.weight" ([out, r]); layers that are trained whole keep their tensors' names.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import keras
import numpy as np

from tfxformer.checkpoints import safetensors
from tfxformer.checkpoints.hub import read_json
from tfxformer.checkpoints.safetensors import CheckpointError, SafetensorsFile, replacing
from tfxformer.compression.adapters.keras_layers import matrix_shape
from tfxformer.compression.adapters.modules import ModuleNames, join_fused, split_fused
from tfxformer.compression.kernels import Kernel
from tfxformer.layers.low_rank import LowRank

CONFIG_FILE = "adapter_config.json"
TENSOR_FILE = "adapter_model.safetensors"
PREFIX = "base_model.model."
TASK_TYPES = {
    "text-classification": "SEQ_CLS",
    "token-classification": "TOKEN_CLS",
    "question-answering": "QUESTION_ANS",
    "causal-lm": "CAUSAL_LM",
}
_FACTOR = re.compile(r"(.+)\.lora_([AB])\.weight")
# What a config may say: read here; or about where the tensors are, which they tell themselves, or how they began.
_READ = ("peft_type", "r", "lora_alpha", "lora_dropout", "use_rslora", "rank_pattern", "alpha_pattern")
_TOLD_BY_TENSORS = ("target_modules", "exclude_modules", "modules_to_save", "layers_to_transform", "layers_pattern")
_WITHOUT_EFFECT = (
    "task_type", "auto_mapping", "peft_version", "base_model_name_or_path", "revision", "inference_mode",
    "fan_in_fan_out", "loftq_config", "eva_config", "megatron_core", "qalora_group_size", "runtime_config",
    "ensure_weight_tying",
)  # fmt: skip
# Beginnings that leave the base model as it is; pissa, olora, corda, loftq and lora_ga change it.
_BEGINNINGS = (None, True, False, "gaussian", "orthogonal", "eva")


@dataclass
class ReadAdapter:
    """What a folder holds, by the paths of our layers and variables.

    Attributes:
        layers: path of a layer -> arguments of `LowRank`.
        factors: path of a layer -> (a [in, r], b [r, out]).
        whole: path of a variable -> its value.
    """

    layers: dict[str, dict] = field(default_factory=dict)
    factors: dict[str, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)
    whole: dict[str, np.ndarray] = field(default_factory=dict)


# ---- writing --------------------------------------------------------------------------------------------------


def write_adapter(
    folder,
    model: keras.Model,
    kernels: Mapping[str, Kernel],
    layers: Mapping[str, LowRank],
    whole: Mapping[str, np.ndarray],
    base: str | None = None,
) -> Path:
    """Writes the two files, each whole or not at all.

    Query, key and value of one fused module (GPT-2) become one adapter of it, of the sum of their ranks where they do
    not share a; its alpha grows along, so that the product stays. The scale of rsLoRA is written as such an alpha.

    Args:
        folder: created where it does not exist.
        model: the adapters' model.
        kernels: path of a layer -> `Kernel`.
        layers: path of a layer -> its factors.
        whole: path of a variable that is trained whole -> its value.
        base: `base_model_name_or_path`.
    """
    names = ModuleNames(model)
    tensors, ranks, alphas = {}, {}, {}
    for module, paths in names.by_module(layers).items():
        a, b, scale = join_fused(names, {path: layers[path] for path in paths}, kernels)
        full = names.full(module)
        tensors[f"{PREFIX}{full}.lora_A.weight"], tensors[f"{PREFIX}{full}.lora_B.weight"] = a.T, b.T
        ranks[full], alphas[full] = a.shape[1], _number(scale * a.shape[1])
    tensors |= {PREFIX + name: array for name, array in names.tensors(whole).items()}
    rank, alpha = (Counter(values.values()).most_common(1)[0][0] for values in (ranks, alphas))
    config = {
        "peft_type": "LORA",
        "task_type": TASK_TYPES.get(names.task),
        "base_model_name_or_path": base,
        "inference_mode": True,
        "r": rank,
        "lora_alpha": alpha,
        "lora_dropout": max(adapter.rate for adapter in layers.values()),
        "use_rslora": False,
        "bias": "none",
        "fan_in_fan_out": any(not names[path].transposed for path in layers),
        "target_modules": names.shortest(ranks),
        "modules_to_save": names.whole_modules(whole) or None,
        "rank_pattern": {name: value for name, value in ranks.items() if value != rank},
        "alpha_pattern": {name: value for name, value in alphas.items() if value != alpha},
    }
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    safetensors.write(folder / TENSOR_FILE, tensors)
    with replacing(folder / CONFIG_FILE) as temporary:
        temporary.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    return folder


def _number(value: float) -> float | int:
    """A whole number as an integer, where float arithmetic has left nothing but its rounding."""
    return round(value) if math.isclose(value, round(value), rel_tol=1e-12) else value


# ---- reading --------------------------------------------------------------------------------------------------


def read_adapter(folder, model: keras.Model, kernels: Mapping[str, Kernel]) -> ReadAdapter:
    """Reads the two files for a model.

    Args:
        folder: with adapter_config.json and adapter_model.safetensors.
        model, kernels: as `write_adapter` has them.

    Raises:
        CheckpointError: for files that are missing or broken, an adapter of another kind or with options that we do not
            have, and tensors that this model has no place for.
    """
    folder = Path(folder)
    config = read_json(folder / CONFIG_FILE)
    _check_options(config)
    if not (folder / TENSOR_FILE).is_file():
        raise CheckpointError(f"{folder} has no {TENSOR_FILE}; adapters in pickles (adapter_model.bin) are not read.")
    tensors = SafetensorsFile(folder / TENSOR_FILE)
    names = ModuleNames(model)
    factors, others = _sort(tensors)
    read = ReadAdapter()
    places = names.modules_by_full_name(kernels)
    _check_places(folder, [name for name in factors if name not in places], places)
    for full, pair in factors.items():
        if set(pair) != {"A", "B"}:
            raise CheckpointError(f"{folder} has only lora_{next(iter(pair))} of {full!r}: is the file damaged?")
        a, b = pair["A"].T, pair["B"].T
        scale = _scale(config, full, a, b)
        for path, part in split_fused(names, places[full], b).items():
            shape = matrix_shape(kernels[path])
            if (a.shape[0], part.shape[1]) != shape:
                raise CheckpointError(
                    f"The adapter of {full!r} is for a kernel {[a.shape[0], part.shape[1]]}, {path!r} has "
                    f"{list(shape)}: it belongs to another base model."
                )
            read.layers[path] = {"rank": a.shape[1], "scale": scale, "dropout": config.get("lora_dropout") or 0.0}
            read.factors[path] = a, part
    read.whole = names.read_whole(folder, others)
    return read


def _check_options(config: Mapping) -> None:
    if config.get("peft_type") != "LORA":
        raise CheckpointError(f"peft_type is {config.get('peft_type')!r}; tfxformer reads LORA.")
    known = (*_READ, *_TOLD_BY_TENSORS, *_WITHOUT_EFFECT)
    unknown = {key: value for key, value in config.items() if key not in known and value not in (None, False, "none")}
    unknown = {key: value for key, value in unknown.items() if value not in ({}, [])}
    if unknown.get("init_lora_weights") in _BEGINNINGS:
        unknown.pop("init_lora_weights", None)
    if unknown:
        said = ", ".join(f"{key}={value!r}" for key, value in unknown.items())
        raise CheckpointError(
            f"{CONFIG_FILE} says {said}, which tfxformer does not have: the adapter would silently compute something "
            "else. Merge it into its base in torch (merge_and_unload), or train one without."
        )


def _sort(tensors: SafetensorsFile) -> tuple[dict, dict]:
    """(full module name -> {"A": ..., "B": ...}, other name -> array), the names without `PREFIX`."""
    factors, others = {}, {}
    for name in tensors:
        if not name.startswith(PREFIX):
            raise CheckpointError(
                f"Tensor {name!r} of {tensors.path} does not begin with {PREFIX!r}: no file of peft's."
            )
        found = _FACTOR.fullmatch(name.removeprefix(PREFIX))
        if found:
            factors.setdefault(found[1], {})[found[2]] = np.asarray(tensors[name], "float32")
        else:
            others[name.removeprefix(PREFIX)] = np.asarray(tensors[name], "float32")
    if not factors:
        raise CheckpointError(f"{tensors.path} has no lora_A and lora_B.")
    return factors, others


def _check_places(folder, unknown: list[str], places: Mapping) -> None:
    if unknown:
        raise CheckpointError(
            f"{folder} has an adapter for {len(unknown)} modules that this model does not have "
            f"({', '.join(unknown[:3])}{', ...' if len(unknown) > 3 else ''}): it belongs to another base model. "
            f"This one's are {', '.join(list(places)[:3])}, ..."
        )


def _scale(config: Mapping, full: str, a: np.ndarray, b: np.ndarray) -> float:
    """The factor of a module's product; its rank has to be what config says."""
    rank = _by_pattern(config.get("rank_pattern"), full, config.get("r", 8))
    if a.shape[1] != rank or b.shape[0] != rank:
        raise CheckpointError(f"{full!r} has factors of rank {a.shape[1]} and {b.shape[0]}, {CONFIG_FILE} says {rank}.")
    alpha = _by_pattern(config.get("alpha_pattern"), full, config.get("lora_alpha", 8))
    return float(alpha / (math.sqrt(rank) if config.get("use_rslora") else rank))


def _by_pattern(pattern: Mapping | None, full: str, default):
    """peft's `get_pattern_key`: the first key that, as a regular expression, is the end of the module's name."""
    return next((value for key, value in (pattern or {}).items() if re.match(rf"(.*\.)?({key})$", full)), default)
