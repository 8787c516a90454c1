"""Reads the texts of a SWORD module in the form zText, verse by verse; markup and notes are dropped.

Source: the SWORD Project (https://crosswire.org), `zverse` and `rawverse` of its library: beside the compressed blocks
(`.bzz`) stand where each block lies (`.bzs`) and where each verse lies in its block (`.bzv`).
"""

from __future__ import annotations

import html
import re
import struct
import zlib
from pathlib import Path

TESTAMENTS = ("ot", "nt")
_BLOCK, _VERSE = struct.Struct("<III"), struct.Struct("<IIH")  # position, size, -; block, position in it, size
_MOST_BYTES = 100_000_000  # of one block, unpacked
_BOOK = re.compile(r'<div\b[^>]*\bosisID="([^".]+)" sID="[^"]*" type="book"')
_DROPPED = re.compile(r"<(note|title)\b[^>]*(?<!/)>.*?</\1>|<[^>]+>", re.DOTALL)


def read_books(folder: Path) -> dict[str, list[str]]:
    """The slots of each book, by its OSIS name ("Gen"), in their order: verses, and "" where there is none.

    Two modules of one versification have their verses in the same slots.

    Raises:
        ValueError: for files that are cut or not of this form.
    """
    books = {}
    for testament in TESTAMENTS:
        slots = []  # what stands before the first book is of none
        for slot in _slots(folder, testament):
            if named := _BOOK.search(slot):
                slots = books.setdefault(named[1], [])
                slot = ""  # a heading, as that of a chapter, which has no text outside of titles
            slots.append(_plain(slot))
    if not books:
        raise ValueError(f"{folder} holds no book: it is no SWORD module of OSIS texts.")
    return books


def _slots(folder: Path, testament: str):
    blocks, verses, packed = ((folder / f"{testament}.bz{letter}").read_bytes() for letter in "svz")
    unpacked: dict[int, bytes] = {}
    if len(verses) % _VERSE.size or len(blocks) % _BLOCK.size:
        raise ValueError(f"{folder}: the index of {testament} is cut.")
    for block, position, size in _VERSE.iter_unpack(verses):
        if size and block not in unpacked:
            unpacked[block] = _block(folder, blocks, packed, block)
        yield unpacked[block][position : position + size].decode("utf-8") if size else ""


def _block(folder: Path, blocks: bytes, packed: bytes, number: int) -> bytes:
    try:
        position, size, _ = _BLOCK.unpack_from(blocks, number * _BLOCK.size)
        unpacked = zlib.decompressobj()
        content = unpacked.decompress(packed[position : position + size], _MOST_BYTES)
    except (struct.error, zlib.error) as error:
        raise ValueError(f"{folder}: block {number} is not there or not whole: {error}.") from error
    if not unpacked.eof:
        raise ValueError(f"{folder}: block {number} is not whole, or larger than {_MOST_BYTES:,} bytes.")
    return content


def _plain(text: str) -> str:
    return " ".join(html.unescape(_DROPPED.sub("", text)).split())
