"""What a language model is trained on: texts, prompts with answers, or conversations, of any data file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tfxformer.data.files.sources import is_dataset_like, read_table
from tfxformer.data.files.table import Table
from tfxformer.data.files.tables import read_utf8

# Columns by what they hold, the first ones ours; of the others OpenAI's, TRL's, Alpaca's and ShareGPT's.
CONVERSATIONS = ("messages", "conversations", "conversation")
PROMPTS = (("prompt", "answer"), ("prompt", "completion"), ("prompt", "response"), ("instruction", "output"))
TEXTS = ("text", "content")
ROLES = {"human": "user", "gpt": "assistant"}  # ShareGPT's names of who speaks


def read_language(source: Any) -> tuple[list, list | None]:
    """What `CausalLM.fit` takes as x and y.

    A .txt file (UTF-8) is one text, a folder of them as many. Other sources (see `read_table`) have a column text; the
    columns prompt and answer (completion, response; instruction, input and output); or messages: lists of objects with
    role and content (or ShareGPT's from and value).

    Raises:
        FileNotFoundError, ValueError: naming the place.
    """
    if not is_dataset_like(source) and Path(source).suffix.lower() == ".txt":
        text = read_utf8(Path(source).expanduser())
        if not text.strip():
            raise ValueError(f"{source} is empty.")
        return [text], None
    table = read_table(source)
    for name in CONVERSATIONS:
        if name in table.columns:
            return [_messages(table, row, name) for row in range(len(table.places))], None
    for prompt, answer in PROMPTS:
        if prompt in table.columns and answer in table.columns:
            rows = range(len(table.places))
            return [_prompt(table, row, prompt) for row in rows], [_text(table, row, answer) for row in rows]
    for name in TEXTS:
        if name in table.columns:
            return [_text(table, row, name) for row in range(len(table.places))], None
    raise ValueError(
        f"{table.source}: wanted the key 'text', the keys 'prompt' and 'answer', or the key 'messages'; there is "
        f"{', '.join(map(repr, table.columns))}."
    )


def _text(table: Table, row: int, name: str) -> str:
    value = table.columns[name][row]
    if not isinstance(value, str) or not value:
        raise table.error(row, name, f"wanted a text, got {value!r:.60}")
    return value


def _prompt(table: Table, row: int, name: str) -> str:
    """The prompt of a row; Alpaca's rows may have an input besides, which comes after an empty line."""
    prompt = _text(table, row, name)
    beside = table.columns["input"][row] if name == "instruction" and "input" in table.columns else ""
    return f"{prompt}\n\n{beside}" if isinstance(beside, str) and beside else prompt


def _messages(table: Table, row: int, name: str) -> list[dict]:
    messages = table.columns[name][row]
    if not isinstance(messages, list) or not messages or not all(isinstance(one, dict) for one in messages):
        raise table.error(row, name, f"wanted a list of messages, got {messages!r:.60}")
    return [
        {"role": ROLES.get(one["from"], one["from"]), "content": one["value"]}
        if {"from", "value"} <= one.keys()
        else one
        for one in messages
    ]
