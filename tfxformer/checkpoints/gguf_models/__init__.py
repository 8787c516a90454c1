"""GGUF architectures under the reference's names: metadata as config.json, tensors as safetensors would have them."""

from __future__ import annotations

from typing import Any

from tfxformer.checkpoints.files.errors import CheckpointError
from tfxformer.checkpoints.files.gguf import GGUFFile
from tfxformer.checkpoints.gguf_models.architectures import ARCHITECTURES
from tfxformer.checkpoints.gguf_models.settings import read_config
from tfxformer.checkpoints.gguf_models.tensors import GGUFTensors


def open_gguf(path) -> tuple[dict[str, Any], GGUFTensors]:
    """A GGUF file as a checkpoint folder would be.

    Args:
        path: the file.

    Returns:
        What config.json would say (with the reference's model_type), and the tensors by the reference's names.

    Raises:
        CheckpointError: for a file that `GGUFFile` refuses, another architecture, settings or tensors that are
            missing or not implemented. ImportError: without the gguf package.
    """
    file = GGUFFile(path)
    name = file.metadata.get("general.architecture")
    if name not in ARCHITECTURES:
        raise CheckpointError(
            f"{path} holds a model of the architecture {name!r}; of GGUF files tfxformer reads "
            f"{', '.join(ARCHITECTURES)}. Give its checkpoint folder with safetensors instead."
        )
    if file.metadata.get("general.type", "model") != "model":
        raise CheckpointError(f"{path} holds no model but a GGUF {file.metadata['general.type']!r}.")
    architecture = ARCHITECTURES[name]
    tensors = GGUFTensors(file, architecture)
    return read_config(file, architecture, tensors), tensors
