"""Adapters in the files of torch's peft: adapter_config.json and adapter_model.safetensors.

Format: https://huggingface.co/docs/peft/developer_guides/checkpoint; `formats` has what is each kind's own. Layers that
are trained whole keep their tensors' names.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import keras
import numpy as np

from tfxformer.checkpoints.files import safetensors
from tfxformer.checkpoints.files.errors import CheckpointError, read_json
from tfxformer.checkpoints.files.pickles.reader import PickleFile
from tfxformer.checkpoints.files.safetensors import SafetensorsFile
from tfxformer.compression.adapters.formats import FORMATS, Format, format_of
from tfxformer.compression.adapters.keras_layers import matrix_shape
from tfxformer.compression.adapters.peft_names import ModuleNames
from tfxformer.compression.weights.matrices import Kernel
from tfxformer.files import recover, replacing_folder, write_json
from tfxformer.layers.adapters.base import LayerAdapter

CONFIG_FILE = "adapter_config.json"
TENSOR_FILE, _OLDER_FILE = "adapter_model.safetensors", "adapter_model.bin"
PREFIX = "base_model.model."
# Where a tensor belongs to the whole model, the layers that are trained whole have another.
OWNERLESS_PREFIX, WHOLE = "base_model.", ""
TASK_TYPES = {
    "text-classification": "SEQ_CLS",
    "token-classification": "TOKEN_CLS",
    "question-answering": "QUESTION_ANS",
    "causal-lm": "CAUSAL_LM",
    "seq2seq-lm": "SEQ_2_SEQ_LM",
}
# What a config may say beside a kind's own: about where the tensors are, which they tell themselves, or how they began.
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
        layers: path of a layer -> arguments of `models.adapters.make_adapter`.
        arrays: path of a layer -> {attribute of its `LayerAdapter`: value}.
        whole: path of a variable -> its value.
    """

    layers: dict[str, dict] = field(default_factory=dict)
    arrays: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)
    whole: dict[str, np.ndarray] = field(default_factory=dict)


# ---- writing --------------------------------------------------------------------------------------------------


def write_adapter(
    folder,
    model: keras.Model,
    layers: Mapping[str, LayerAdapter],
    whole: Mapping[str, np.ndarray],
    base: str | None = None,
) -> Path:
    """Writes the two files, both or neither.

    Query, key and value of one fused module (GPT-2) become one adapter of it, of the sum of their ranks where they do
    not share a; its alpha grows along, so that the product stays. The scale of rsLoRA is written as such an alpha.

    Args:
        folder: created where it does not exist.
        model: the adapters' model.
        layers: path of a layer -> what stands beside it.
        whole: path of a variable that is trained whole -> its value.
        base: `base_model_name_or_path`.
    """
    names, form = ModuleNames(model), format_of(layers)
    if form.owners is None:
        places = {names.full(module): paths for module, paths in names.by_module(layers).items()}
    else:
        places = {WHOLE: form.owners(layers)}
    modules = {full: {path: layers[path] for path in paths} for full, paths in places.items()}
    of_modules, own = form.write(names, modules)
    prefix = PREFIX if form.owners is None else OWNERLESS_PREFIX
    tensors = {
        suffix if form.owners else f"{prefix}{full}.{suffix}": array
        for full, parts in of_modules.items()
        for suffix, array in parts.items()
    }
    tensors |= {prefix + name: array for name, array in names.tensors(whole).items()}
    config = {
        "peft_type": form.peft_type,
        "task_type": TASK_TYPES.get(names.task),
        "base_model_name_or_path": base,
        "inference_mode": True,
        **own,
    }
    if form.owners is None:
        config["fan_in_fan_out"] = any(not names[path].transposed for path in layers)
        config["modules_to_save"] = names.whole_modules(whole) or None
    with replacing_folder(folder) as new:
        safetensors.write(new / TENSOR_FILE, tensors)
        write_json(new / CONFIG_FILE, config, indent=2, sort_keys=True)
    return Path(folder).expanduser()


# ---- reading --------------------------------------------------------------------------------------------------


