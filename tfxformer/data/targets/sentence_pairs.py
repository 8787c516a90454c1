"""Pairs of segments for sentence-level objectives: next sentence, and sentence order.

Shape letters: R pairs (rows), S sequence length.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

OBJECTIVES = ("next", "order")
_SHORT_SHARE = 0.1  # of pairs that are made short on purpose, so that not all are full

Segment = list[int]


class SentencePairs(NamedTuple):
    """Rows [classifier, segment A, separator, segment B, separator].

    Attributes:
        token_ids, padding_mask, segment_ids: int32 [R, S]; segment_ids are 1 on B and its separator.
        labels: int32 [R]; of "next" 0 where B follows A and 1 where it is from elsewhere, of "order" 0 where they
            stand in their order and 1 where they are swapped (as the reference's heads have them).
    """

    token_ids: np.ndarray
    padding_mask: np.ndarray
    segment_ids: np.ndarray
    labels: np.ndarray


def sentence_pairs(
    documents: Sequence[Sequence[Segment]],
    sequence_length: int,
    objective: str,
    *,
    cls_id: int,
    sep_id: int,
    padding_id: int,
    generator: np.random.Generator,
) -> SentencePairs:
    """Cuts documents into pairs of neighbouring segments, half of which are falsified.

    A document's sentences are gathered until they fill a row (one in ten a shorter one), and split between two of
    them at random. With "next", B is replaced in half of the rows by a segment of another document, and its sentences
    begin the next row (Devlin et al., 2018, arXiv:1810.04805); with "order", A and B are swapped in half of the rows
    (Lan et al., 2019, arXiv:1909.11942). A sentence left alone makes a pair of "next" only. What is still too long
    loses tokens of its longer segment, at the front or the back.

    Args:
        documents: lists of sentences, each a list of ids without special tokens; empty ones are passed over.
        sequence_length: S, at least 8.
        objective: "next" or "order".
        generator: the only source of chance.

    Raises:
        ValueError: for a document alone with "next", for no pair at all, for an objective or a length that is wrong.
    """
    if objective not in OBJECTIVES:
        raise ValueError(f"objective={objective!r} is unknown; known: {', '.join(OBJECTIVES)}.")
    if sequence_length < 8:
        raise ValueError(f"sequence_length={sequence_length}: a pair and its three special tokens need at least 8.")
    documents = [[list(sentence) for sentence in document if len(sentence)] for document in documents]
    documents = [document for document in documents if document]
    if objective == "next" and len(documents) < 2:
        raise ValueError(
            f'The objective "next" takes its false sentences from other documents, and there are {len(documents)}: '
            'give several documents (each a list of sentences), or use "order".'
        )
    room = sequence_length - 3
    rows = []
    for index in generator.permutation(len(documents)):
        pairs = (_next_pairs if objective == "next" else _order_pairs)(documents, int(index), room, generator)
        rows += [(*_cut(first, second, room, generator), label) for first, second, label in pairs]
    if not rows:
        raise ValueError("No document has two sentences: there is no order to learn. Split texts into sentences.")
    return _rows(rows, sequence_length, cls_id, sep_id, padding_id)


def _gathered(document, begin: int, room: int, generator, least: int = 1) -> tuple[list[Segment], int]:
    """Sentences from `begin` on that fill a row, `least` of them at least, and how many tokens the row is to have."""
    target = int(generator.integers(2, room + 1)) if generator.random() < _SHORT_SHARE else room
    chunk, size = [], 0
    for sentence in document[begin:]:
        chunk.append(sentence)
        size += len(sentence)
        if size >= target and len(chunk) >= least:
            break
    return chunk, target


def _next_pairs(documents, index: int, room: int, generator):
    document, begin = documents[index], 0
    while begin < len(document):
        chunk, target = _gathered(document, begin, room, generator)
        border = int(generator.integers(1, len(chunk))) if len(chunk) > 1 else 1
        first = _joined(chunk[:border])
        if len(chunk) == 1 or generator.random() < 0.5:
            yield first, _elsewhere(documents, index, max(1, target - len(first)), generator), 1
            begin += border  # the sentences that were replaced begin the next row
        else:
            yield first, _joined(chunk[border:]), 0
            begin += len(chunk)


def _elsewhere(documents, index: int, room: int, generator) -> Segment:
    """A segment of another document, from one of its sentences on."""
    other = int(generator.integers(len(documents) - 1))
    document = documents[other + (other >= index)]
    sentences, size = [], 0
    for sentence in document[int(generator.integers(len(document))) :]:
        sentences.append(sentence)
        size += len(sentence)
        if size >= room:
            break
    return _joined(sentences)


def _order_pairs(documents, index: int, room: int, generator):
    document, begin = documents[index], 0
    while begin < len(document):
        chunk, _ = _gathered(document, begin, room, generator, least=2)
        begin += len(chunk)
        if len(chunk) > 1:
            border = int(generator.integers(1, len(chunk)))
            pair = (_joined(chunk[:border]), _joined(chunk[border:]))
            swapped = generator.random() < 0.5
            yield *(reversed(pair) if swapped else pair), int(swapped)


def _joined(sentences) -> Segment:
    return [token for sentence in sentences for token in sentence]


def _cut(first: Segment, second: Segment, room: int, generator) -> tuple[Segment, Segment]:
    """Both within `room`: the longer one loses tokens, each at the front or the back."""
    kept_first, kept_second = len(first), len(second)
    while kept_first + kept_second > room:
        if kept_first > kept_second:
            kept_first -= 1
        else:
            kept_second -= 1
    return _part(first, kept_first, generator), _part(second, kept_second, generator)


def _part(segment: Segment, count: int, generator) -> Segment:
    begin = int(generator.binomial(len(segment) - count, 0.5)) if count < len(segment) else 0
    return segment[begin : begin + count]


def _rows(rows, sequence_length: int, cls_id: int, sep_id: int, padding_id: int) -> SentencePairs:
    shape = (len(rows), sequence_length)
    token_ids = np.full(shape, padding_id, np.int32)
    padding_mask, segment_ids = np.zeros(shape, np.int32), np.zeros(shape, np.int32)
    for row, (first, second, _) in enumerate(rows):
        ids = [cls_id, *first, sep_id, *second, sep_id]
        token_ids[row, : len(ids)] = ids
        padding_mask[row, : len(ids)] = 1
        segment_ids[row, len(first) + 2 : len(ids)] = 1
    labels = np.array([label for _, _, label in rows], np.int32)
    return SentencePairs(token_ids, padding_mask, segment_ids, labels)
