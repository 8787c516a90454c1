"""SentencePiece's model files: pieces, scores and rules, out of protobuf's wire format.

A reader of our own, since a dozen fields are wanted of a format that cannot change: the package `sentencepiece` brings
only messages of the newest protobuf, which TensorFlow's refuses to import, and protobuf is no part of a base install.
Source: google/sentencepiece, `src/sentencepiece_model.proto`; protobuf.dev, "Encoding".
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
UNIGRAM, BPE = "Unigram", "BPE"
_KINDS = {1: UNIGRAM, 2: BPE, 3: "words", 4: "characters"}
_MOST_BYTES = 256 << 20  # NLLB's has 5 MB
# Fields by their numbers.
_PIECES, _TRAINER, _NORMALIZER = 1, 2, 3
_TEXT, _SCORE, _TYPE = 1, 2, 3  # of a piece
_MODEL_TYPE, _AS_SUFFIX, _BYTE_FALLBACK, _UNKNOWN_ID = 3, 24, 35, 40  # of the trainer
_CHARSMAP, _DUMMY_PREFIX, _FEWER_SPACES, _ESCAPED = 2, 3, 4, 5  # of the normalizer
_VARINT, _EIGHT_BYTES, _BYTES, _FOUR_BYTES = 0, 1, 2, 5  # wire types


@dataclass(frozen=True)
class Piece:
    """A piece: its text, its score (a log-probability, or of BPE a rank) and what it is for (`NORMAL`, ...)."""

    text: str
    score: float
    kind: int

    @property
    def is_text(self) -> bool:
        """Whether a text may be cut into it; the others are spoken of by their ids only."""
        return self.kind in (NORMAL, USER_DEFINED)


@dataclass(frozen=True)
class SentencePieceModel:
    """A model file.

    Attributes:
        path: where it was read.
        kind: "Unigram" or "BPE".
        pieces: by their ids.
        unknown_id: of the piece that stands for characters without one.
        byte_fallback: whether such characters become pieces of bytes.
        charsmap: the rules of its normalizer as they were compiled, b"" for none.
        add_dummy_prefix: whether a space is put before every text.
        remove_extra_whitespaces: whether spaces at the ends go, and several become one.
    """

    path: str
    kind: str
    pieces: tuple[Piece, ...]
    unknown_id: int
    byte_fallback: bool
    charsmap: bytes
    add_dummy_prefix: bool
    remove_extra_whitespaces: bool


def read_model(path: str | Path) -> SentencePieceModel:
    """A SentencePiece model file.

    Raises:
        FileNotFoundError, ValueError: naming the file, for one that is none, is cut off, or holds what is not read.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"No SentencePiece model {str(path)!r}.")
    if path.stat().st_size > _MOST_BYTES:
        raise ValueError(f"{str(path)!r} has {path.stat().st_size} bytes: more than any SentencePiece model.")
    try:
        return _model(path, memoryview(path.read_bytes()))
    except (IndexError, struct.error, UnicodeDecodeError, _NotWireError) as error:
        raise ValueError(
            f"{str(path)!r} is no whole SentencePiece model ({error}): it is cut off or another kind of file; "
            "fetch it again."
        ) from error


class _NotWireError(Exception):
    """What protobuf never writes."""


def _model(path: Path, content: memoryview) -> SentencePieceModel:
    pieces, trainer, normalizer = [], {}, {}
    for number, value in _fields(content):
        if number == _PIECES:
            pieces.append(_piece(_message(value)))
        elif number == _TRAINER:
            trainer = dict(_fields(_message(value)))
        elif number == _NORMALIZER:
            normalizer = dict(_fields(_message(value)))
    if not pieces:
        raise _NotWireError("it holds no pieces")
    kind = _KINDS.get(trainer.get(_MODEL_TYPE, 1), trainer.get(_MODEL_TYPE))
    unknown = trainer.get(_UNKNOWN_ID, 0)
    if kind not in (UNIGRAM, BPE):
        raise ValueError(f"{str(path)!r} cuts texts into {kind}; read are {UNIGRAM} and {BPE}.")
    if trainer.get(_AS_SUFFIX) or not normalizer.get(_ESCAPED, 1):
        raise ValueError(f"{str(path)!r} has spaces behind words, or unmarked ones, which no tokenizer here writes.")
    if not isinstance(unknown, int) or unknown >= len(pieces) or pieces[unknown].kind != UNKNOWN:
        raise ValueError(f"{str(path)!r}: its unknown piece has the id {unknown}, which is none among its pieces.")
    return SentencePieceModel(
        path=str(path),
        kind=kind,
        pieces=tuple(pieces),
        unknown_id=unknown,
        byte_fallback=bool(trainer.get(_BYTE_FALLBACK, 0)),
        charsmap=bytes(_message(normalizer.get(_CHARSMAP, memoryview(b"")))),
        add_dummy_prefix=bool(normalizer.get(_DUMMY_PREFIX, 1)),
        remove_extra_whitespaces=bool(normalizer.get(_FEWER_SPACES, 1)),
    )


def _piece(content: memoryview) -> Piece:
    fields = dict(_fields(content))
    score = struct.unpack("<f", _message(fields.get(_SCORE, memoryview(b"\0\0\0\0"))))[0]
    if score != score or score in (float("inf"), float("-inf")):
        raise _NotWireError(f"a piece has the score {score}")
    text = str(_message(fields.get(_TEXT, memoryview(b""))), "utf-8")
    if not text:
        raise _NotWireError("a piece has no text")
    return Piece(text, score, fields.get(_TYPE, NORMAL))


def _message(value) -> memoryview:
    """The bytes of a field; a number where bytes must be is no such file."""
    if not isinstance(value, memoryview):
        raise _NotWireError(f"a number ({value}) where bytes must be")
    return value


def _fields(content: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """The fields of a message: (number, value), numbers as int, all else as bytes."""
    at = 0
    while at < len(content):
        tag, at = _varint(content, at)
        number, wire = tag >> 3, tag & 7
        if wire == _VARINT:
            value, at = _varint(content, at)
        else:
            if wire == _BYTES:
                size, at = _varint(content, at)
            elif wire in (_EIGHT_BYTES, _FOUR_BYTES):
                size = 8 if wire == _EIGHT_BYTES else 4
            else:
                raise _NotWireError(f"wire type {wire} at byte {at}")
            if size > len(content) - at:
                raise _NotWireError(f"a field of {size} bytes where {len(content) - at} are left")
            value, at = content[at : at + size], at + size
        if not number:
            raise _NotWireError(f"a field without number at byte {at}")
        yield number, value


def _varint(content: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if at >= len(content) or shift > 63:
            raise _NotWireError(f"a number that does not end at byte {at}")
        byte = content[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
