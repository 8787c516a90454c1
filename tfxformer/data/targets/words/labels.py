"""Labels of words on pieces of words, and back; entities.

Shape letters: B texts, S pieces, C labels. The first piece of a word carries its label, as Devlin et al.
(2018, arXiv:1810.04805, 5.3) do; the others weigh nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

_FIRST, _LAST = "BSUO", "ESLU"  # tags that begin an entity or are none, and those with which one ends


class PieceTargets(NamedTuple):
    """Targets of a token classifier.

    Attributes:
        labels: int32 [B,S], 0 where nothing is labelled.
        weights: float32 [B,S], 1 on first pieces and 0 elsewhere: Keras' sample weights.
        lost_words: int64 [B], words that have no piece: cut off, or made of nothing the tokenizer keeps.
    """

    labels: np.ndarray
    weights: np.ndarray
    lost_words: np.ndarray


def first_pieces(word_ids: np.ndarray) -> np.ndarray:
    """Where words begin: bool [B,S] of word ids [B,S] (-1 on special tokens and padding)."""
    before = np.pad(word_ids[:, :-1], ((0, 0), (1, 0)), constant_values=-1)
    return (word_ids >= 0) & (word_ids != before)


def piece_targets(word_ids: np.ndarray, word_labels: Sequence[Sequence[int]]) -> PieceTargets:
    """Puts each word's label id on its first piece.

    Args:
        word_ids: int [B,S], from `Tokenizer.encode(..., return_offsets=True)`.
        word_labels: B lists with a label id for each word.
    """
    if len(word_ids) != len(word_labels):
        raise ValueError(f"{len(word_ids)} encoded texts but labels of {len(word_labels)}.")
    counts = np.array([len(labels) for labels in word_labels], np.int64)
    most = word_ids.max(axis=1, initial=-1) + 1
    if (most > counts).any():
        index = int(np.argmax(most > counts))
        raise ValueError(f"labels[{index}] has {counts[index]} labels for at least {most[index]} words.")
    first = first_pieces(word_ids)
    table = np.zeros((len(counts), max(counts.max(initial=0), 1)), np.int32)  # [B, words]
    for row, labels in zip(table, word_labels, strict=True):
        row[: len(labels)] = labels
    labels = np.where(first, np.take_along_axis(table, np.maximum(word_ids, 0), axis=1), 0).astype(np.int32)
    return PieceTargets(labels, first.astype(np.float32), counts - first.sum(axis=1))


def entities(labels: Sequence[str]) -> list[tuple[str, int, int]]:
    """Entities of one text as (type, first word, word after the last).

    Tags are BIO, IOB, IOBES or BILOU, read as `seqeval` reads the first three; labels without such prefixes make an
    entity of each run of equal ones, "O" none.
    """
    return _entities(_tags(labels, _has_prefixes(labels)))


def _entities(tags: Sequence[str]) -> list[tuple[str, int, int]]:
    found, start, before = [], 0, "O"
    for index, tag in enumerate([*tags, "O"]):
        goes_on = before != "O" and before[0] not in _LAST and tag[0] not in _FIRST and tag[2:] == before[2:]
        if before != "O" and not goes_on:
            found.append((before[2:] or "_", start, index))
        if not goes_on:
            start = index
        before = tag
    return found


def entity_scores(true: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]]) -> dict:
    """Entity-level precision, recall and F1 (micro), equal to `seqeval`'s, the same by type, and word accuracy.

    An entity counts only with its exact words and type.
    """
    for index, (wanted, given) in enumerate(zip(true, predicted, strict=True)):
        if len(wanted) != len(given):
            raise ValueError(f"Text {index} has {len(wanted)} labels but {len(given)} predictions.")
    prefixed = all(_has_prefixes(labels) for texts in (true, predicted) for labels in texts)
    sides = [
        {(text, *entity) for text, labels in enumerate(texts) for entity in _entities(_tags(labels, prefixed))}
        for texts in (true, predicted)
    ]
    common = Counter(kind for _, kind, *_ in sides[0] & sides[1])
    wanted, given = (Counter(kind for _, kind, *_ in side) for side in sides)
    words = [pair for text in zip(true, predicted, strict=True) for pair in zip(*text, strict=True)]
    return {
        **_ratios(common.total(), wanted.total(), given.total()),
        "accuracy": sum(label == guess for label, guess in words) / len(words) if words else 0.0,
        "by_type": {
            kind: {**_ratios(common[kind], wanted[kind], given[kind]), "support": wanted[kind]}
            for kind in sorted(wanted | given)
        },
    }


def _ratios(common: int, wanted: int, given: int) -> dict[str, float]:
    """Precision, recall and F1; 0 where there is nothing to divide by."""
    precision, recall = common / given if given else 0.0, common / wanted if wanted else 0.0
    both = precision + recall
    return {"precision": precision, "recall": recall, "f1": 2 * precision * recall / both if both else 0.0}


def _has_prefixes(labels: Sequence[str]) -> bool:
    return all(label == "O" or label[:2] in ("B-", "I-", "E-", "S-", "L-", "U-") for label in labels)


def _tags(labels: Sequence[str], prefixed: bool) -> list[str]:
    """BIO tags: the labels themselves, or for plain ones a B- where a run of equal labels begins."""
    if prefixed:
        return list(labels)
    before = ["O", *labels[:-1]]
    return [
        label if label == "O" else f"{'I' if label == last else 'B'}-{label}"
        for label, last in zip(labels, before, strict=True)
    ]
