"""Masked language modelling: which tokens are hidden.

Shape letters: B rows, S sequence length, P hidden places of a row.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from tfxformer.text import Tokenizer

MASKINGS = ("tokens", "words", "spans")
_SPAN_LENGTHS = np.arange(1, 11)
_SPAN_SHARES = 0.2 * 0.8 ** (_SPAN_LENGTHS - 1)  # Geo(0.2), cut at 10
_SPAN_ENDS = np.cumsum(_SPAN_SHARES / _SPAN_SHARES.sum())


class MaskedTokens(NamedTuple):
    """`token_ids` int32 [B,S] as the model sees them, `labels` int32 [B,S] the original ids, and `weights`
    float32 [B,S], 1 where a token is to be predicted."""

    token_ids: np.ndarray
    labels: np.ndarray
    weights: np.ndarray


class MaskedPositions(NamedTuple):
    """The same by places: `token_ids` int32 [B,S]; `positions` int32 [B,P], -1 where a row has fewer; `labels` int32
    and `weights` float32 [B,P] of these places."""

    token_ids: np.ndarray
    positions: np.ndarray
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
    masking: str = "tokens",
    continuations: np.ndarray | None = None,
) -> MaskedTokens:
    """Chooses a share of each row's tokens: 80 % become the mask, 10 % a random token, 10 % stay.

    Of a row with n ordinary tokens `rate` * n are chosen, rounded up or down at random so that the share is exact on
    average; of "words" and "spans" never more, and whole words only. A span's tokens have one fate.

    Source: Devlin et al. 2018 (arXiv:1810.04805), chosen anew at each call as in Liu et al. 2019 (arXiv:1907.11692);
    whole words: Cui et al. 2019 (arXiv:1906.08101); spans: Joshi et al. 2019 (arXiv:1907.10529), lengths from
    Geo(0.2) up to 10 words.

    Args:
        token_ids: int [B,S].
        special_ids: ids never chosen (padding, classifier, separator, mask, unknown).
        generator: the only source of chance; equal states give equal masks.
        rate: float, the share.
        masking: "tokens", "words" or "spans".
        continuations: bool [vocabulary], tokens that continue a word (`Tokenizer.continuations`); for "words" and
            "spans".
    """
    if not 0.0 < rate <= 1.0:
        raise ValueError(f"rate must be above 0 and at most 1, got {rate}.")
    if masking not in MASKINGS:
        raise ValueError(f"masking={masking!r} is unknown; known: {', '.join(MASKINGS)}.")
    original = np.asarray(token_ids, np.int32)
    ordinary = ~np.isin(original, np.fromiter(special_ids, np.int32))
    budgets = np.floor(rate * ordinary.sum(axis=1) + generator.random(len(original))).astype(np.int64)
    units = _units(original, ordinary, None if masking == "tokens" else continuations)
    if masking == "spans":
        units = np.stack([_spans(*row, generator) for row in zip(units, budgets, strict=True)])
        chosen = units >= 0
    else:
        chosen = _chosen(units, budgets, generator)
        units = np.broadcast_to(np.arange(original.shape[1]), original.shape)  # each token has a fate of its own
    fate = np.take_along_axis(generator.random(original.shape), np.maximum(units, 0), axis=1)
    random_ids = generator.integers(0, vocabulary_size, original.shape, np.int32)
    masked = np.where(chosen & (fate < 0.8), np.int32(mask_id), original)
    masked = np.where(chosen & (fate >= 0.9), random_ids, masked)
    return MaskedTokens(masked, original, chosen.astype(np.float32))


def most_positions(sequence_length: int, rate: float) -> int:
    """The most tokens of a row that `mask_tokens` chooses: P."""
    return min(sequence_length, int(np.ceil(rate * sequence_length + 1e-9)))


def by_positions(masked: MaskedTokens, count: int) -> MaskedPositions:
    """The hidden places of each row in their order, `count` columns; no row may have more."""
    order = np.argsort(masked.weights == 0, axis=1, kind="stable")[:, :count]
    weights = np.take_along_axis(masked.weights, order, axis=1)
    positions = np.where(weights > 0, order, -1).astype(np.int32)
    return MaskedPositions(masked.token_ids, positions, np.take_along_axis(masked.labels, order, axis=1), weights)


def _units(original, ordinary, continuations) -> np.ndarray:
    """The number of the word, within its row, of each token: int [B,S], -1 at tokens that are never chosen."""
    begins = ordinary.copy()
    if continuations is not None:
        known = np.concatenate([continuations, np.zeros(max(0, int(original.max()) + 1 - len(continuations)), bool)])
        follows = np.pad(ordinary[:, :-1], ((0, 0), (1, 0)))  # a word goes on after an ordinary token only
        begins &= ~(known[original] & follows)
    return np.where(ordinary, np.cumsum(begins, axis=1) - 1, -1)


def _chosen(units, budgets, generator) -> np.ndarray:
    """Units in a random order, as many as fit whole into each row's budget: bool [B,S]."""
    rows, length = units.shape
    keys = generator.random((rows, length))  # one of each unit
    keys = np.where(units < 0, 2.0, np.take_along_axis(keys, np.maximum(units, 0), axis=1))
    order = np.argsort(keys, axis=1, kind="stable")  # tokens of one unit stay together
    ranks = np.empty_like(order)
    np.put_along_axis(ranks, order, np.broadcast_to(np.arange(length), units.shape), axis=1)
    last = np.zeros((rows, length), np.int64)  # the last rank of each unit
    np.maximum.at(last, (np.arange(rows)[:, None], np.maximum(units, 0)), np.where(units < 0, 0, ranks))
    return (units >= 0) & (np.take_along_axis(last, np.maximum(units, 0), axis=1) < budgets[:, None])


def _spans(words, budget: int, generator) -> np.ndarray:
    """Spans of words in one row: int [S], the position where each chosen token's span begins, else -1."""
    spans = np.full(len(words), -1)
    starts = np.flatnonzero(np.diff(words, prepend=-1) > 0)  # of each word
    sizes = np.bincount(words[words >= 0], minlength=len(starts))
    left = budget
    for _ in range(4 * budget + 8):  # enough draws for any row; what is full takes no more
        if left < 1 or not len(starts):
            break
        length = int(np.searchsorted(_SPAN_ENDS, generator.random())) + 1
        first = int(generator.integers(len(starts)))
        for word in range(first, min(first + length, len(starts))):
            begin, end = starts[word], starts[word] + sizes[word]
            if spans[begin] >= 0 or sizes[word] > left or (word > first and words[begin - 1] != word - 1):
                break  # a span touches no other, and never goes on behind a special token
            spans[begin:end] = starts[first]
            left -= int(sizes[word])
    return spans