def read_adapter(folder, model: keras.Model, kernels: Mapping[str, Kernel]) -> ReadAdapter:
    """Reads the two files for a model.

    Args:
        folder: with adapter_config.json and adapter_model.safetensors, or the older adapter_model.bin.
        model: the adapters' model.
        kernels: path of a layer -> `Kernel`.

    Raises:
        CheckpointError: for files that are missing or broken, an adapter of another kind or with options that we do not
            have, and tensors that this model has no place for.
    """
    folder = Path(folder).expanduser()
    recover(folder)
    config = read_json(folder / CONFIG_FILE)
    form = _check_options(config)
    tensors = _open_tensors(folder)
    names = ModuleNames(model)
    modules, others = _sort(tensors, form)
    read = ReadAdapter()
    places = names.modules_by_full_name(kernels) if form.owners is None else {WHOLE: form.owners(kernels)}
    _check_places(folder, [name for name in modules if name not in places], places)
    for full, parts in modules.items():
        if missing := [suffix for suffix in form.suffixes if suffix not in parts]:
            raise CheckpointError(
                f"{folder} has only {', '.join(sorted(parts))} of {full!r}, no {missing[0]}: is the file damaged?"
            )
        for path, (arguments, arrays, shape) in form.read(config, full, parts, names, places[full]).items():
            wanted = matrix_shape(kernels[path])
            found = [size if own is None else own for own, size in zip(shape, wanted, strict=True)]
            if tuple(found) != wanted:
                raise CheckpointError(
                    f"The adapter of {full!r} is for a kernel {found}, {path!r} has {list(wanted)}: it belongs to "
                    "another base model."
                )
            read.layers[path], read.arrays[path] = arguments, arrays
    read.whole = names.read_whole(folder, others)
    return read


def _check_options(config: Mapping) -> Format:
    form = FORMATS.get(config.get("peft_type"))
    if form is None:
        raise CheckpointError(f"peft_type is {config.get('peft_type')!r}; tfxformer reads {', '.join(FORMATS)}.")
    known = ("peft_type", *form.options, *form.ignored, *_TOLD_BY_TENSORS, *_WITHOUT_EFFECT)
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
    return form


def _open_tensors(folder: Path) -> SafetensorsFile | PickleFile:
    if (folder / TENSOR_FILE).is_file():
        return SafetensorsFile(folder / TENSOR_FILE)
    if (folder / _OLDER_FILE).is_file():
        return PickleFile(folder / _OLDER_FILE)
    raise CheckpointError(f"{folder} has neither {TENSOR_FILE} nor {_OLDER_FILE}.")


def _sort(tensors: Mapping, form: Format) -> tuple[dict, dict]:
    """(full module name -> {suffix: array}, other name -> array), the names without their prefix."""
    modules, others = {}, {}
    prefix = PREFIX if form.owners is None else OWNERLESS_PREFIX
    for name in tensors:
        array = np.asarray(tensors[name], "float32")
        if form.owners and name in form.suffixes:
            modules.setdefault(WHOLE, {})[name] = array
            continue
        if not name.startswith(prefix):
            raise CheckpointError(
                f"Tensor {name!r} of {tensors.path} does not begin with {prefix!r}: no file of peft's."
            )
        own = name.removeprefix(prefix)
        suffix = next((one for one in form.suffixes if own.endswith(f".{one}")), None)
        if suffix is None:
            others[own] = array
        else:
            modules.setdefault(own.removesuffix(f".{suffix}"), {})[suffix] = array
    if form.suffixes and not modules:
        raise CheckpointError(f"{tensors.path} has no {' and '.join(form.suffixes)}.")
    return modules, others


def _check_places(folder, unknown: list[str], places: Mapping) -> None:
    if unknown:
        raise CheckpointError(
            f"{folder} has an adapter for {len(unknown)} modules that this model does not have "
            f"({', '.join(unknown[:3])}{', ...' if len(unknown) > 3 else ''}): it belongs to another base model. "
            f"This one's are {', '.join(list(places)[:3])}, ..."
        )
