"""What the GPT is measured against: interpolated Kneser-Ney over the same tokens (Kneser and Ney, 1995).

Shape letters: Q tokens that are asked for, V vocabulary.
"""

from __future__ import annotations

import numpy as np


class KneserNey:
    """Probabilities of a token after those before it.

    The highest order counts how often a token follows; a lower one how many different tokens stand before both. Each
    count loses a discount, which the next lower order shares out; below one token there is 1 / V.

    Args:
        ids: int [tokens], what is counted.
        vocabulary_size: int V.
        order: int, tokens of an n-gram; V ** order must fit into 63 bits.
    """

    def __init__(self, ids: np.ndarray, vocabulary_size: int, order: int = 5):
        if vocabulary_size**order >= 2**63:
            raise ValueError(f"{vocabulary_size} ** {order} is too large for 63 bits: take a lower order.")
        self.vocabulary_size, self.order = vocabulary_size, order
        self._levels, grams, counts = [], None, None
        for size in range(order, 0, -1):
            if grams is None:
                grams, counts = np.unique(self._packed(_windows(ids, size)), return_counts=True)
            else:  # of the n-grams one longer, the first token dropped: each says one token that stands before
                grams, counts = np.unique(grams % vocabulary_size**size, return_counts=True)
            self._levels.insert(0, self._level(grams, counts))

    def _packed(self, rows: np.ndarray) -> np.ndarray:
        """Rows of tokens as one number each: int64 [...]."""
        packed = np.zeros(rows.shape[:-1], np.int64)
        for place in range(rows.shape[-1]):
            packed = packed * self.vocabulary_size + rows[..., place]
        return packed

    def _level(self, grams: np.ndarray, counts: np.ndarray) -> tuple:
        """(n-grams, counts, contexts, their totals, how many tokens follow each, discount)."""
        once, twice = (counts == 1).sum(), (counts == 2).sum()
        discount = once / max(1, once + 2 * twice)  # Ney, Essen and Kneser, 1994
        contexts, first, follow = np.unique(grams // self.vocabulary_size, return_index=True, return_counts=True)
        return grams, counts, contexts, np.add.reduceat(counts, first), follow, discount

    def probabilities(self, contexts: np.ndarray, tokens: np.ndarray) -> np.ndarray:
        """Of tokens [Q] after contexts [Q, order - 1] (-1 where there is none): float64 [Q]."""
        found = np.full(len(tokens), 1 / self.vocabulary_size)
        for size, (grams, counts, seen, totals, follow, discount) in enumerate(self._levels, start=1):
            near = contexts[:, contexts.shape[1] - size + 1 :]
            context = self._packed(near.astype(np.int64))
            place, known = _find(seen, context)
            known &= (near >= 0).all(-1)
            at, there = _find(grams, context * self.vocabulary_size + tokens)
            count = np.where(there, counts[at], 0)
            share = (np.maximum(count - discount, 0) + discount * follow[place] * found) / totals[place]
            found = np.where(known, share, found)
        return found

    def nats(self, ids: np.ndarray) -> float:
        """The mean negative log-likelihood of a text's tokens but the first."""
        padded = np.concatenate([np.full(self.order - 2, -1), ids])
        contexts = _windows(padded, self.order - 1)[:-1]
        return -float(np.log(self.probabilities(contexts, ids[1:])).mean())

    def complete(self, prompts: list[list[int]], ends: set[int], most: int) -> list[list[int]]:
        """The likeliest next tokens of prompts, one after the other, up to one of `ends` (left out) or `most`."""
        rows, wanted = [list(prompt) for prompt in prompts], list(range(len(prompts)))
        found: list[list[int]] = [[] for _ in prompts]
        every = np.arange(self.vocabulary_size)
        for _ in range(most):
            going = []
            for index in wanted:
                context = np.array(([-1] * self.order + rows[index])[1 - self.order :])
                likely = self.probabilities(np.tile(context, (len(every), 1)), every)
                token = int(likely.argmax())
                if token not in ends:
                    rows[index].append(token)
                    found[index].append(token)
                    going.append(index)
            wanted = going
        return found


def _windows(ids: np.ndarray, size: int) -> np.ndarray:
    """Every run of `size` tokens: [tokens - size + 1, size]."""
    return np.lib.stride_tricks.sliding_window_view(ids, size)


def _find(values: np.ndarray, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(where each is in sorted values, whether it is there)."""
    place = np.minimum(np.searchsorted(values, wanted), len(values) - 1)
    return place, values[place] == wanted
