"""Weights rounded to few bits, so that what the products give stays, and not each weight by itself.

Two means, both of which leave a file as large and as fast as plain rounding does:

* a scale for each group of weights that makes the smallest squared error of them, not the one that just holds the
  largest weight;
* where inputs of the product are known, the error of each rounded weight is made up for by those that are rounded
  after it (Frantar et al., 2023, GPTQ, arXiv:2210.17323; Hassibi and Stork, 1993): of all weights of a row the rest is
  what least squares over the inputs asks for.

Shape letters: O outputs, K inputs of a product, B weights that share a scale.
"""

from __future__ import annotations

from typing import NamedTuple

import ml_dtypes
import numpy as np

LOWEST, HIGHEST = -8, 7  # of int4
# Of the scale with which the largest weight is the highest integer; at 7/8 it is the lowest one.
CANDIDATES = np.concatenate([np.linspace(0.6, 1.0, 17), [HIGHEST / -LOWEST]])
# Scales of blocks are stored in float16, and XNNPACK opens no file in which one is 0.
SMALLEST_SCALE = 2.0**-20
DAMPING = 0.01  # of the mean square of an input: what was never seen to vary is not free


def group_scales(weights, importance=None):
    """The scale of each group with the smallest squared error, weighted by how large the inputs are.

    Args:
        weights: float32 [..., B].
        importance: float32 [B] or None, mean squares of the inputs.

    Returns:
        float32 [..., 1], numbers that bfloat16 has: as such LiteRT keeps scales of blocks.
    """
    largest = np.abs(weights).max(axis=-1, keepdims=True) / HIGHEST
    scales = smallest = None
    for factor in CANDIDATES:
        scale = np.maximum(largest * factor, SMALLEST_SCALE).astype(ml_dtypes.bfloat16).astype(np.float32)
        errors = np.square(weights - integers(weights, scale) * scale)
        error = (errors if importance is None else errors * importance).sum(axis=-1, keepdims=True)
        if scales is None:
            scales, smallest = scale, error
        else:
            scales, smallest = np.where(error < smallest, scale, scales), np.minimum(error, smallest)
    return scales


def integers(weights, scale):
    """Weights as the nearest integers of 4 bits, float32 still."""
    return np.clip(np.rint(weights / scale), LOWEST, HIGHEST)


def rounded(weights, block: int | None):
    """Weights [O, K] by themselves: (integers int8 [O, K], scales float32 [O, K/B]); B is K where `block` is None."""
    groups = weights.reshape(len(weights), -1, block or weights.shape[1])
    scales = group_scales(groups)
    return integers(groups, scales).astype(np.int8).reshape(weights.shape), scales[..., 0]


class Known(NamedTuple):
    """What is known of the inputs of a product.

    Attributes:
        importance: float32 [K], their mean squares, but for a factor.
        onto_later: float32 [K, K], the upper Cholesky factor of the inverse of their moments: its row c, over its
            diagonal element, is how the weights behind c move for an error in weight c while those before it are fixed.
    """

    importance: np.ndarray
    onto_later: np.ndarray

    @classmethod
    def of(cls, moments) -> Known:
        """From sums of products of the inputs, X^T X: float [K, K]."""
        from scipy.linalg import solve_triangular  # comes with the extra [int4]

        mean = np.diag(moments).mean(dtype=np.float64)
        identity = np.eye(len(moments))
        damped = moments + DAMPING * (mean if mean > 0 else 1.0) * identity
        # Of the matrix read backwards, so that the factor is upper and no inverse of the whole is made.
        upper = np.linalg.cholesky(damped[::-1, ::-1])[::-1, ::-1]
        return cls(np.diag(damped).astype(np.float32), solve_triangular(upper, identity).astype(np.float32))


def compensated(weights, known: Known, block: int | None):
    """Weights [O, K] in turn, the later ones taking over the errors of the earlier ones.

    Args:
        weights: float32 [O, K].
        known: of their inputs.
        block: int B, or None for K.

    Returns:
        as `rounded`.
    """
    columns = np.array(weights.T, np.float32)  # [K, O]: each is read and written at once
    inputs, outputs = columns.shape
    importance, onto_later = known
    found, scales = np.empty((inputs, outputs), np.int8), []
    if block is None:  # one scale for a row, whose later weights are not yet what they will be
        scales.append(group_scales(weights, importance))
    for start in range(0, inputs, block or 32):
        end = min(start + (block or 32), inputs)
        if block is not None:
            scales.append(group_scales(columns[start:end].T, importance[start:end]))
        errors = np.empty((end - start, outputs), np.float32)
        for column in range(start, end):
            chosen = integers(columns[column], scales[-1][:, 0])
            found[column] = chosen
            errors[column - start] = (columns[column] - chosen * scales[-1][:, 0]) / onto_later[column, column]
            columns[column + 1 : end] -= np.outer(onto_later[column, column + 1 : end], errors[column - start])
        columns[end:] -= onto_later[start:end, end:].T @ errors
    return np.ascontiguousarray(found.T), np.concatenate(scales, axis=1)
