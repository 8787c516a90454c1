"""Label names and ids, both ways, and the keys that config.json has for them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np


def check_labels(labels: Sequence[str]) -> list[str]:
    """Label names as a list, each once.

    Raises:
        TypeError, ValueError: for names that are no strings, or come twice.
    """
    if isinstance(labels, str) or not isinstance(labels, Iterable):
        raise TypeError(f"labels must be a list of names, not {labels!r}.")
    labels = list(labels)
    if not labels or not all(isinstance(label, str) for label in labels):
        raise TypeError(f"labels must be a list of at least one name, each a str, not {labels!r}.")
    if len(set(labels)) < len(labels):
        raise ValueError(f"Every label must come once: {labels}.")
    return labels


def label_keys(labels: Sequence[str]) -> dict:
    """Labels as config.json has them."""
    return {
        "id2label": {str(i): label for i, label in enumerate(labels)},
        "label2id": {label: i for i, label in enumerate(labels)},
        "num_labels": len(labels),
    }


def labels_from(reference: Mapping, given: Sequence[str] | None) -> list[str]:
    """The labels of a config.json, or those given instead.

    Raises:
        ValueError: where neither has any.
    """
    if given is not None:
        return check_labels(given)
    names = reference.get("id2label")
    if names:
        return _in_order(names)
    if reference.get("num_labels"):
        return [f"LABEL_{i}" for i in range(reference["num_labels"])]
    raise ValueError('The checkpoint names no labels: pass labels=["...", "..."].')


def _in_order(names: Mapping) -> list[str]:
    """The names of `id2label`, whose keys are the numbers of the columns.

    Raises:
        ValueError: where they do not count from 0, or a name is no string.
    """
    try:
        labels = [names[str(i)] for i in range(len(names))]
    except (KeyError, TypeError) as error:
        raise ValueError(
            f"config.json's id2label must name columns 0 to {len(names) - 1}; it is {str(names)[:200]}."
        ) from error
    return check_labels(labels)


def encode_labels(targets: Sequence, labels: Sequence[str], problem_type: str) -> np.ndarray:
    """Targets as arrays: int32 [B], float32 [B, C] of probabilities or of 0 and 1, or float32 [B, C] scores.

    Args:
        targets: label names or ids, or for each a row of the labels' probabilities (soft labels); lists of them (or
            0/1 rows) for several labels; floats (or rows) for regression.
        labels: the names in the order of the columns.
        problem_type: "single_label_classification", "multi_label_classification" or "regression".

    Raises:
        ValueError: for a label that is not among `labels`, or a row of another width.
    """
    if problem_type == "regression":
        return _rows(targets, len(labels), "scores")
    ids = {label: i for i, label in enumerate(labels)}
    if problem_type == "single_label_classification":
        if are_probability_rows(targets, len(labels)):
            return _distributions(targets, len(labels))
        return np.asarray([_label_id(target, ids, i) for i, target in enumerate(targets)], "int32")
    if all(_is_binary_row(target, len(labels)) for target in targets):
        return _rows(targets, len(labels), "labels")
    rows = np.zeros((len(targets), len(labels)), "float32")
    for i, target in enumerate(targets):
        for label in target:
            rows[i, _label_id(label, ids, i)] = 1.0
    return rows


def are_probability_rows(targets, width: int) -> bool:
    """Whether targets of one label are rows of numbers, one for each label, rather than names or ids."""
    first = next(iter(targets), None)
    return np.shape(first) == (width,) and np.asarray(first).dtype.kind in "biuf"


def _distributions(targets, width: int) -> np.ndarray:
    rows = _rows(targets, width, "probabilities")
    wrong = np.flatnonzero((rows < 0).any(axis=1) | (np.abs(rows.sum(axis=1) - 1.0) > 1e-3))
    if len(wrong):
        raise ValueError(
            f"Target {wrong[0]} is the row {rows[wrong[0]].tolist()}: the probabilities of a text's one label are at "
            'least 0 and sum to 1. For texts of several labels the task is problem_type="multi_label_classification".'
        )
    return rows


def cosine_targets(scores) -> np.ndarray:
    """Scores of pairs as float32 [B].

    Raises:
        ValueError: for a score that is no cosine, with the way to make it one.
    """
    scores = np.asarray(scores, "float32")
    wrong = np.flatnonzero(~(np.abs(scores) <= 1.0))
    if len(wrong):
        raise ValueError(
            f"Score {wrong[0]} is {scores.ravel()[wrong[0]]}; a cosine is from -1 to 1, so scores must be too. Divide "
            "them by the highest there is: scores from 0 to 5 by 5."
        )
    return scores


def _is_binary_row(target, width: int) -> bool:
    values = np.asarray(target)
    return values.shape == (width,) and values.dtype.kind in "biuf" and bool(np.isin(values, (0, 1)).all())


def _rows(targets, width: int, what: str) -> np.ndarray:
    rows = np.asarray(targets, "float32").reshape(len(targets), -1)
    if rows.shape[1] != width:
        raise ValueError(f"Each target has {rows.shape[1]} {what}, the model {width}.")
    if not np.isfinite(rows).all():
        raise ValueError(f"Target {int(np.argmin(np.isfinite(rows).all(axis=1)))} is not a finite number.")
    return rows


def _label_id(target, ids: Mapping[str, int], example: int) -> int:
    if isinstance(target, str):
        if target not in ids:
            raise ValueError(f"Example {example} has the label {target!r}, which is not among {', '.join(ids)}.")
        return ids[target]
    number = np.asarray(target)
    if number.shape != () or number.dtype.kind not in "iub":
        raise ValueError(f"Example {example} has the target {target!r}: wanted one label, by name or id.")
    if not 0 <= int(number) < len(ids):
        raise ValueError(
            f"Example {example} has the label id {int(number)}; the {len(ids)} labels are {', '.join(ids)}."
        )
    return int(number)


def stated_labels(reference: dict, given) -> list[str]:
    """The labels given, or those of a config.json.

    Of a classifier with two labels without names, transformers writes no labels at all.
    """
    classifies = any("Classification" in name for name in reference.get("architectures") or [])
    unnamed = given is None and classifies and not (reference.get("id2label") or reference.get("num_labels"))
    return ["LABEL_0", "LABEL_1"] if unnamed else labels_from(reference, given)


def check_read_labels(reference: dict, given, folder) -> None:
    """Refuses the names of a head that was read in another order: answers would be named wrongly. New names may do.

    Raises:
        ValueError: naming both lists and the way out.
    """
    stated = stated_labels(reference, None)
    if any(name in stated and stated.index(name) != column for column, name in enumerate(given)):
        raise ValueError(
            f"labels={list(given)}, but the head in {folder} was trained for {stated}, in this order. Leave labels "
            "out to take the checkpoint's; for a new head, put the task on tfxformer.from_pretrained(folder) yourself."
        )
