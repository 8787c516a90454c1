"""What changes the logits before a token is chosen: a repetition penalty, and functions of the user's.

Shape letters: B rows, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from keras import ops


@dataclass(frozen=True)
class RepetitionPenalty:
    """Makes tokens that the text has already, prompt included, less probable (Keskar et al., 2019, arXiv:1909.05858).

    Attributes:
        penalty: what their logits are divided by where positive, and multiplied by where negative; 1 changes nothing.
    """

    penalty: float

    def __post_init__(self):
        if not 0 < self.penalty < float("inf"):
            raise ValueError(f"The repetition penalty must be above 0 (1 for none), not {self.penalty!r}.")

    @staticmethod
    def apply(logits, seen, penalty):
        """[B, V] logits, bool [B, V] of the tokens seen, and the penalty -> [B, V]."""
        return ops.where(seen, ops.where(logits < 0, logits * penalty, logits / penalty), logits)


def check_processors(processors) -> tuple:
    """The processors as a tuple; TypeError for what is neither a `RepetitionPenalty` nor a function."""
    processors = tuple(processors)
    for processor in processors:
        if not isinstance(processor, RepetitionPenalty) and not callable(processor):
            raise TypeError(
                f"A processor is a RepetitionPenalty or a function from logits [B, V] to logits, not {processor!r}."
            )
    return processors


def static_part(processors: tuple) -> tuple:
    """What a compiled loop is traced for: the functions, and where penalties stand among them."""
    return tuple(RepetitionPenalty if isinstance(one, RepetitionPenalty) else one for one in processors)


def values_of(processors: tuple) -> tuple:
    """The numbers that the loop reads as tensors, one for each processor."""
    return tuple(np.float32(getattr(one, "penalty", 0.0)) for one in processors)


def process(logits, seen, kinds: tuple, values):
    """Logits float32 [B, V] through all processors; `kinds` by `static_part`, `values` by `values_of`."""
    for kind, value in zip(kinds, values, strict=True):
        logits = kind.apply(logits, seen, value) if kind is RepetitionPenalty else kind(logits)
    return logits
