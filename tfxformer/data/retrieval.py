"""Vectors and scores compared: which documents belong to a query.

Plain numpy, with the numbers of sentence-transformers (https://github.com/huggingface/sentence-transformers).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

SIMILARITIES = ("cosine", "dot", "euclidean", "manhattan")
_CELLS = 1 << 24  # of a matrix of similarities that is held at once: 64 MiB


class Found(NamedTuple):
    """A document that was found for a query.

    Attributes:
        index: int, its place among the documents.
        score: float, higher is nearer.
        text: str, the document, or None where it was given as a vector.
    """

    index: int
    score: float
    text: str | None = None


def similarities(first: np.ndarray, second: np.ndarray, kind: str = "cosine") -> np.ndarray:
    """How near vectors are: float [A, D] and [B, D] -> float32 [A, B], higher is nearer.

    Args:
        kind: "cosine", "dot", or the negative distance "euclidean" or "manhattan".

    Raises:
        ValueError: for an unknown kind, and for vectors of different widths.
    """
    if kind not in SIMILARITIES:
        raise ValueError(f"Unknown similarity {kind!r}; known: {', '.join(SIMILARITIES)}.")
    first, second = (np.asarray(vectors, "float32") for vectors in (first, second))
    if first.ndim != 2 or second.ndim != 2 or first.shape[1] != second.shape[1]:
        raise ValueError(
            f"Vectors of the shapes {list(first.shape)} and {list(second.shape)}: wanted are [A, D] and [B, D]."
        )
    if kind in ("euclidean", "manhattan"):
        order = 2 if kind == "euclidean" else 1
        distances = np.empty((len(first), len(second)), "float32")
        for index, row in enumerate(first):  # all differences at once would be [A, B, D]
            distances[index] = np.linalg.norm(row - second, order, axis=-1)
        return -distances
    if kind == "cosine":
        first, second = (
            vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12) for vectors in (first, second)
        )
    return first @ second.T


def nearest(
    queries: np.ndarray, documents: np.ndarray, top_k: int, kind: str = "cosine", texts: Sequence[str] | None = None
) -> list[list[Found]]:
    """The `top_k` nearest documents [B, D] of each query [A, D], the nearest first.

    Raises:
        ValueError: as `similarities`; for a top_k below 1.
    """
    rows = max(1, _CELLS // max(1, len(documents)))
    found = []
    for first in range(0, len(queries), rows):
        found += [
            ranked(scores, top_k, texts) for scores in similarities(queries[first : first + rows], documents, kind)
        ]
    return found


def ranked(scores: np.ndarray, top_k: int | None = None, texts: Sequence[str] | None = None) -> list[Found]:
    """The documents of the `top_k` highest scores [B], highest first; None for all. Of equal ones the earlier first.

    Raises:
        ValueError: for a top_k below 1.
    """
    if top_k is not None and (type(top_k) is not int or top_k < 1):
        raise ValueError(f"top_k={top_k!r} must be a positive whole number, or None for all.")
    scores = np.asarray(scores)
    candidates = np.arange(len(scores))
    if top_k is not None and top_k < len(scores):  # no sort of all: those above the lowest that stays, and its equals
        candidates = np.flatnonzero(scores >= np.partition(scores, -top_k)[-top_k])
    order = candidates[np.argsort(-scores[candidates], kind="stable")][:top_k]
    return [Found(int(index), float(scores[index]), None if texts is None else texts[index]) for index in order]
