"""The error of checkpoints, and their JSON files, which raise it."""

from __future__ import annotations

from pathlib import Path

from tfxformer import json_files


class CheckpointError(ValueError):
    """A checkpoint that cannot be read, or does not fit the model."""


def read_json(path: Path, kind: type = dict):
    """A JSON object (or, with `kind=list`, an array) from a file of a checkpoint.

    Raises:
        CheckpointError: where the file is missing, or `json_files.read_json` refuses it.
    """
    try:
        return json_files.read_json(path, kind)
    except FileNotFoundError as error:
        raise CheckpointError(f"{path.parent} has no {path.name}: it is not a checkpoint folder.") from error
    except ValueError as error:
        raise CheckpointError(str(error)) from error
