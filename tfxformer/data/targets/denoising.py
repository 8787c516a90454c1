"""Denoising of encoder-decoders: texts with spans taken out, filled with masks, or with their sentences in disorder.

Shape letters: B rows, T tokens of a row before corruption, W tokens of a row after it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from tfxformer.text import Tokenizer

_SENTENCE_ENDS = tuple(".!?。！？")
_CLOSING = "\"'”’)]»"


class Rows(NamedTuple):
    """Rows of ids of different lengths: `ids` int32 [B,W], 0 behind the end of a row, and `lengths` int64 [B]."""

    ids: np.ndarray
    lengths: np.ndarray


def text_pieces(ids: np.ndarray, length: int) -> Rows:
    """One long text, int [tokens], cut into full rows of T = `length` tokens; the last one may be shorter."""
    ids = np.asarray(ids, np.int32)
    rows = -(-len(ids) // length)
    pieces = np.zeros((rows, length), np.int32)
    pieces.ravel()[: len(ids)] = ids
    return Rows(pieces, np.minimum(length, len(ids) - length * np.arange(rows)))


def piece_rows(rows: Rows, padding_id: int) -> dict[str, np.ndarray]:
    """Rows as arrays that a task or records hold: token_ids and padding_mask, int32 [B,W]."""
    mask = (np.arange(rows.ids.shape[1]) < rows.lengths[:, None]).astype(np.int32)
    return {"token_ids": np.where(mask > 0, rows.ids, np.int32(padding_id)), "padding_mask": mask}


# ---- spans (T5) -------------------------------------------------------------------------------------------------


def noise_counts(lengths, rate: float, mean_span: float) -> tuple[np.ndarray, np.ndarray]:
    """How many tokens of texts of these lengths are noise, and in how many spans: int64, as `lengths`.

    Both are rounded half to even, and are at least 1; text is left between all spans. Of a single token none is noise.

    Raises:
        ValueError: for a rate that is not above 0 and below 1, and a mean below 1.
    """
    if not 0.0 < rate < 1.0:
        raise ValueError(f"A share of {rate} of noise: wanted one above 0 and below 1.")
    if not mean_span >= 1.0:
        raise ValueError(f"Spans of {mean_span} tokens on average: wanted 1 or more.")
    lengths = np.asarray(lengths, np.int64)
    tokens = np.clip(np.round(lengths * rate).astype(np.int64), 1, np.maximum(lengths - 1, 1))
    spans = np.clip(np.round(tokens / mean_span).astype(np.int64), 1, np.maximum(lengths - tokens, 1))
    noisy = lengths > 1
    return np.where(noisy, tokens, 0), np.where(noisy, spans, 0)


def corrupted_lengths(length: int, rate: float, mean_span: float) -> tuple[int, int]:
    """The tokens of source and target that `span_corruption` makes of a text of `length` tokens."""
    tokens, spans = map(int, noise_counts(length, rate, mean_span))
    return length - tokens + spans, tokens + max(spans, min(length, 1))


def uncorrupted_length(source_length: int, rate: float, mean_span: float) -> int:
    """The most tokens of a text whose source has at most `source_length`: of 511 (512 with an end) 568 with 15 % and 3.

    With a rate of one half the target is no longer than the source. Source: T5's `random_spans_helper`
    (github.com/google-research/text-to-text-transfer-transformer).

    Raises:
        ValueError: for a source too short for a token and a sentinel.
    """
    if source_length < 2:
        raise ValueError(f"A source of {source_length} tokens has no room for a token and a sentinel: at least 2.")
    length = source_length
    while corrupted_lengths(length + 1, rate, mean_span)[0] <= source_length:
        length += 1
    source, target = corrupted_lengths(length, rate, mean_span)
    return length - 1 if rate == 0.5 and target > source else length


def span_noise(
    lengths: np.ndarray, width: int, *, rate: float, mean_span: float, generator: np.random.Generator
) -> np.ndarray:
    """Which tokens of rows of these lengths are noise: bool [B,T], T being `width`.

    `noise_counts` tells how many; noise and text are cut into as many segments each, every way of cutting being as
    probable as any other, and alternate, text first. Source: T5's `random_spans_noise_mask` (Raffel et al., 2019,
    arXiv:1910.10683).
    """
    lengths = np.asarray(lengths, np.int64)
    tokens, spans = noise_counts(lengths, rate, mean_span)
    # Text of segment i sorts before the noise of segment i: even keys before odd ones, what is no token last.
    keys = [
        np.where(real, 2 * (np.cumsum(starts, axis=1) - 1) + odd, 2 * width + 2)
        for odd, counts in enumerate((lengths - tokens, tokens))
        for starts, real in [_segments(counts, spans, generator)]
    ]
    return np.pad(np.sort(np.concatenate(keys, axis=1), axis=1) % 2 == 1, ((0, 0), (0, width)))[:, :width]


def span_corruption(
    token_ids: np.ndarray,
    lengths: np.ndarray,
    sentinels: Sequence[int],
    *,
    rate: float = 0.15,
    mean_span: float = 3.0,
    generator: np.random.Generator,
) -> tuple[Rows, Rows]:
    """Sources in which a sentinel stands for each span of noise, and targets with each sentinel before its span.

    Args:
        token_ids, lengths: rows of ids [B,T] and the tokens of each, without the special tokens around a text.
        sentinels: ids, one for each span of a row; no text should have them.
        rate, mean_span: the share of tokens that is taken out, and the mean length of spans; see `noise_counts`.
        generator: the only source of chance; equal states give equal spans.

    Returns:
        (sources, targets), without end tokens.

    Raises:
        ValueError: for a row of more spans than there are sentinels.
    """
    token_ids, lengths = np.asarray(token_ids, np.int32), np.asarray(lengths, np.int64)
    width = token_ids.shape[1]
    noise = span_noise(lengths, width, rate=rate, mean_span=mean_span, generator=generator)
    real = np.arange(width) < lengths[:, None]
    widths = corrupted_lengths(width, rate, mean_span)
    sources, targets = (
        _with_sentinels(token_ids, real, spans, sentinels, size)
        for spans, size in zip((noise, ~noise & real), widths, strict=True)
    )
    return sources, targets


def sentinel_ids(tokenizer: Tokenizer) -> tuple[int, ...]:
    """The ids of T5's sentinels in their order, "<extra_id_0>" first; empty where the vocabulary has none."""
    ids = {token: index for index, token in enumerate(tokenizer.vocabulary())}
    found = []
    while (index := ids.get(f"<extra_id_{len(found)}>")) is not None:
        found.append(index)
    return tuple(found)


