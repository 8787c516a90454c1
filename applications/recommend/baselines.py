"""What takes no transformer: how common an item is, items near those in the basket, and a linear model of all items."""

from __future__ import annotations

import numpy as np

PENALTY = 10.0  # of the linear model: what recalled most of 10, 50 and 200


def commonest(left: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """[baskets, items] of zeros and ones, and places of baskets [T] -> scores [T, items]: in how many baskets it is."""
    return np.tile(left.sum(0), (len(rows), 1))


def nearest_items(left: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Item-kNN: the sum of an item's cosines with those in the basket, over the baskets that they are in."""
    together = left.T @ left
    lengths = np.sqrt(np.diag(together))
    cosines = together / np.maximum(np.outer(lengths, lengths), 1e-9)
    np.fill_diagonal(cosines, 0)
    return left[rows] @ cosines


def linear(left: np.ndarray, rows: np.ndarray, penalty: float = PENALTY) -> np.ndarray:
    """EASE: each item by ridge regression from all others, in closed form (Steck, 2019, arXiv:1905.03375)."""
    inverse = np.linalg.inv(left.T @ left + penalty * np.eye(left.shape[1], dtype=left.dtype))
    weights = inverse / -np.diag(inverse)
    np.fill_diagonal(weights, 0)
    return left[rows] @ weights


WAYS = {"commonest items": commonest, "item-kNN": nearest_items, "EASE, linear": linear}
