"""The tokenizer of a checkpoint, wherever the checkpoint keeps it."""

from __future__ import annotations

import json
from pathlib import Path

from tfxformer.arguments import notices
from tfxformer.checkpoints.files.gguf import GGUFFile, is_gguf
from tfxformer.text import Tokenizer
from tfxformer.text.files import lowercased

# Any of them says that the folder has a tokenizer, in whatever format.
_FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "vocab.json", "*.model", "*.spm", "*.tiktoken")
_GGUF_MODEL = "tokenizer.ggml.model"


def open_tokenizer(path) -> Tokenizer:
    """The `text.Tokenizer` of a checkpoint folder, or the one in the metadata of a GGUF file.

    Raises:
        FileNotFoundError, ValueError: where there is none that can be read.
    """
    return Tokenizer.from_gguf(GGUFFile(path).metadata) if is_gguf(path) else Tokenizer.from_pretrained(path)


def has_tokenizer(path) -> bool:
    """Whether a checkpoint has a tokenizer, in whatever format."""
    if is_gguf(path):
        return _GGUF_MODEL in GGUFFile(path).metadata
    return any(next(Path(path).glob(pattern), None) for pattern in _FILES)


def find_tokenizer(path) -> Tokenizer | None:
    """`open_tokenizer`, or None with one warning where the checkpoint has no tokenizer at all.

    Raises:
        FileNotFoundError, ValueError: for one that cannot be read.
    """
    if has_tokenizer(path):
        return open_tokenizer(path)
    notices.warn(
        f"{path} has no tokenizer files: the model takes arrays (token_ids, padding_mask) and no texts. For texts pass "
        "tokenizer=text.Tokenizer.from_pretrained(folder), of the model that this one was made from."
    )
    return None


def lowercasing(tokenizer: Tokenizer) -> Tokenizer:
    """The same tokenizer, which lowercases texts first."""
    parts = json.loads(tokenizer.to_json())
    return Tokenizer(lowercased(json.dumps(parts["tokenizer"], ensure_ascii=False)), parts["config"])


def check_tokenizer(tokenizer: Tokenizer, config) -> None:
    """Refuses a tokenizer that has ids beyond the rows of the model's token tables.

    Args:
        tokenizer: `text.Tokenizer`.
        config: the model's TransformerConfig.

    Raises:
        ValueError: naming the tokens and the way out.
    """
    sides = ((tokenizer, config.read_vocabulary_size), (tokenizer.of_targets, config.vocabulary_size))
    for side, rows in sides if "decoder" in config.stacks else sides[:1]:
        _check_rows(side.vocabulary(), rows)  # ids may have gaps: the largest counts, not how many there are


def _check_rows(tokens: list[str], rows: int) -> None:
    if len(tokens) <= rows:
        return
    beyond = tokens[rows:]
    raise ValueError(
        f"The tokenizer has {len(tokens)} tokens, the model rows for {rows}: they do not belong together "
        f"({', '.join(map(repr, beyond[:3]))}{', ...' if len(beyond) > 3 else ''} would have no row). Take the "
        "tokenizer of the model's own folder; where tokens were added on purpose, give the table rows for them first, "
        "in transformers: model.resize_token_embeddings(len(tokenizer)), then save_pretrained both."
    )
