"""How long a batch is."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

MULTIPLE = 16  # lengths are multiples of it: few graphs to trace, full vector lanes
PERCENTILE = 95


def round_length(length: int, maximum: int) -> int:
    """`length` rounded up to a multiple of 16, at most `maximum`."""
    return min(maximum, max(1, -(-length // MULTIPLE)) * MULTIPLE)


def default_sequence_length(counts: Sequence[int], maximum: int) -> int:
    """The length that holds 95 % of the texts whole.

    Args:
        counts: tokens of each text, special tokens included.
        maximum: the model's positions.

    Returns:
        The 95th percentile, rounded up to a multiple of 16, at most `maximum`.
    """
    if not len(counts):
        raise ValueError("There are no texts to choose a sequence length from.")
    return round_length(int(np.ceil(np.percentile(np.asarray(counts), PERCENTILE))), maximum)
