"""Choosing the next token from logits, in numpy: what running a file needs without Keras."""

from __future__ import annotations

import numpy as np


class Sampler:
    """Draws tokens; the most likely one where `temperature` is 0.

    Args:
        temperature: float, what logits are divided by; 0 for the most likely token each time.
        top_k: None, or draw from the k most likely tokens only.
        top_p: None, or draw from the fewest tokens whose probabilities reach p together (Holtzman et al., 2020,
            arXiv:1904.09751); after `top_k`.
        min_p: None, or draw from the tokens whose probability is at least this share of the largest one (Nguyen et al.,
            2024, arXiv:2407.01082).
        seed: int, or None for another text each time.
    """

    def __init__(
        self,
        temperature: float = 0.0,
        top_k: int | None = None,
        top_p: float | None = None,
        min_p: float | None = None,
        seed: int | None = None,
    ):
        if not (np.isfinite(temperature) and temperature >= 0):
            raise ValueError(f"temperature={temperature!r} must be 0 (the most likely token) or a positive number.")
        if top_k is not None and (isinstance(top_k, bool) or int(top_k) != top_k or top_k < 1):
            raise ValueError(f"top_k={top_k!r} must be a positive integer, or None for all tokens.")
        if top_p is not None and not 0 < top_p <= 1:
            raise ValueError(f"top_p={top_p!r} must be above 0 and at most 1.")
        if min_p is not None and not 0 <= min_p <= 1:
            raise ValueError(f"min_p={min_p!r} must be from 0 to 1.")
        if temperature == 0 and not (top_k is None and top_p is None and min_p is None):
            raise ValueError("top_k, top_p and min_p draw tokens by chance: give a temperature too, such as 1.0.")
        self._temperature, self._top_k, self._top_p, self._min_p = temperature, top_k, top_p, min_p
        self._generator = np.random.default_rng(seed)

    def __call__(self, logits) -> int:
        """The next token of logits [V]."""
        if self._temperature == 0:
            return int(np.argmax(logits))
        scores = np.asarray(logits, np.float64) / self._temperature
        kept = np.arange(len(scores))
        if self._top_k is not None and self._top_k < len(scores):
            kept = np.argpartition(scores, -self._top_k)[-self._top_k :]
        kept = kept[np.argsort(-scores[kept], kind="stable")]
        chances = np.exp(scores[kept] - scores[kept[0]])
        chances /= chances.sum()
        if self._top_p is not None:
            # A token is kept while those before it have not reached p: the first one always.
            count = int(np.count_nonzero(np.cumsum(chances) - chances < self._top_p))
            kept, chances = kept[:count], chances[:count] / chances[:count].sum()
        if self._min_p is not None:
            count = int(np.count_nonzero(chances >= self._min_p * chances[0]))
            kept, chances = kept[:count], chances[:count] / chances[:count].sum()
        return int(kept[self._generator.choice(len(kept), p=chances)])