def _segments(counts: np.ndarray, segments: np.ndarray, generator) -> tuple[np.ndarray, np.ndarray]:
    """(where segments begin, where there are items), bool [B, most items]: random cuts, no segment being empty."""
    positions = np.arange(int(counts.max(initial=0)))
    real = positions < counts[:, None]
    keys = np.where(real, generator.random(real.shape), 2.0)
    keys[:, :1] = -1.0  # the first item begins a segment in any case
    return (_ranks(keys) < segments[:, None]) & real, real


def _with_sentinels(token_ids, real, spans, sentinels: Sequence[int], width: int) -> Rows:
    """Rows with a sentinel in place of each span, bool [B,T]."""
    first = spans & ~np.pad(spans[:, :-1], ((0, 0), (1, 0)))
    numbers = np.cumsum(first, axis=1) - 1
    most = int(numbers.max(initial=-1)) + 1
    if most > len(sentinels):
        raise ValueError(
            f"A row has {most} spans of noise, and the vocabulary {len(sentinels)} sentinels (<extra_id_0>, ...) to "
            "tell them apart: take shorter rows, longer spans, or a tokenizer with more of them."
        )
    values = token_ids
    if most:
        values = np.where(first, np.asarray(sentinels, np.int32)[np.maximum(numbers, 0)], token_ids)
    return _compacted(values, real & ~(spans & ~first), width)


def _compacted(values: np.ndarray, kept: np.ndarray, width: int) -> Rows:
    """The kept values of each row [B,T], moved to its front."""
    ids = np.zeros((len(values), width), np.int32)
    places = np.cumsum(kept, axis=1) - 1
    ids[np.nonzero(kept)[0], places[kept]] = values[kept]
    return Rows(ids, kept.sum(axis=1))


def _ranks(keys: np.ndarray) -> np.ndarray:
    """The place of each key in its sorted row."""
    return np.argsort(np.argsort(keys, axis=1, kind="stable"), axis=1, kind="stable")


# ---- infilling and disorder (BART) ------------------------------------------------------------------------------


def hidden_counts(lengths, rate: float, mean_span: float) -> np.ndarray:
    """How many tokens of texts of these lengths `text_infilling` hides: their share, rounded up.

    Raises:
        ValueError: for a rate that is not above 0 and at most 1, and a mean that is not above 0.
    """
    if not 0.0 < rate <= 1.0:
        raise ValueError(f"A share of {rate} of hidden tokens: wanted one above 0 and at most 1.")
    if not mean_span > 0.0:
        raise ValueError(f"Spans of {mean_span} tokens on average: wanted more than 0.")
    return np.ceil(rate * np.asarray(lengths, np.int64) - 1e-9).astype(np.int64)  # 0.1 * 30 is 3.0000000000000004


