"""Attention rollout: how much of each token reaches what a classifier reads, by attention alone.

Source: Abnar and Zuidema, 2020 (arXiv:2005.00928), section 3. Shape letters: N heads, S tokens.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tfxformer.models.config.transformer import MEAN_OF_LOGITS


def rollout(weights: Sequence[np.ndarray]) -> np.ndarray:
    """The shares of the inputs in each position of the last layer.

    Each layer is half the mean of its heads, and half the residual connection; the layers are multiplied.

    Args:
        weights: of each layer float [N, S, S], rows that sum to one.

    Returns:
        float64 [S, S], rows that sum to one.
    """
    shares = np.eye(weights[0].shape[-1])
    for layer in weights:
        shares = (0.5 * np.asarray(layer, "float64").mean(0) + 0.5 * np.eye(len(shares))) @ shares
    return shares


def read_rows(backbone, count: int) -> np.ndarray:
    """How a classifier reads the positions of a text of `count` tokens: float64 [S], a sum of one."""
    pooling = backbone.config.heads.classifier_pooling if backbone.stack_name == "encoder" else "last"
    if pooling in ("mean", MEAN_OF_LOGITS):
        return np.full(count, 1.0 / count)
    return np.eye(count)[-1 if pooling == "last" else 0]
