"""Beam search over a file, in numpy: what `generation.beam_search` does for a model in Keras, for one text.

A file holds one text, so that each beam is a text of its own; a beam that goes on from another takes its cache over.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from tfxformer.arguments.plain_values import is_whole_number
from tfxformer.text.generation.token_rules import Rows, TokenRules, require_finite


class Beam(NamedTuple):
    """A target: its new ids, without the one that ended it, and its score."""

    ids: list[int]
    score: float


class _Open(NamedTuple):
    """An unfinished target: its ids from the first on, and the sum of their log probabilities."""

    ids: list[int]
    sum: float


@dataclass
class BeamSearch:
    """Searches for the continuation with the highest score, the sum of log probabilities / tokens ** length_penalty.

    Args:
        num_beams: K, the unfinished continuations that are kept.
        length_penalty, early_stopping: see `generation.Beams`.
        rules: what changes log probabilities before the choice.

    Raises ValueError for a number of beams that is none.
    """

    num_beams: int
    length_penalty: float = 1.0
    early_stopping: bool | str = False
    rules: TokenRules = field(default_factory=TokenRules)

    def __post_init__(self):
        if not is_whole_number(self.num_beams) or self.num_beams < 1:
            raise ValueError(f"num_beams={self.num_beams!r} must be a positive integer.")

    def run(self, sessions: Sequence, written: list[int], end: int, stop_ids: Sequence[int]) -> list[Beam]:
        """The best targets, the best first: as many as there are beams.

        Args:
            sessions: of each beam, what has `decode(token)` -> logits [V] and `copy(other, source=False)`; the first
                has read all but the last of `written`, and the source.
            written: the ids in front of the first new one.
            end: the slot at which texts end unfinished.
            stop_ids: ids that end a text.
        """
        first, finished = len(written), []
        beams, sessions, spare = [_Open(list(written), 0.0)], [sessions[0]], list(sessions[1:])
        for one in spare:
            one.copy(sessions[0], source=True)
        count = self.num_beams * max(2, 1 + len(stop_ids))  # candidates: some go on where many stop at once
        while True:
            sums = self._sums(beams, sessions, first, end)
            best = np.argsort(-sums, axis=None, kind="stable")[:count]
            candidates = [(float(sums.flat[i]), *divmod(int(i), sums.shape[1])) for i in best]
            length = len(beams[0].ids) - first + 1
            stopped = [token in stop_ids or first + length >= end for _, _, token in candidates]
            # Only the K best candidates may finish.
            for (value, beam, token), stops in list(zip(candidates, stopped, strict=True))[: self.num_beams]:
                if stops:
                    ids = [*beams[beam].ids[first:], token]
                    finished.append(Beam(ids[:-1] if token in stop_ids else ids, value / length**self.length_penalty))
            finished = sorted(finished, key=lambda one: -one.score)[: self.num_beams]
            going = [one for one, stops in zip(candidates, stopped, strict=True) if not stops][: self.num_beams]
            if not going or not self._may_improve(going[0][0], finished, length, end - first):
                return finished
            sessions, spare = _moved(sessions, spare, [beam for _, beam, _ in going])
            beams = [_Open([*beams[beam].ids, token], value) for value, beam, token in going]

    def _sums(self, beams: list[_Open], sessions, first: int, end: int) -> np.ndarray:
        """The sums of log probabilities of each beam with each next token: float64 [beams, V]."""
        rows = []
        for beam, session in zip(beams, sessions, strict=True):
            logits = session.decode(beam.ids[-1]).astype(np.float64)
            require_finite(np.isfinite(logits).all())
            logarithms = logits - np.logaddexp.reduce(logits)
            if not self.rules.change_nothing:
                place = Rows(np.array([beam.ids], np.int32), len(beam.ids), np.zeros(1, np.int32), first, end)
                logarithms = self.rules.apply(logarithms[None].astype(np.float32), place)[0]
            rows.append(logarithms + beam.sum)
        return np.stack(rows)

    def _may_improve(self, best_sum: float, finished: list[Beam], length: int, longest: int) -> bool:
        """Whether an unfinished target may still be better than the worst of the finished ones."""
        if len(finished) < self.num_beams:
            return True
        if self.early_stopping is True:
            return False
        reach = longest if self.early_stopping == "never" and self.length_penalty > 0 else length
        return best_sum / reach**self.length_penalty > finished[-1].score


def _moved(sessions: list, spare: list, wanted: list[int]) -> tuple[list, list]:
    """(the sessions of the next beams, the spare ones): beam i goes on from the session `wanted[i]`.

    The first that goes on from a session keeps it; others get a spare one, which takes its cache over.
    """
    spare = spare + [one for index, one in enumerate(sessions) if index not in wanted]
    moved, kept = [], set()
    for index in wanted:
        session = sessions[index]
        if index in kept:
            session = spare.pop()
            session.copy(sessions[index])
        kept.add(index)
        moved.append(session)
    return moved, spare
