"""The tokenizer of a checkpoint, wherever the checkpoint keeps it."""

from __future__ import annotations

from tfxformer.checkpoints.gguf import GGUFFile, is_gguf
from tfxformer.text import Tokenizer


def open_tokenizer(path) -> Tokenizer:
    """The `text.Tokenizer` of a checkpoint folder, or the one in the metadata of a GGUF file.

    Raises:
        FileNotFoundError, ValueError: where there is none that can be read.
    """
    return Tokenizer.from_gguf(GGUFFile(path).metadata) if is_gguf(path) else Tokenizer.from_pretrained(path)
