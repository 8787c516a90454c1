"""How a checkpoint generates: generation_config.json, or what older checkpoints say of it in config.json."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tfxformer.checkpoints.files.errors import CheckpointError, read_json
from tfxformer.checkpoints.files.gguf import is_gguf
from tfxformer.text.generation.settings import OLDER_KEYS, GenerationConfig

GENERATION_FILE = "generation_config.json"


def read_generation_config(folder) -> GenerationConfig | None:
    """What a folder's generation_config.json says; None where there is none.

    Raises:
        CheckpointError: for a file that is not JSON, or a value of a wrong kind, naming both.
    """
    path = Path(folder) / GENERATION_FILE
    if is_gguf(folder) or not path.is_file():
        return None
    return _read(read_json(path), str(path))


def older_generation_config(reference: Mapping) -> GenerationConfig:
    """What a config.json says, as transformers reads it where there is no generation_config.json.

    Args:
        reference: config.json, or what a GGUF file says in its place.

    Raises:
        CheckpointError: for a value of a wrong kind, naming it.
    """
    stated = {name: reference[name] for name in OLDER_KEYS if reference.get(name) is not None}
    return _read(stated, "config.json")


def renumbered(stated: Mapping, ids) -> dict:
    """A generation_config.json for a vocabulary of which some ids are kept, `ids` in their order."""
    new = {int(old): index for index, old in enumerate(ids)}
    return GenerationConfig.from_dict(stated).renumbered(new).to_dict()


def _read(stated: Mapping, source: str) -> GenerationConfig:
    try:
        return GenerationConfig.from_dict(stated, source)
    except ValueError as error:
        raise CheckpointError(str(error)) from error
