"""Documents as blocks of a static length: what a causal language model trains on and is measured by.

Training and scoring need pairs of tokens, one and the next. So pairs are packed, not tokens: a document of n tokens is
n - 1 of them wherever blocks end, no token is lost, and no pair stands across the border of two documents.
Shape letters: R blocks (rows), S pairs of a block.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np


class Documents(NamedTuple):
    """Documents one after another.

    Attributes:
        ids: int32 [tokens of all documents].
        lengths: int64 [documents].
        wanted: bool [tokens], False at tokens that are read but not to be predicted; None where all are to be.
    """

    ids: np.ndarray
    lengths: np.ndarray
    wanted: np.ndarray | None = None


class Blocks(NamedTuple):
    """A batch for a `models.Decoder` and what it is to predict.

    Attributes:
        token_ids: int32 [R, S].
        padding_mask: int32 [R, S], 0 at padding, else the number of the document in its block: 1, 2, 3, ...
        targets: int32 [R, S], the token after each.
        weights: float32 [R, S], 1 where the target counts, 0 where it does not and at padding.
    """

    token_ids: np.ndarray
    padding_mask: np.ndarray
    targets: np.ndarray
    weights: np.ndarray


def join(rows: Iterable[Sequence[int]], wanted: Iterable[Sequence[bool]] | None = None) -> Documents:
    """Documents from lists of ids, and of what is to be predicted of each."""
    rows = list(rows)
    lengths = np.fromiter(map(len, rows), np.int64, count=len(rows))
    if all(isinstance(row, list) for row in rows):  # many short lists: an array of each would cost more than its ids
        ids = np.fromiter(chain.from_iterable(rows), np.int32, count=int(lengths.sum()))
    else:
        ids = np.concatenate([np.zeros(0, np.int32), *(np.asarray(row, np.int32) for row in rows)])
    if wanted is None:
        return Documents(ids, lengths)
    return Documents(ids, lengths, np.concatenate([np.zeros(0, bool), *(np.asarray(row, bool) for row in wanted)]))


def pack(documents: Documents, sequence_length: int, padding_id: int = 0, *, whole: bool = False) -> Blocks:
    """The pairs of documents, in their order, as blocks.

    Args:
        documents: a document of fewer than two tokens has no pair.
        sequence_length: S.
        padding_id: the id at padding, where both weight and mask are 0.
        whole: a document that does not fit into the rest of a block begins the next one. Else it goes on there, as a
            document of its own: all blocks but the last are full.

    Raises:
        ValueError: for a document of more than S pairs with `whole`, or where there is no pair at all.
    """
    counts = np.maximum(documents.lengths - 1, 0)  # pairs of each document
    counts = counts[documents.lengths > 0]
    ends = np.cumsum(documents.lengths[documents.lengths > 0])
    if not counts.sum():
        raise ValueError("There is nothing to predict: no document has two tokens.")
    reads, follows = np.ones(len(documents.ids), bool), np.ones(len(documents.ids), bool)
    reads[ends - 1] = False  # the last token of a document is only predicted,
    follows[np.concatenate([[0], ends[:-1]])] = False  # the first one only read
    document = np.repeat(np.arange(len(counts)), counts)  # [pairs]
    slots = np.arange(len(document))
    if whole:
        slots = slots + _gaps(counts, sequence_length)[document]
    rows = slots // sequence_length
    first = np.searchsorted(rows, np.arange(rows[-1] + 1))[rows]  # of each pair: the first pair of its row
    begins = np.diff(document, prepend=document[0]) > 0
    numbers = np.cumsum(begins)  # documents that have pairs, without a gap
    values = {
        "token_ids": (documents.ids[reads], padding_id, np.int32),
        "padding_mask": (numbers - numbers[first] + 1, 0, np.int32),
        "targets": (documents.ids[follows], padding_id, np.int32),
        "weights": (1.0 if documents.wanted is None else documents.wanted[follows], 0.0, np.float32),
    }
    blocks = {}
    for name, (value, padding, dtype) in values.items():
        blocks[name] = np.full((rows[-1] + 1, sequence_length), padding, dtype)
        blocks[name].ravel()[slots] = value
    return Blocks(**blocks)


def _gaps(counts: np.ndarray, sequence_length: int) -> np.ndarray:
    """The padding in front of each document, summed up, where none is cut: int64 [documents]."""
    longest = int(counts.max())
    if longest > sequence_length:
        raise ValueError(
            f"Document {int(counts.argmax())} has {longest + 1} tokens; a block of {sequence_length} holds whole "
            f"documents of at most {sequence_length + 1}."
        )
    ends = np.cumsum(counts)
    gaps, begin, gap = np.zeros(len(counts), np.int64), 0, 0
    while begin < len(counts):  # once a block
        before = ends[begin - 1] if begin else 0
        end = int(np.searchsorted(ends, before + sequence_length, side="right"))
        gaps[begin:end] = gap
        if end < len(counts):
            gap += sequence_length - (ends[end - 1] - before)
        begin = end
    return gaps


def strided(documents: Documents, sequence_length: int, stride: int) -> tuple[Documents, np.ndarray]:
    """Long documents as overlapping windows, in which each token counts once and sees what is before it.

    A window has at most S pairs and begins `stride` tokens after the one before; what that one has predicted does not
    count again. So every token that counts but those of the first window sees at least S - `stride` tokens.

    Returns:
        (windows, the document of each: int64 [windows]).

    Raises:
        ValueError: for a stride outside 1 to S.
    """
    if not 1 <= stride <= sequence_length:
        raise ValueError(f"stride={stride} must be 1 to {sequence_length}, the tokens of a window.")
    wanted = np.ones(len(documents.ids), bool) if documents.wanted is None else documents.wanted
    firsts = np.cumsum(documents.lengths) - documents.lengths
    # A window for the first S pairs, and one more for every further `stride` of them.
    further = np.maximum(documents.lengths - 1 - sequence_length, 0)
    windows = 1 + -(-further // stride)
    document = np.repeat(np.arange(len(windows)), windows)
    index = np.arange(len(document)) - np.repeat(np.cumsum(windows) - windows, windows)  # within its document
    begins = index * stride
    lengths = np.minimum(sequence_length + 1, documents.lengths[document] - begins)
    within = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    sources = np.repeat(firsts[document] + begins, lengths) + within
    # The window before had predicted its tokens 1 to S: those that begin here at S - stride + 1 are new.
    new = within > np.repeat(np.where(index > 0, sequence_length - stride, 0), lengths)
    return Documents(documents.ids[sources], lengths, wanted[sources] & new), document


def random_windows(ids, count: int, sequence_length: int, seed: int = 0) -> Blocks:
    """Windows of one long text that begin anywhere: a sample of `count` blocks without padding.

    Raises:
        ValueError: where the text is too short for one window.
    """
    ids = np.asarray(ids, np.int32).reshape(-1)
    if len(ids) <= sequence_length:
        raise ValueError(f"A text of {len(ids)} tokens has no window of {sequence_length} and the token after it.")
    begins = np.random.default_rng(seed).integers(0, len(ids) - sequence_length, count)
    windows = ids[begins[:, None] + np.arange(sequence_length + 1)]  # [R, S + 1]
    ones = np.ones((count, sequence_length))
    return Blocks(windows[:, :-1], ones.astype(np.int32), windows[:, 1:], ones.astype(np.float32))
