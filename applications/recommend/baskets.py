"""What each Debian source needs, as baskets of items, one of which is held out of some; and how well it was guessed."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass

import numpy as np

LEAST = 5  # items of a basket, and baskets of an item


@dataclass(frozen=True)
class Baskets:
    """Baskets with what is left in them.

    Attributes:
        names: of the sources, sorted.
        items: names of packages, sorted.
        rows: for each source the items that are left, shuffled by the seed.
        held_out: place of a source -> the item that was taken out of its row.
    """

    names: list[str]
    items: list[str]
    rows: list[list[str]]
    held_out: dict[int, str]

    def matrix(self) -> np.ndarray:
        """What is left, float32 [sources, items] of zeros and ones."""
        places = {item: place for place, item in enumerate(self.items)}
        left = np.zeros((len(self.rows), len(self.items)), "float32")
        for line, row in zip(left, self.rows, strict=True):
            line[[places[item] for item in row]] = 1
        return left

    def wanted(self) -> np.ndarray:
        """The places of the items that were held out, int [T], in the order of `held_out`."""
        places = {item: place for place, item in enumerate(self.items)}
        return np.array([places[item] for item in self.held_out.values()])


def common(baskets: dict[str, list[str]], least: int = LEAST) -> dict[str, list[str]]:
    """Baskets of at least so many items that each are in at least so many baskets."""
    while True:
        counts = Counter(item for row in baskets.values() for item in row)
        kept = {name: [item for item in row if counts[item] >= least] for name, row in baskets.items()}
        kept = {name: row for name, row in kept.items() if len(row) >= least}
        if kept == baskets:
            return kept
        baskets = kept


def split(baskets: dict[str, list[str]], count: int, seed: int = 0) -> Baskets:
    """Takes one item, chosen by the seed, out of each of `count` baskets, which it chooses too."""
    chance = random.Random(seed)
    names = sorted(baskets)
    rows = [chance.sample(sorted(baskets[name]), len(baskets[name])) for name in names]
    chosen = sorted(chance.sample(range(len(names)), count))
    held_out = {place: rows[place].pop() for place in chosen}
    return Baskets(names, sorted({item for row in baskets.values() for item in row}), rows, held_out)


def ranks(scores: np.ndarray, left: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """How many items stand before the wanted one, of those that are not in the basket: int [T].

    Args:
        scores: float [T, items], higher is better; of equal ones the wanted one comes last.
        left: [T, items], above 0 where an item is in the basket already.
        wanted: int [T].
    """
    own = np.take_along_axis(scores, wanted[:, None], 1)
    others = (scores >= own) & ~(left > 0)
    others[np.arange(len(wanted)), wanted] = False
    return others.sum(1)


def measured(places: np.ndarray) -> dict[str, float]:
    """Of ranks: how often the wanted item is among the first 10, and the mean reciprocal rank."""
    return {"recall": float((places < 10).mean()), "mrr": float((1 / (places + 1)).mean())}
