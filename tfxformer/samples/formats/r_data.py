"""Reads the character vectors of an R package's data, without R: a lazy-load database, and R's serialization.

Nothing is evaluated: the format holds R code too, and whatever is not a list, a name, a number or a string is refused.
Source: R Internals, "Serialization Formats" (XDR) and `makeLazyLoadDB`.
"""

from __future__ import annotations

import gzip
import struct
import zlib
from pathlib import Path
from typing import Any

_SYMBOL, _PAIRS, _CHARACTERS, _LOGICAL, _INTEGERS, _STRINGS, _LIST = 1, 2, 9, 10, 13, 16, 19
_NIL, _REFERENCE = 254, 255
_HAS_ATTRIBUTES, _HAS_TAG, _LATIN1 = 1 << 9, 1 << 10, 1 << 14


class _Reader:
    def __init__(self, data: bytes):
        if data[:2] != b"X\n":
            raise ValueError("R data in another form than XDR.")
        self._data, self._position, self._symbols = data, 2, []
        version, _, _ = self._integers(3)
        if version == 3:
            self._take(self._integer())  # the encoding that the writer had

    def _take(self, count: int) -> bytes:
        taken = self._data[self._position : self._position + count]
        if count < 0 or len(taken) < count:
            raise ValueError("R data that end too early.")
        self._position += count
        return taken

    def _integers(self, count: int) -> tuple[int, ...]:
        return struct.unpack(f">{count}i", self._take(4 * count))

    def _integer(self) -> int:
        return self._integers(1)[0]

    def read(self) -> Any:
        """The next value: None, a string, a list, or a dict where its items have names."""
        flags = self._integer()
        kind = flags & 0xFF
        if kind == _NIL:
            return None
        if kind == _REFERENCE:
            return self._symbols[(flags >> 8 or self._integer()) - 1]
        if kind == _SYMBOL:
            self._symbols.append(self.read())
            return self._symbols[-1]
        if kind == _CHARACTERS:
            count = self._integer()
            return None if count == -1 else self._take(count).decode("latin-1" if flags & _LATIN1 else "utf-8")
        if kind == _PAIRS:
            return self._pairs(flags)
        if kind in (_LOGICAL, _INTEGERS):
            values = list(self._integers(self._integer()))
        elif kind in (_STRINGS, _LIST):
            values = [self.read() for _ in range(self._integer())]
        else:
            raise ValueError(f"R data of the type {kind}, which is not read here.")
        attributes = self.read() if flags & _HAS_ATTRIBUTES else {}
        names = attributes.get("names")
        return values if names is None else dict(zip(names, values, strict=True))

    def _pairs(self, flags: int) -> dict:
        pairs = {}
        while flags & 0xFF == _PAIRS:
            if flags & _HAS_ATTRIBUTES:
                self.read()
            name = self.read() if flags & _HAS_TAG else len(pairs)
            pairs[name] = self.read()
            flags = self._integer()
        return pairs


def read_database(path: Path) -> dict[str, Any]:
    """All values of a lazy-load database, by name.

    Args:
        path: its index (`.rdx`); the values lie beside it (`.rdb`).

    Raises:
        ValueError: for compression other than zlib, or data of other types.
    """
    index = _Reader(gzip.decompress(path.read_bytes())).read()
    if index["compressed"] != [1]:
        raise ValueError(f"{path} is compressed in R's way {index['compressed']}, not with zlib.")
    values = path.with_suffix(".rdb").read_bytes()
    # Before each value stands its length, four bytes.
    return {
        name: _Reader(zlib.decompress(values[start + 4 : start + size])).read()
        for name, (start, size) in index["variables"].items()
    }
