"""Refuses folders without a checkpoint that can be read, by saying what they hold instead and the way out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

from tfxformer.checkpoints.files.errors import CheckpointError, read_json
from tfxformer.checkpoints.files.pickles import reader as pickles
from tfxformer.checkpoints.files.pickles.errors import WAY_OUT
from tfxformer.checkpoints.files.safetensors import INDEX_FILE, SINGLE_FILE

_MODELS = (SINGLE_FILE, INDEX_FILE, pickles.SINGLE_FILE, pickles.INDEX_FILE)
ADAPTER_CONFIG = "adapter_config.json"
# Keys of config.json under which quantized weights are described: transformers' two, and MLX's.
_QUANTIZATION = ("quantization_config", "compression_config", "quantization")
# Files of weights in other formats, by pattern, and what to do about each.
_CONVERTED = "open it once in transformers and save_pretrained(new_folder), which writes model.safetensors"
_OTHER_FORMATS = {
    "*.gguf": "give the path of the .gguf file itself instead of its folder",
    "consolidated*.safetensors": "these are the tensors under the maker's own names: download model*.safetensors too",
    "tf_model*.h5": f"weights of TensorFlow: {_CONVERTED} (version 4 does, with from_tf=True)",
    "flax_model*.msgpack": f"weights of Flax: {_CONVERTED} (version 4 does, with from_flax=True)",
    "*.onnx": "an exported graph: give the checkpoint that it was exported from",
    "model.*.safetensors": f"a variant of the weights: {_CONVERTED} (variant=...), or rename the file {SINGLE_FILE}",
}


def check_adapter_only(folder: Path) -> None:
    """Refuses a folder with an adapter in place of a model.

    Raises:
        CheckpointError: naming the base model, where the adapter's config does, and what loads the adapter.
    """
    path = folder / ADAPTER_CONFIG
    if not path.is_file() or any((folder / name).is_file() for name in _MODELS):
        return
    base = read_json(path).get("base_model_name_or_path")
    raise CheckpointError(
        f"{folder} holds an adapter ({ADAPTER_CONFIG}) and no model. Open the model that it was trained on"
        f"{f' ({base})' if base else ''} by from_pretrained, then read the adapter into it: "
        f"compression.Adapters(model).load({str(folder)!r})."
    )


def check_quantized(reference: Mapping, path) -> None:
    """Refuses a checkpoint whose config.json says that its weights are quantized.

    Raises:
        CheckpointError: naming the method and the way out.
    """
    stated = next((reference[key] for key in _QUANTIZATION if reference.get(key)), None)
    if not stated:
        return
    method = stated.get("quant_method", "unnamed") if isinstance(stated, Mapping) else stated
    raise CheckpointError(
        f"{path} says that the weights are quantized ({method}): its tensors are packed numbers "
        "and scales, which tfxformer does not read; the files are not damaged. Give the unquantized checkpoint (the "
        "model that this one was made from), or write one in transformers: "
        'AutoModelForCausalLM.from_pretrained(folder).dequantize().save_pretrained("new_folder"). Quantize it here '
        "afterwards: export_litert(model, path, quantization=...). Where the weights are plain floats after all, "
        "remove the key."
    )


def refuse_without_weights(folder: Path) -> NoReturn:
    """Refuses a folder that has no weights under a name that is read, naming those it has in other formats.

    Raises:
        CheckpointError: always.
    """
    check_adapter_only(folder)
    pickled = sorted(p.name for pattern in ("*.bin", "*.pt", "*.pth", "*.ckpt") for p in folder.glob(pattern))
    if pickled:
        raise CheckpointError(
            f"{folder} holds pickles ({', '.join(pickled)}), which can run any code when torch reads them; tfxformer "
            f"reads state dicts of plain tensors only, under the name {pickles.SINGLE_FILE}. Rename the one that is, "
            f"or {WAY_OUT[0].lower()}{WAY_OUT[1:]}."
        )
    for pattern, way_out in _OTHER_FORMATS.items():
        if found := sorted(path.name for path in folder.glob(pattern)):
            raise CheckpointError(
                f"{folder} has neither {SINGLE_FILE} nor {INDEX_FILE}, but {', '.join(found[:3])}: {way_out}."
            )
    raise CheckpointError(f"{folder} has neither {SINGLE_FILE} nor {INDEX_FILE}, nor {pickles.SINGLE_FILE}.")
