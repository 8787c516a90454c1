"""The largest batch that a compiler accepts, found with few compiles.

A compiler refuses a program that is too large soon, with a figure of what it needs, and takes many times longer over
one that fits. So the search begins above, is led by the figures, and leaves a compile that was not refused in time;
only the largest batch is compiled to its end.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

from tfxformer.training.memory.tpu_compiler import Compiled

FINE = 8  # batches are multiples of it, but below it
_STRIDE = 0.05  # how far beyond the last batch that fits the next try is, where no figure says more
_PATIENCE = 2.5  # times the longest refusal so far
_LEAST_PATIENCE = 8.0  # seconds
_COMPLETE = 8.0  # a compile that fits takes this many times the seconds of a refusal (seen: 5 to 7)


class Attempt(NamedTuple):
    """One batch size and what the compiler said."""

    batch_size: int
    compiled: Compiled


class Search:
    """Finds the largest batch that fits.

    Args:
        attempt: compiles a batch size, with a patience in seconds or None: `Compiled`, see `Compiler.compile`.
        first: int, where to begin; better too large than too small.
        available: int, bytes that a program may have.
        fixed: int, bytes that no batch changes: weights and what belongs to them.
        seconds: float, for the whole search; when they run out the best known batch is compiled to its end.

    Attributes:
        attempts: list of Attempt, in their order.
        fits, refused: int or None, the largest batch that fits and the smallest that does not; between them nothing
            was tried.
    """

    def __init__(self, attempt: Callable, first: int, available: int, fixed: int, seconds: float):
        self._attempt, self._first = attempt, _rounded(first)
        self._available, self._fixed = available, fixed
        self._end = time.monotonic() + seconds
        self.attempts: list[Attempt] = []
        self.fits: int | None = None
        self.refused: int | None = None
        self._stride = 0

    def run(self) -> Attempt | None:
        """The largest batch that fits, compiled to its end; None where not even one sample does."""
        batch = self._first
        while True:
            while batch is not None and self._has_time():
                self._try(batch, self._patience())
                batch = self._next()
            known = self._complete(self.fits)
            if known is not None or self.fits is None:
                return known
            self._try(self.fits, None)  # it was left early, is compiled to its end now, and may yet be refused
            batch = self._next() if self.fits is None else None

    def _complete(self, batch: int | None) -> Attempt | None:
        whole = (one for one in self.attempts if one.batch_size == batch and one.compiled.peak_bytes is not None)
        return next(whole, None)

    def _try(self, batch: int, patience: float | None) -> None:
        compiled = self._attempt(batch, patience)
        self.attempts.append(Attempt(batch, compiled))
        if not compiled.fits:
            self.refused = batch if self.refused is None else min(batch, self.refused)
        fitting = [one.batch_size for one in self.attempts if one.compiled.fits]
        below = [batch for batch in fitting if self.refused is None or batch < self.refused]
        self.fits = max(below, default=None)

    def _patience(self) -> float | None:
        """Seconds after which a try counts as one that fits; None where the time is for one compile to its end only."""
        seconds = self._seconds_to_refuse()
        return seconds if seconds is not None and self._has(2 * seconds + self._seconds_to_fit()) else None

    def _has_time(self) -> bool:
        """Whether there is time for one more try and for compiling the best batch to its end."""
        return self.fits is None or self._has((self._seconds_to_refuse() or 0.0) + self._seconds_to_fit())

    def _has(self, seconds: float) -> bool:
        return time.monotonic() + seconds < self._end

    def _seconds_to_refuse(self) -> float | None:
        refusals = [one.compiled.seconds for one in self.attempts if one.compiled.needed_bytes]
        return max(_LEAST_PATIENCE, _PATIENCE * max(refusals)) if refusals else None

    def _seconds_to_fit(self) -> float:
        """Of a compile to its end, by those so far or else by the refusals."""
        whole = [one.compiled.seconds for one in self.attempts if one.compiled.peak_bytes is not None]
        refusals = [one.compiled.seconds for one in self.attempts if one.compiled.needed_bytes]
        return max(whole, default=_COMPLETE * max(refusals, default=0.0))

    def _next(self) -> int | None:
        fits, refused, likely = self.fits or 0, self.refused, self._likely()
        if refused is None:
            return _rounded(max(2 * fits, min(likely or 4 * fits, 64 * fits)))
        fine = FINE if fits >= FINE else 1
        if refused - fits <= fine:
            return None
        if fits < (likely or 0) < refused - 1:
            return likely if fits else min(likely, self._beyond(refused, -1, fine))
        if not fits:
            return refused // 2
        # The figure led to the wrong side: go on from the batch that it says the limit is near to.
        middle = _rounded((fits + refused) // 2)
        if (likely or 0) >= refused - 1:
            batch = max(self._beyond(refused, -1, fine), middle)
        else:
            batch = min(self._beyond(fits, 1, fine), middle)
        return max(fits + fine, min(batch, refused - fine))

    def _beyond(self, batch: int, direction: int, fine: int) -> int:
        """A batch above or below, in steps that grow."""
        self._stride = max(fine, 2 * self._stride or int(_STRIDE * batch))
        return max(1, _rounded(batch + direction * self._stride))

    def _likely(self) -> int | None:
        """The batch at which memory, growing in proportion from the figure nearest to the limit, is full."""
        known = [(_figure(one.compiled), one.batch_size) for one in self.attempts if _figure(one.compiled)]
        if not known:
            return None
        needed, batch = min(known, key=lambda pair: abs(pair[0] - self._available))
        if needed <= self._fixed or self._available <= self._fixed:
            return None
        return _rounded(int(batch * (self._available - self._fixed) / (needed - self._fixed)))


def largest_by_figures(needed: Callable[[int], int], available: int, fixed: int) -> int:
    """The largest batch, to a twentieth, where every batch has a figure: memory grows nearly in proportion.

    Args:
        needed: bytes of a batch size.
        available: int, bytes that there are.
        fixed: int, bytes of no batch at all.

    Returns:
        int, 0 where not even one sample fits.
    """
    known, batch = {0: fixed}, FINE
    while True:
        known[batch] = needed(batch)
        fits = max((one for one, count in known.items() if count <= available), default=0)
        refused = min((one for one, count in known.items() if count > available), default=None)
        if refused == 0:
            return 0
        fine = max(FINE if fits >= FINE else 1, int(_STRIDE * fits))
        if refused is not None and refused - fits <= fine:
            return fits
        (one, of_one), (other, of_other) = sorted(known.items(), key=lambda pair: abs(pair[1] - available))[:2]
        growth = (of_other - of_one) / (other - one)
        likely = _rounded(int(one + (available - of_one) / growth)) if growth > 0 else 2 * max(known)
        if fits and likely < fits + fine and len(known) > 2:
            return fits
        most = 64 * max(known) if refused is None else refused - 1
        batch = min(max(likely, fits + 1), most)
        batch = batch if batch not in known else (fits + most + 1) // 2


def _figure(compiled: Compiled) -> int | None:
    return compiled.peak_bytes if compiled.fits else compiled.needed_bytes


def _rounded(batch: int) -> int:
    """The multiple of 8 at or below, or the number itself where it is smaller; never 0."""
    return max(1, batch if batch < FINE else batch - batch % FINE)
