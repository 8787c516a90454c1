"""What changes the logits before a token is chosen: a checkpoint's rules, a repetition penalty, the user's functions.

Shape letters: B rows, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from keras import ops

from tfxformer.text.generation.token_rules import Rows, TokenRules


@dataclass(frozen=True)
class RepetitionPenalty:
    """Makes tokens that the text has already, prompt included, less probable (Keskar et al., 2019, arXiv:1909.05858).

    Attributes:
        penalty: what their logits are divided by where positive, and multiplied by where negative; 1 changes nothing.

    Raises ValueError for a penalty that is not above 0.
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
    """The processors as a tuple; TypeError for what is no `RepetitionPenalty`, no `TokenRules` and no function."""
    if isinstance(processors, (RepetitionPenalty, TokenRules)) or callable(processors):
        raise TypeError(f"processors is a list of them, not one: pass [{processors!r}].")
    processors = tuple(processors)
    for processor in processors:
        if not isinstance(processor, (RepetitionPenalty, TokenRules)) and not callable(processor):
            raise TypeError(
                "A processor is a RepetitionPenalty or a function from logits [B, V] to logits, or TokenRules, not "
                f"{processor!r}."
            )
    return processors


def static_part(processors: tuple) -> tuple:
    """What a compiled loop is traced for: the functions and rules, and where penalties stand among them."""
    return tuple(RepetitionPenalty if isinstance(one, RepetitionPenalty) else one for one in processors)


def values_of(processors: tuple) -> tuple:
    """The numbers that the loop reads as tensors, one for each processor."""
    return tuple(np.float32(getattr(one, "penalty", 0.0)) for one in processors)


def process(logits, seen, kinds: tuple, values, rows: Rows):
    """Logits float32 [B, V] through all processors; `kinds` by `static_part`, `values` by `values_of`."""
    for kind, value in zip(kinds, values, strict=True):
        if kind is RepetitionPenalty:
            logits = kind.apply(logits, seen, value)
        else:
            logits = kind.apply(logits, rows, ops) if isinstance(kind, TokenRules) else kind(logits)
    return logits
