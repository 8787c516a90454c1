"""What a tokenizer does to each character, found by asking it: tables that a graph of plain operations can look up.

A BERT normalizer and pre-tokenizer treat every character by itself, whatever stands beside it. So the tables are made
by giving the Rust tokenizer every character there is, and no rule is written twice.
"""

from __future__ import annotations

import functools
import unicodedata
from typing import NamedTuple

import numpy as np
import tokenizers
from tokenizers import normalizers, pre_tokenizers

PLAIN, SPACE, ALONE = 0, 1, 2  # a character of a word; one that parts words; one that is a word by itself
NONE = -(1 << 30)  # fills the places of characters that become fewer than others
PAGE = 256
_ALL = 0x110000
_BETWEEN = "0"  # stands between the characters that are asked for; nothing else becomes it, as `_normalized` checks


class CharacterTables(NamedTuple):
    """For a code point c, the row is `pages[c // 256] * 256 + c % 256`.

    Attributes:
        pages: int32 [code points / 256].
        changes: int32 [rows, K]: for each character that c becomes, (its code point - c) * 4 + its class; else NONE.
    """

    pages: np.ndarray
    changes: np.ndarray


def character_tables(backend: tokenizers.Tokenizer) -> CharacterTables:
    """The tables of a tokenizer with a BERT normalizer and pre-tokenizer.

    Raises:
        ValueError: where a character is not treated by itself, or the order of marks could matter to a word.
    """
    tables = _tables(*(getattr(backend.normalizer, name) for name in _SETTINGS))
    for token in backend.get_vocab():
        if not token.isascii() and any(_may_move(tables, ord(character)) for character in token):
            # Without such tokens, a word with such a mark is unknown whatever the order of its marks.
            raise ValueError(f"The vocabulary has a token with a combining mark that may change places: {token!r}.")
    return tables


def _may_move(tables: CharacterTables, code: int) -> bool:
    """Whether decomposing may have moved a character past another one: it has a combining class, and is left."""
    row = tables.pages[code // PAGE] * PAGE + code % PAGE
    return bool(unicodedata.combining(chr(code))) and bool(tables.changes[row, 0] != NONE)


_SETTINGS = ("clean_text", "handle_chinese_chars", "strip_accents", "lowercase")


@functools.lru_cache(maxsize=4)
def _tables(clean_text: bool, handle_chinese_chars: bool, strip_accents: bool | None, lowercase: bool):
    normalizer = normalizers.BertNormalizer(clean_text, handle_chinese_chars, strip_accents, lowercase)
    characters = [code for code in range(_ALL) if not 0xD800 <= code < 0xE000]  # no surrogates
    becomes = _normalized(normalizer, characters)
    classes = _classes(sorted({ord(character) for text in becomes for character in text} | {0}))
    width = max(map(len, becomes))
    changes = np.full((_ALL, width), NONE, np.int32)
    lengths = np.fromiter(map(len, becomes), np.int64, count=len(becomes))
    codes = np.frombuffer("".join(becomes).encode("utf-32-le"), "<u4").astype(np.int64)
    rows = np.repeat(np.array(characters), lengths)
    columns = np.arange(len(codes)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    changes[rows, columns] = (codes - rows) * 4 + classes[codes]
    numbers: dict[bytes, int] = {}  # of the pages that differ
    blocks = changes.reshape(_ALL // PAGE, -1)
    pages = np.array([numbers.setdefault(block.tobytes(), len(numbers)) for block in blocks], np.int32)
    return CharacterTables(pages, np.frombuffer(b"".join(numbers), np.int32).reshape(-1, width))


def _normalized(normalizer, characters: list[int]) -> list[str]:
    """What each character becomes."""
    becomes = []
    for begin in range(0, len(characters), 1 << 15):
        some = characters[begin : begin + (1 << 15)]
        asked = [chr(code) if chr(code) != _BETWEEN else "1" for code in some]
        found = normalizer.normalize_str(_BETWEEN + _BETWEEN.join(asked) + _BETWEEN).split(_BETWEEN)
        if len(found) != len(some) + 2:
            raise ValueError("This normalizer does not treat each character by itself.")
        becomes += [_BETWEEN if chr(code) == _BETWEEN else text for code, text in zip(some, found[1:-1], strict=True)]
    return becomes


def _classes(codes: list[int]) -> np.ndarray:
    """The class of each of some code points, int64 [code points]; told by how a text with it is cut."""
    classes = np.zeros(_ALL, np.int64)
    splitter = pre_tokenizers.BertPreTokenizer()
    for begin in range(0, len(codes), 1 << 15):
        some = codes[begin : begin + (1 << 15)]
        text = _BETWEEN + _BETWEEN.join(map(chr, some)) + _BETWEEN  # character i stands at 2 i + 1
        state = np.full(len(text), SPACE)
        for word, (start, end) in splitter.pre_tokenize_str(text):
            state[start:end] = ALONE if len(word) == 1 and word != _BETWEEN else PLAIN
        classes[some] = state[1::2]
    return classes
