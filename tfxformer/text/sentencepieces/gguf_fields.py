"""A SentencePiece tokenizer out of a GGUF file's metadata (its kind "llama": Llama 1 and 2, Gemma): BPE by scores.

Source: llama.cpp, `conversion/base.py` (what it writes) and `src/llama-vocab.cpp` (what it reads, and its defaults).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import tokenizers
from tokenizers import AddedToken

from tfxformer.text.sentencepieces.backend import SPACE, Row, make_backend
from tfxformer.text.sentencepieces.model_file import (
    BPE,
    BYTE,
    CONTROL,
    NORMAL,
    UNKNOWN,
    USER_DEFINED,
    Piece,
    SentencePieceModel,
)

_SOURCE = "the GGUF file's tokenizer"
_SPARING = ("<unk>", "<s>", "<|endoftext|>")  # those of Phi-3 that take no blanks along
_KINDS = range(NORMAL, BYTE + 1)


def read_backend(fields: Mapping[str, Any], tokens: Sequence[str], kinds: Sequence[int]) -> tokenizers.Tokenizer:
    """The backend of the metadata.

    Args:
        fields: a GGUF file's metadata.
        tokens, kinds: of them, the tokens and their types, which are SentencePiece's.

    Raises:
        ValueError: for fields that are missing or do not fit each other.
    """
    # The converter writes the spaces of user defined pieces, and of no others, as spaces.
    texts = [
        token.replace(" ", SPACE) if kind == USER_DEFINED else token for token, kind in zip(tokens, kinds, strict=True)
    ]
    prefix = bool(fields.get("tokenizer.ggml.add_space_prefix", True))
    pieces = _pieces(fields, texts, kinds)
    model = SentencePieceModel(
        path=_SOURCE,
        kind=BPE,
        pieces=pieces,
        unknown_id=_unknown_id(fields, kinds),
        byte_fallback=BYTE in kinds,
        charsmap=b"",
        add_dummy_prefix=prefix,
        remove_extra_whitespaces=False,
    )
    rows = [Row(piece.text, piece if piece.kind == NORMAL else None) for piece in pieces]
    eating = fields.get("general.architecture") == "phi3"
    return make_backend(model, rows, pieces[model.unknown_id].text, _added(pieces, prefix, eating))


def _pieces(fields: Mapping[str, Any], texts: Sequence[str], kinds: Sequence[int]) -> tuple[Piece, ...]:
    scores = fields.get("tokenizer.ggml.scores")
    if not isinstance(scores, list) or not all(type(score) is float and math.isfinite(score) for score in scores):
        raise ValueError("The GGUF file's tokenizer.ggml.scores is not a list of numbers.")
    if len(scores) != len(texts):
        raise ValueError(f"The GGUF file has {len(texts)} tokens, but {len(scores)} scores.")
    strange = next((index for index, kind in enumerate(kinds) if kind not in _KINDS), None)
    if strange is not None:
        raise ValueError(f"The GGUF file's token {strange} has the type {kinds[strange]}; there are 1 to {BYTE}.")
    return tuple(map(Piece, texts, scores, kinds))


def _unknown_id(fields: Mapping[str, Any], kinds: Sequence[int]) -> int:
    index = fields.get("tokenizer.ggml.unknown_token_id")
    if index is None:
        index = next((index for index, kind in enumerate(kinds) if kind == UNKNOWN), None)
    if type(index) is not int or not 0 <= index < len(kinds):
        raise ValueError(f"The GGUF file's unknown token has the id {index!r}, but there are {len(kinds)} tokens.")
    return index


def _added(pieces: Sequence[Piece], prefix: bool, eating: bool) -> list[AddedToken]:
    """What is found in a text before it is cut: special tokens in it as it is, user defined pieces behind its spaces.

    With a space before each text, they too are found in the text as it is, or that space would be put before them.
    Of Phi-3 (`eating`) they take the blanks behind them along, which its files do not say: llama.cpp knows it by name.
    """
    if prefix and (spaced := [piece.text for piece in pieces if piece.kind == USER_DEFINED and SPACE in piece.text]):
        raise ValueError(
            f"The GGUF file's tokenizer puts a space before each text and has tokens with spaces ({spaced[0]!r}): such "
            "are not read. Pass the tokenizer of the model's own folder (tokenizer.json) instead."
        )
    special = [piece.text for piece in pieces if piece.kind in (UNKNOWN, CONTROL)]
    whole = [piece.text for piece in pieces if piece.kind == USER_DEFINED]
    return [
        *(AddedToken(text, special=True, normalized=False, rstrip=eating and text not in _SPARING) for text in special),
        *(AddedToken(text, special=False, normalized=not prefix, rstrip=eating) for text in whole),
    ]
