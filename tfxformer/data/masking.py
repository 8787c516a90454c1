"""Masked language modelling: which tokens are hidden."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from tfxformer.text import Tokenizer


class MaskedTokens(NamedTuple):
    """`token_ids` int32 [B,S] as the model sees them, `labels` int32 [B,S] the original ids, and `weights`
    float32 [B,S], 1 where a token is to be predicted."""

    token_ids: np.ndarray
    labels: np.ndarray
    weights: np.ndarray


class Filling(NamedTuple):
    """One way to fill a mask: the token as text, its id and its probability."""

    token: str
    token_id: int
    probability: float


def best_fillings(logits: np.ndarray, tokenizer: Tokenizer, count: int) -> list[Filling]:
    """The most probable tokens under the logits [V] of one mask, best first."""
    logits = np.asarray(logits, np.float64)[: tokenizer.vocabulary_size]  # tables may have rows beyond it
    exponents = np.exp(logits - logits.max())
    best = np.argsort(-logits, kind="stable")[:count]
    tokens = tokenizer.decode(best[:, None], skip_special_tokens=False)
    shares = exponents[best] / exponents.sum()
    return [Filling(t.strip(), int(i), float(p)) for t, i, p in zip(tokens, best, shares, strict=True)]


def mask_tokens(
    token_ids: np.ndarray,
    *,
    mask_id: int,
    vocabulary_size: int,
    special_ids: Iterable[int],
    generator: np.random.Generator,
    rate: float = 0.15,
) -> MaskedTokens:
    """Chooses each token with probability `rate`: 80 % become the mask, 10 % a random token, 10 % stay.

    Source: Devlin et al. 2018 (arXiv:1810.04805), chosen anew at each call as in Liu et al. 2019
    (arXiv:1907.11692).

    Args:
        token_ids: int [B,S].
        special_ids: ids never chosen (padding, classifier, separator, mask, unknown).
        generator: the only source of chance; equal states give equal masks.
    """
    if not 0.0 < rate <= 1.0:
        raise ValueError(f"rate must be above 0 and at most 1, got {rate}.")
    original = np.asarray(token_ids, np.int32)
    chosen = generator.random(original.shape) < rate
    chosen &= ~np.isin(original, np.fromiter(special_ids, np.int32))
    fate = generator.random(original.shape)
    random_ids = generator.integers(0, vocabulary_size, original.shape, np.int32)
    masked = np.where(chosen & (fate < 0.8), np.int32(mask_id), original)
    masked = np.where(chosen & (fate >= 0.9), random_ids, masked)
    return MaskedTokens(masked, original, chosen.astype(np.float32))
