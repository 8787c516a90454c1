"""Stop strings: where a text that comes in pieces ends."""

from __future__ import annotations

from collections.abc import Iterable


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
