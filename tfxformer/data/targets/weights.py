"""Weights of examples, words and classes, as arrays beside the labels.

Shape letters: B rows, S tokens, C labels.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence

import numpy as np

from tfxformer.data.batches import is_dataset
from tfxformer.data.targets.words.labels import first_pieces


def class_weight_table(class_weight: Mapping, labels: Sequence[str]) -> np.ndarray:
    """The weight of each label, 1 where none is given: float32 [C].

    Args:
        class_weight: label name or id -> weight.
        labels: the names in the order of the columns.

    Raises:
        TypeError, ValueError: for a name or an id that is not there, one label given twice, or a weight that is no
            finite number of at least 0.
    """
    if not isinstance(class_weight, Mapping):
        raise TypeError(f"class_weight is a dict from label (name or id) to weight, not {class_weight!r}.")
    table, given = np.ones(len(labels), "float32"), set()
    for label, weight in class_weight.items():
        column = _column(label, list(labels))
        if column in given:
            raise ValueError(f"class_weight has {labels[column]!r} twice, by its name and by its id {column}.")
        given.add(column)
        number = np.asarray(weight)
        if number.shape != () or number.dtype.kind not in "iuf" or not (np.isfinite(number) and number >= 0):
            raise ValueError(f"class_weight[{label!r}] is {weight!r}: wanted a finite number of at least 0.")
        table[column] = number
    return table


def _column(label, labels: list[str]) -> int:
    if isinstance(label, str):
        if label in labels:
            return labels.index(label)
        near = difflib.get_close_matches(label, labels, n=1)
        said = f"did you mean {near[0]!r}? " if near else ""
        raise ValueError(f"class_weight has {label!r}, which is no label; {said}The labels are {', '.join(labels)}.")
    number = np.asarray(label)
    if number.shape != () or number.dtype.kind not in "iu":
        raise TypeError(f"class_weight has the key {label!r}: wanted a label's name or id.")
    if not 0 <= int(number) < len(labels):
        raise ValueError(f"class_weight has the id {int(number)}; the {len(labels)} labels are {', '.join(labels)}.")
    return int(number)


def class_weights(table: np.ndarray, rank: int, labels, sample_weight=None) -> np.ndarray:
    """The weight of each row or token by its label, times its own: float32 [B] or [B, S].

    Args:
        table: float32 [C], see `class_weight_table`.
        rank: of ids; 1 for rows with one label, 2 for tokens with one each.
        labels: ids int [B] or [B, S] (or with a last axis of 1), or rows of one 1 and zeros, [..., C].
        sample_weight: None, float [B] or [B, S].

    Raises:
        ValueError: for rows of probabilities of several labels.
    """
    labels = np.asarray(labels)
    if labels.ndim > rank and labels.shape[-1] == 1:
        labels = labels[..., 0]
    if labels.ndim > rank:
        if not np.isin(labels, (0, 1)).all() or (labels.sum(axis=-1) > 1).any():
            raise ValueError(
                "class_weight weighs a row by its one label, and these are probabilities of several: give each row its "
                "weight by sample_weight."
            )
        labels = labels.argmax(axis=-1)
    known = (labels >= 0) & (labels < len(table))  # the rest are tokens without a label: their weight stays
    weights = np.where(known, table[np.where(known, labels, 0).astype("int64")], 1.0).astype("float32")
    if sample_weight is None:
        return weights
    given = np.asarray(sample_weight, "float32").reshape(np.shape(sample_weight)[:rank])
    return weights * given.reshape(*given.shape, *[1] * (weights.ndim - given.ndim))


def example_weights(sample_weight, count: int) -> np.ndarray:
    """A weight for each of `count` examples: float32 [B].

    Raises:
        ValueError: for another number of them, or what is no finite number.
    """
    try:
        weights = np.asarray(sample_weight, "float32")
    except (TypeError, ValueError) as error:
        raise ValueError(f"sample_weight must be {count} numbers, one for each example: {error}") from error
    if weights.shape not in ((count,), (count, 1)):
        raise ValueError(f"sample_weight has the shape {weights.shape} for {count} examples: give each one number.")
    _check_finite(weights)
    return weights.reshape(count)


def word_weights(sample_weight, texts: Sequence[Sequence[str]]) -> list[np.ndarray]:
    """A weight for each word of each text, float32 [words] of each.

    Args:
        sample_weight: a number for each text, or for each text a list with a number for each word.
        texts: lists of words.

    Raises:
        ValueError: for another number of weights, or what is no finite number.
    """
    rows = list(sample_weight)
    if len(rows) != len(texts):
        raise ValueError(f"sample_weight has {len(rows)} rows for {len(texts)} texts.")
    weights = []
    for index, (row, words) in enumerate(zip(rows, texts, strict=True)):
        try:
            row = np.asarray(row, "float32")
        except (TypeError, ValueError) as error:
            raise ValueError(f"sample_weight[{index}] is {row!r:.80}: wanted numbers ({error}).") from error
        if row.ndim > 1 or (row.ndim == 1 and len(row) != len(words)):
            raise ValueError(
                f"sample_weight[{index}] has the shape {row.shape} for {len(words)} words: give the text one number, "
                "or each of its words one."
            )
        _check_finite(row)
        weights.append(np.broadcast_to(row, len(words)))
    return weights


def on_first_pieces(word_ids: np.ndarray, values: Sequence[np.ndarray]) -> np.ndarray:
    """Values of words on their first pieces, 0 elsewhere: [B, S, ...].

    Args:
        word_ids: int [B, S], -1 on special tokens and padding.
        values: for each text, an array [words, ...].
    """
    first = first_pieces(word_ids)
    values = [np.asarray(row) for row in values]
    tail = next((row.shape[1:] for row in values if len(row)), ())
    placed = np.zeros((*word_ids.shape, *tail), values[0].dtype if values else "float32")
    for row, ids, begins, given in zip(placed, word_ids, first, values, strict=True):
        row[begins] = given[ids[begins]]
    return placed


def token_weights(labels: np.ndarray, padding_mask: np.ndarray | None, sample_weight=None) -> np.ndarray | None:
    """The weights of ready labels of tokens: float32 [B, S], or None where every token counts alike.

    Without weights of their own, padded tokens weigh nothing; a weight of a row is that of its tokens.

    Args:
        labels: int [B, S], or rows [B, S, C].
        padding_mask: int [B, S] of the same tokens, or None where the labels are of others.
        sample_weight: None, [B] or [B, S].
    """
    shape = labels.shape[:2]
    real = None if padding_mask is None or padding_mask.shape != shape else (padding_mask != 0).astype("float32")
    if sample_weight is None:
        return None if real is None or real.all() else real
    weights = np.asarray(sample_weight, "float32")
    if weights.shape in (shape[:1], (shape[0], 1)) and weights.shape != shape:
        weights = weights.reshape(-1, 1) * (np.ones(shape, "float32") if real is None else real)
    if weights.shape != shape:
        raise ValueError(
            f"sample_weight has the shape {weights.shape} for labels {labels.shape}: wanted {shape[:1]}, a weight a "
            f"row, or {shape}, a weight a token."
        )
    _check_finite(weights)
    return weights


def weigh_tokens(x, y, sample_weight, mask_name: str = "padding_mask") -> tuple:
    """(x, y, sample_weight) of ready arrays, or of a dataset of batches, with labels of tokens: see `token_weights`.

    `mask_name` is the input that says which tokens are real.

    Other datasets, and labels of several outputs, stay as they are.
    """
    if is_dataset(x):
        if _has_unweighed_tokens(x.element_spec, mask_name):
            x = x.map(lambda inputs, labels: (inputs, labels, _as_float(inputs[mask_name] != 0)))
        return x, y, sample_weight
    if not isinstance(x, Mapping) or y is None or isinstance(y, Mapping):
        return x, y, sample_weight
    mask = x.get(mask_name)
    return x, y, token_weights(np.asarray(y), None if mask is None else np.asarray(mask), sample_weight)


def _has_unweighed_tokens(spec, mask_name: str) -> bool:
    """Whether a dataset gives (batch, labels of the batch's tokens), without weights."""
    if not isinstance(spec, tuple) or len(spec) != 2 or not isinstance(spec[0], Mapping):
        return False
    shape, mask = getattr(spec[1], "shape", ()), spec[0].get(mask_name)
    return mask is not None and len(shape) >= 2 and tuple(shape)[:2] == tuple(mask.shape)


def _as_float(mask):
    import tensorflow as tf

    return tf.cast(mask, tf.float32)


def _check_finite(weights: np.ndarray) -> None:
    if not np.isfinite(weights).all():
        raise ValueError("sample_weight has a weight that is not a finite number.")
