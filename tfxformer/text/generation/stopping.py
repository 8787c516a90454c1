"""Stops: where a text that comes in pieces ends."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np


class Stops(NamedTuple):
    """What ends a text: ids of tokens, and strings that may be made of several."""

    ids: tuple[int, ...]
    strings: tuple[str, ...]


def read_stops(tokenizer, stop: Iterable[str | int] | str | int | None, ids=(), strings=()) -> Stops:
    """What a caller wants to stop at, besides what ends texts anyway.

    Args:
        tokenizer: `Tokenizer`, or None where there is none: then only ids can be wanted.
        stop: strings, or ids of tokens.
        ids, strings: what ends texts anyway.

    Raises:
        TypeError, ValueError: for an empty string, one that the tokenizer cannot write, and what is neither.
    """
    wanted = [stop] if isinstance(stop, (str, int, np.integer)) else list(() if stop is None else stop)
    found, texts = list(ids), []
    for one in (*strings, *wanted):
        if isinstance(one, (int, np.integer)) and not isinstance(one, bool):
            found.append(int(one))
        elif not isinstance(one, str):
            raise TypeError(f"stop holds {one!r}: wanted strings, or ids of tokens.")
        elif tokenizer is None:
            raise ValueError("This model has no tokenizer, so it cannot stop at strings: give ids of tokens.")
        else:
            token = _special_token(tokenizer, one)
            texts.extend([one] if token is None else [])
            found.extend([] if token is None else [token])
    return Stops(tuple(dict.fromkeys(found)), tuple(texts))


def _special_token(tokenizer, stop: str) -> int | None:
    """The id of a stop that is one special token, which no text shows."""
    (ids,) = tokenizer.ids([stop], special_tokens=False)
    if not stop or not ids:
        raise ValueError("A stop string is empty: every text would stop before its first character.")
    written, shown = (tokenizer.decode([ids], skip_special_tokens=skip)[0] for skip in (False, True))
    if stop.strip() not in written or tokenizer.unknown_id in ids:
        raise ValueError(
            f"The stop {stop!r} is unknown to the tokenizer, which would write it as {written!r}: no text could ever "
            "stop there."
        )
    return ids[0] if len(ids) == 1 and not shown else None


class StopStrings:
    """Lets a text through up to the first stop string that is whole, and holds back what may become one.

    Attributes:
        stopped: whether a stop string has come; nothing more is let through.
    """

    def __init__(self, stops: Iterable[str]):
        self._stops = tuple(stops)
        self._held = ""
        self.stopped = False

    def feed(self, piece: str) -> str:
        """What of the text so far is certain now."""
        if self.stopped:
            return ""
        self._held += piece
        found = [(start + len(stop), start) for stop in self._stops if (start := self._held.find(stop)) >= 0]
        if found:  # the one that is whole first; of those that end alike the longest
            self.stopped = True
            certain = min(found)[1]
        else:
            certain = len(self._held) - max((_overlap(self._held, stop) for stop in self._stops), default=0)
        piece, self._held = self._held[:certain], self._held[certain:]
        return piece

    def end(self) -> str:
        """What was held back, once no more text will come."""
        piece, self._held = "" if self.stopped else self._held, ""
        return piece


def _overlap(text: str, stop: str) -> int:
    """Characters at the end of a text with which a stop string begins."""
    return next(n for n in range(min(len(text), len(stop) - 1), -1, -1) if text.endswith(stop[:n]))
