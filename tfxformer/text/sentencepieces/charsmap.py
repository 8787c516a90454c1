"""What SentencePiece writes for characters before it cuts a text: its compiled rules, applied as it applies them.

The normalizer of `tokenizers` reads the same rules by graphemes, and takes the shortest rule that fits the beginning of
one: "e" with two accents loses the second, "A" with an accent loses it where texts are lowercased, and the letters of
decomposed Korean stay apart. SentencePiece takes the longest rule at each place, and goes over a text once.
Source: google/sentencepiece, `src/normalizer.cc`; s-yata/darts-clone, `darts.h`.
"""

from __future__ import annotations

import re

_DAMAGED = "The normalizer's rules (precompiled_charsmap) are damaged{}: fetch the model file again."


class Charsmap:
    """The rules of one model: a text as they write it, by calling it.

    A rule is found in a double array: the children of a node are where its offset and their byte say, by exclusive or.
    """

    def __init__(self, compiled: bytes):
        """Of a normalizer's `precompiled_charsmap`.

        Raises:
            ValueError: for bytes that are no such rules.
        """
        size = int.from_bytes(compiled[:4], "little")
        if size % 4 or not 0 < size <= len(compiled) - 4:
            raise ValueError(_DAMAGED.format(""))
        self._units = memoryview(compiled)[4 : 4 + size].cast("I").tolist()
        self._texts = compiled[4 + size :]
        self._free: dict[str, int] = {}  # characters that no rule begins with, and their bytes
        plain = [chr(byte) for byte in range(128) if self._stays(byte)]
        # Runs of them are copied; the last one of a run may begin a rule with what follows.
        letters = f"[{re.escape(''.join(plain))}]" if plain else "(?!)"
        self._plain = re.compile(f"{letters}+(?={letters}|\\Z)")

    def __call__(self, text: str) -> str:
        """A text as the rules write it.

        Raises:
            ValueError: for a text that is no Unicode, and rules that write none.
        """
        return self._written(text, None)

    def aligned(self, text: str) -> tuple[str, list[tuple[int, int]]]:
        """A text as the rules write it, and the begin and the end in the text of what each character was made of."""
        spans: list[tuple[int, int]] = []
        return self._written(text, spans), spans

    def _written(self, text: str, spans: list[tuple[int, int]] | None) -> str:
        written, at, place, data = [], 0, 0, text.encode("utf-8")  # places of the text in bytes, and in characters
        while place < len(text):
            if run := self._plain.match(text, place):
                found, size, value = run.group(), len(run.group()), run.group()
            else:
                found, size, value = text[place], self._free.get(text[place]), text[place]
                if size is None:
                    size, rule = self._longest(data, at, text[place])
                    if rule is not None:
                        found, value = data[at : at + size].decode("utf-8"), rule
            if spans is not None:
                whole = (place, place + len(found))
                kept = found == value
                spans += (
                    [(place + index, place + index + 1) for index in range(len(value))]
                    if kept
                    else [whole] * len(value)
                )
            written.append(value)
            at, place = at + size, place + len(found)
        return "".join(written)

    def _longest(self, data: bytes, at: int, character: str) -> tuple[int, str | None]:
        """The bytes of the longest rule for what stands at a place, and what it writes; None where there is none."""
        units, size = self._units, len(character.encode("utf-8"))
        node, length, index, value = _offset(units[0]), 0, at, None
        try:
            for index in range(at, len(data)):
                node ^= data[index]
                unit = units[node] if node < len(units) else 0
                if unit & 0x800000FF != data[index]:
                    break
                node ^= _offset(unit)
                if unit & 0x100:
                    length, value = index + 1 - at, units[node] & 0x7FFFFFFF
            else:
                index = len(data)
            if not length:
                if index < at + size:  # no rule begins with this character, whatever follows
                    self._free[character] = size
                return size, None
            return length, self._texts[value : self._texts.index(b"\0", value)].decode("utf-8")
        except (ValueError, IndexError) as error:
            raise ValueError(_DAMAGED.format(f" ({error})")) from error

    def _stays(self, byte: int) -> bool:
        """Whether an ASCII character stays as it is, whatever ASCII character follows it."""
        node = _offset(self._units[0]) ^ byte
        if node >= len(self._units) or self._units[node] & 0x800000FF != byte:
            return True
        unit = self._units[node]
        node ^= _offset(unit)
        places = ((following, node ^ following) for following in range(1, 128))
        followed = any(place < len(self._units) and self._units[place] & 0x800000FF == byte for byte, place in places)
        return not unit & 0x100 and not followed


def _offset(unit: int) -> int:
    return (unit >> 10) << ((unit & 0x200) >> 6)
