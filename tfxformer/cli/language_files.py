"""Reads what a language model is trained on: a .txt file, or a .jsonl file of texts, answers or conversations."""

from __future__ import annotations

from pathlib import Path

from tfxformer.data import tables

KINDS = {"text": ("text",), "answers": ("prompt", "answer"), "conversations": ("messages",)}


def read(path) -> tuple[list, list | None]:
    """What `CausalLM.fit` takes as x and y.

    A .txt file (UTF-8) is one text. Of a .jsonl file every line has the key text, the keys prompt and answer, or the
    key messages (a list of objects with role and content).

    Raises:
        FileNotFoundError, ValueError: naming the line.
    """
    path = Path(path).expanduser()
    if path.suffix.lower() not in (".txt", ".jsonl"):
        raise ValueError(f"{path}: wanted a .txt or a .jsonl file; {path.suffix!r} is neither.")
    text = tables.read_utf8(path)
    if path.suffix.lower() == ".txt":
        if not text.strip():
            raise ValueError(f"{path} is empty.")
        return [text], None
    records = list(tables.json_records(path, text))
    if not records:
        raise ValueError(f"{path} has no rows.")
    first = records[0][1]
    kind = next((kind for kind, keys in KINDS.items() if set(keys) <= first.keys()), None)
    if kind is None:
        raise ValueError(
            f"{path}, line {records[0][0]}: wanted the key 'text', the keys 'prompt' and 'answer', or the key "
            f"'messages'; there is {', '.join(map(repr, first)) or 'none'}."
        )
    wanted = list if kind == "conversations" else str
    columns = [[_field(path, line, record, key, wanted) for line, record in records] for key in KINDS[kind]]
    return columns[0], columns[1] if kind == "answers" else None


def _field(path: Path, line: int, record: dict, key: str, wanted: type):
    value = record.get(key)
    if not isinstance(value, wanted) or not value:
        what = "a list of messages" if wanted is list else "a text"
        raise ValueError(f"{path}, line {line}, key {key!r}: wanted {what}, got {value!r:.60}.")
    return value
