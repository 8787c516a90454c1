"""Several sets of examples as one stream: how much of each, and in which order."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def mixing_rates(sizes: Sequence[int], temperature: float = 1.0, limit: int | None = None) -> np.ndarray:
    """The share of each set: float64 [sets], proportional to min(size, limit) ** (1 / temperature).

    A temperature of 1 mixes by size, a higher one makes small sets count more, and `limit` lets no set count as a
    larger one (Raffel et al., 2019, arXiv:1910.10683, section 3.5.2).

    Raises:
        ValueError: for an empty set, or a temperature or limit that is not positive.
    """
    if not len(sizes) or min(sizes) < 1 or not temperature > 0 or (limit is not None and limit < 1):
        raise ValueError(
            f"Sets of {list(sizes)} examples, temperature={temperature}, limit={limit}: each must be positive."
        )
    counted = np.minimum(np.asarray(sizes, np.float64), np.inf if limit is None else limit) ** (1.0 / temperature)
    return counted / counted.sum()


def mixed_order(sizes: Sequence[int], rates, count: int, seed) -> tuple[np.ndarray, np.ndarray]:
    """Which set, and which of its rows, each of `count` examples is: two int64 [count].

    A set has its share of the count to within one. Its rows come in a random order, all of them before any comes again.

    Args:
        seed: int or list of ints; the order depends on it alone.
    """
    generator = np.random.default_rng(seed)
    shares = np.asarray(rates, np.float64) * count
    counts = np.floor(shares).astype(np.int64)
    counts[np.argsort(counts - shares, kind="stable")[: count - counts.sum()]] += 1  # the largest remainders
    rows = [
        np.concatenate([generator.permutation(size) for _ in range(-(-wanted // size))] or [np.zeros(0, np.int64)])[
            :wanted
        ]
        for size, wanted in zip(sizes, counts, strict=True)
    ]
    order = generator.permutation(count)
    return np.repeat(np.arange(len(counts)), counts)[order], np.concatenate(rows)[order]