def text_infilling(
    token_ids: np.ndarray,
    lengths: np.ndarray,
    mask_id: int,
    *,
    rate: float = 0.3,
    mean_span: float = 3.0,
    generator: np.random.Generator,
) -> Rows:
    """Texts in which one mask stands for each span; a span of no token is a mask between two tokens.

    Lengths are drawn from Poisson(`mean_span`) until they sum to the share `rate` of a row, rounded up, the last one
    cut to it; spans and what is kept are put together in a random order. Masks between tokens that would make a row
    longer than T are left out, of very short rows. Source: Lewis et al., 2019 (arXiv:1910.13461), with spans of tokens.

    Args:
        token_ids, lengths, generator: see `span_corruption`.
        mask_id: the mask's id.
        rate, mean_span: the share of tokens that is hidden, and the mean length of spans, 0 among them.

    Returns:
        The sources, [B,T]; their targets are the texts.
    """
    token_ids, lengths = np.asarray(token_ids, np.int32), np.asarray(lengths, np.int64)
    width = token_ids.shape[1]
    budgets = hidden_counts(lengths, rate, mean_span)
    spans = _poisson_spans(budgets, mean_span, generator)
    excess = lengths - budgets + (spans >= 0).sum(axis=1) - width
    empty = spans == 0
    spans[empty & (np.cumsum(empty, axis=1) <= excess[:, None])] = -1
    counts = (spans >= 0).sum(axis=1)
    keys = np.where(spans < 0, 2.0, generator.random(spans.shape))  # else the cut span would be the last
    spans = np.take_along_axis(spans, np.argsort(keys, axis=1, kind="stable"), axis=1)
    items = lengths - budgets + counts  # kept tokens and masks
    real = np.arange(width) < items[:, None]
    masks = real & (_ranks(np.where(real, generator.random(real.shape), 2.0)) < counts[:, None])
    numbers = np.clip(np.cumsum(masks, axis=1) - 1, 0, spans.shape[1] - 1)
    sizes = np.where(masks, np.take_along_axis(spans, numbers, axis=1), 1)
    begins = np.minimum(np.cumsum(sizes, axis=1) - sizes, width - 1)
    ids = np.where(masks, np.int32(mask_id), np.take_along_axis(token_ids, begins, axis=1))
    return Rows(np.where(real, ids, 0).astype(np.int32), items)


def sentence_permutation(
    token_ids: np.ndarray, lengths: np.ndarray, ends: np.ndarray, *, generator: np.random.Generator
) -> np.ndarray:
    """The sentences of each row in a random order: int32 [B,T]. Source: Lewis et al., 2019 (arXiv:1910.13461).

    Args:
        token_ids, lengths, generator: see `span_corruption`.
        ends: bool [vocabulary], tokens that end a sentence (`sentence_ends`); several in a row end it once.
    """
    token_ids = np.asarray(token_ids, np.int32)
    real = np.arange(token_ids.shape[1]) < np.asarray(lengths)[:, None]
    ending = ends[token_ids] & real
    begins = np.pad(ending[:, :-1] & ~ending[:, 1:], ((0, 0), (1, 0)))
    keys = np.take_along_axis(generator.random(token_ids.shape), np.cumsum(begins, axis=1), axis=1)
    order = np.argsort(np.where(real, keys, 2.0), axis=1, kind="stable")
    return np.take_along_axis(token_ids, order, axis=1)


def sentence_ends(tokenizer: Tokenizer) -> np.ndarray:
    """Which tokens end a sentence: bool [vocabulary]."""
    texts = tokenizer.decode(np.arange(tokenizer.vocabulary_size)[:, None])
    return np.array([text.rstrip().rstrip(_CLOSING).endswith(_SENTENCE_ENDS) for text in texts])


def _poisson_spans(budgets: np.ndarray, mean: float, generator) -> np.ndarray:
    """Lengths of spans that sum to each row's budget: int64 [B, most spans], -1 where a row has fewer."""
    spans = np.zeros((len(budgets), 0), np.int64)
    while not spans.shape[1] or (spans.sum(axis=1) < budgets).any():
        more = int(np.ceil(int(budgets.max(initial=0)) / mean)) + 8
        spans = np.concatenate([spans, generator.poisson(mean, (len(budgets), more))], axis=1)
    ends = np.cumsum(spans, axis=1)
    before = ends - spans
    return np.where(before < budgets[:, None], np.minimum(spans, budgets[:, None] - before), -1)
