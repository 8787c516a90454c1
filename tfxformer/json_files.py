"""Reads the JSON files of checkpoints: whatever is wrong with one is a ValueError that names the file."""

from __future__ import annotations

import json
from pathlib import Path

MOST_BYTES = 200_000_000  # tokenizer.json, the largest of them, has up to 40 MB


def read_json(path, kind: type = dict):
    """The value of a JSON file.

    Args:
        path: the file.
        kind: what its outermost value must be, `dict` or `list`.

    Raises:
        FileNotFoundError: there is none. ValueError: for a file that is no text, no JSON, nested too deeply, too
            large, of another kind, or that has a key twice: readers differ in which of the two values they keep.
    """
    return parse_json(read_text(path), path, kind)


def read_text(path) -> str:
    """The text of a file of a checkpoint.

    Raises:
        FileNotFoundError: there is none. ValueError: for a file that is no UTF-8 text, or too large.
    """
    path = Path(path)
    size = path.stat().st_size
    if size > MOST_BYTES:
        raise ValueError(f"{path} has {size} bytes, more than the {MOST_BYTES} that a file of its kind may have.")
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path} is no UTF-8 text (byte {error.start} is {error.object[error.start]:#04x}): a binary file under "
            "this name, or a damaged one? Download it again."
        ) from error


def parse_json(text: str, path, kind: type = dict):
    """The value of a JSON file's text; see `read_json`."""
    try:
        value = json.loads(text, object_pairs_hook=_unique)
    except RecursionError as error:
        raise ValueError(f"{path} is nested too deeply for a JSON file of a checkpoint.") from error
    except ValueError as error:
        raise ValueError(f"{path} is not readable JSON: {error}.") from error
    if not isinstance(value, kind):
        wanted = {dict: "object", list: "array"}[kind]
        raise ValueError(f"{path} holds a {type(value).__name__}, not a JSON {wanted}.")
    return value


def _unique(pairs: list[tuple[str, object]]) -> dict:
    """A JSON object's pairs as a dict; a key that comes twice would silently lose one of its values."""
    values = dict(pairs)
    if len(values) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {max(keys, key=keys.count)!r} comes twice; remove one")
    return values
