"""The largest batch that a compiler accepts, found with few compiles.

A compiler refuses a program that is too large soon, with a figure of what it needs, and takes many times longer over
one that fits. So the search begins above, is led by the figures, and leaves a compile that was not refused in time;
only the largest batch is compiled to its end.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

from tfxformer.training.tpu_compiler import Compiled

FINE = 8  # batches are multiples of it, but below it
_STRIDE = 0.05  # how far beyond the last batch that fits the next try is, where no figure says more
_PATIENCE = 2.5  # times the longest refusal so far
_LEAST_PATIENCE = 8.0  # seconds
_COMPLETE = 9.0  # a compile that fits takes this many times the seconds of a refusal (seen: 6 to 8)


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
        refusals = [one.compiled.seconds for one in self.attempts if not one.compiled.fits]
        return max(_LEAST_PATIENCE, _PATIENCE * max(refusals)) if refusals else None

    def _has_time(self) -> bool:
        """Whether one more try, and then the compile of the best batch to its end, can be done in time."""
        longest = max((one.compiled.seconds for one in self.attempts), default=0.0)
        patience = self._patience()
        ending = longest if patience is None else max(longest, _COMPLETE * patience / _PATIENCE)
        return self.fits is None or time.monotonic() + (patience or longest) + ending < self._end

    def _next(self) -> int | None:
        fits, refused, likely = self.fits or 0, self.refused, self._likely()
        if refused is None:
            return _rounded(max(2 * fits, min(likely or 4 * fits, 16 * fits)))
        fine = FINE if refused > FINE else 1
        if refused - fits <= fine:
            return None
        if not fits:
            return max(1, _rounded(min(likely or refused // 2, refused - fine)))
        if likely is not None and fits < likely < refused:
            return likely
        # The figure led to the wrong side: go on from the batch that fits, in growing steps.
        self._stride = max(fine, 2 * self._stride or int(_STRIDE * fits))
        return max(fits + fine, min(_rounded(fits + self._stride), refused - fine, _rounded((fits + refused) // 2)))

    def _likely(self) -> int | None:
        """The batch at which memory, growing in proportion from the figure nearest to the limit, is full."""
        known = [(_figure(one.compiled), one.batch_size) for one in self.attempts if _figure(one.compiled)]
        if not known:
            return None
        needed, batch = min(known, key=lambda pair: abs(pair[0] - self._available))
        if needed <= self._fixed or self._available <= self._fixed:
            return None
        return _rounded(int(batch * (self._available - self._fixed) / (needed - self._fixed)))


def _figure(compiled: Compiled) -> int | None:
    return compiled.peak_bytes if compiled.fits else compiled.needed_bytes


def _rounded(batch: int) -> int:
    """The multiple of 8 at or below, or the number itself where it is smaller; never 0."""
    return max(1, batch if batch < FINE else batch - batch % FINE)
