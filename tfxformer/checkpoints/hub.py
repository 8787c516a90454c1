"""Finds a checkpoint: a local folder or GGUF file, or a hub id through `huggingface_hub` and its cache."""

from __future__ import annotations

import json
import re
from pathlib import Path

from tfxformer.checkpoints.gguf import is_gguf
from tfxformer.checkpoints.safetensors import CheckpointError
from tfxformer.files import recover

_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
# Never *.bin: weights are read from safetensors only.
_WANTED = ["*.json", "*.safetensors", "*.txt", "*.model"]


def resolve(folder_or_hub_id) -> Path:
    """The local folder of a checkpoint, downloaded where it is a hub id and not yet in the cache; or its GGUF file.

    Raises:
        CheckpointError: where there is neither, with what was tried.
    """
    path = Path(folder_or_hub_id).expanduser()
    recover(path)
    if path.is_dir() or (path.is_file() and is_gguf(path)):
        return path
    if path.exists():
        raise CheckpointError(
            f"{path} is a file; give the folder that holds config.json and model.safetensors, or a GGUF file."
        )
    if is_gguf(path):
        raise CheckpointError(f"There is no GGUF file {str(path)!r}.")
    name = str(folder_or_hub_id)
    if not _HUB_ID.fullmatch(name) or name.startswith("."):
        raise CheckpointError(f"There is no folder {name!r}, and it is not a hub id (owner/name) either.")
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=_WANTED))
    except Exception as error:  # the hub client raises many kinds, from its own to the network's
        raise CheckpointError(
            f"There is no folder {name!r} here, and the hub did not give a checkpoint of that name "
            f"({type(error).__name__}: {error}). Offline, it must already be in the hub's cache."
        ) from error


def read_json(path: Path) -> dict:
    """A JSON object from a file.

    Raises:
        CheckpointError: where the file is missing or not a JSON object.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(f"{path.parent} has no {path.name}: it is not a checkpoint folder.") from error
    except ValueError as error:
        raise CheckpointError(f"{path} is not JSON: {error}.") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} holds a {type(value).__name__}, not a JSON object.")
    return value
