"""Labels of words on pieces of words, and back; entities.

Shape letters: B texts, S pieces, C labels. The first piece of a word carries its label, as Devlin et al.
(2018, arXiv:1810.04805, 5.3) do; the others weigh nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


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

    Tags are BIO, IOB, IOBES or alike as `seqeval` reads them; labels without such prefixes make an entity of
    each run of equal ones, "O" none.
    """
    from seqeval.metrics.sequence_labeling import get_entities

    found = get_entities(_tags(labels, _has_prefixes(labels)))
    return [(kind, start, end + 1) for kind, start, end in found]


def entity_scores(true: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]]) -> dict:
    """Entity-level precision, recall and F1 (micro) by `seqeval`, the same by type, and word accuracy.

    An entity counts only with its exact words and type.
    """
    from seqeval.metrics import accuracy_score, classification_report

    for index, (wanted, given) in enumerate(zip(true, predicted, strict=True)):
        if len(wanted) != len(given):
            raise ValueError(f"Text {index} has {len(wanted)} labels but {len(given)} predictions.")
    prefixed = all(_has_prefixes(labels) for texts in (true, predicted) for labels in texts)
    pair = [[_tags(labels, prefixed) for labels in texts] for texts in (true, predicted)]
    accuracy = float(accuracy_score([list(labels) for labels in true], [list(labels) for labels in predicted]))
    if not any(entities(tags) for texts in pair for tags in texts):
        return {"precision": 0.0, "recall": 0.0, "f1": 0.0, "accuracy": accuracy, "by_type": {}}
    report = classification_report(*pair, output_dict=True, zero_division=0)
    averages = ("micro avg", "macro avg", "weighted avg")
    rows = {
        kind: {
            "precision": float(row["precision"]),
            "recall": float(row["recall"]),
            "f1": float(row["f1-score"]),
            "support": int(row["support"]),
        }
        for kind, row in report.items()
    }
    overall = rows["micro avg"]
    return {
        **{key: overall[key] for key in ("precision", "recall", "f1")},
        "accuracy": accuracy,
        "by_type": {kind: row for kind, row in rows.items() if kind not in averages},
    }


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
