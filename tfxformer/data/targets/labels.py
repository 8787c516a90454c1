"""Label names and ids, both ways, and the keys that config.json has for them."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping, Sequence, Set

import numpy as np

from tfxformer.arguments import notices
from tfxformer.text.inputs import is_missing


def check_labels(labels: Sequence[str]) -> list[str]:
    """Label names as a list, each once; names that differ by upper and lower case only are said in a warning.

    Raises:
        TypeError, ValueError: for names that are no strings, or come twice, also where spaces around them or the
            Unicode form (composed or not) are all that tells them apart.
    """
    if isinstance(labels, (str, bytes, Set, Mapping)) or not isinstance(labels, Iterable):
        raise TypeError(f"labels must be a list of names, not {labels!r}: their order is that of the columns.")
    labels = labels.tolist() if hasattr(labels, "tolist") else list(labels)
    if not labels or not all(isinstance(label, str) for label in labels):
        raise TypeError(f"labels must be a list of at least one name, each a str, not {labels!r}.")
    if len(set(labels)) < len(labels):
        raise ValueError(f"Every label must come once: {labels}.")
    if alike := _alike(labels, _plain):
        raise ValueError(
            f"The labels {alike[0]!r} and {alike[1]!r} differ by spaces or by their Unicode form only, which nobody "
            "sees: write them alike, in the data too, or give them other names."
        )
    if alike := _alike(labels, lambda label: _plain(label).casefold()):
        notices.warn(
            f"The labels {alike[0]!r} and {alike[1]!r} differ by upper and lower case only: they are two classes here."
        )
    return labels


def _plain(label: str) -> str:
    return " ".join(unicodedata.normalize("NFC", label).split())


def _alike(labels: Sequence[str], form) -> tuple[str, str] | None:
    """The first two labels that `form` makes equal; None where there are none."""
    seen = {}
    for label in labels:
        before = seen.setdefault(form(label), label)
        if before != label:
            return before, label
    return None


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
    if not isinstance(names, Mapping):
        raise ValueError(f"config.json's id2label must be an object of numbers and names; it is {str(names)[:200]}.")
    labels = [names.get(str(i)) for i in range(len(names))]
    if not all(isinstance(label, str) for label in labels):
        raise ValueError(f"config.json's id2label must name columns 0 to {len(names) - 1}; it is {str(names)[:200]}.")
    return check_labels(labels)


def encode_labels(targets: Sequence, labels: Sequence[str], problem_type: str) -> np.ndarray:
    """Targets as arrays: int32 [B], float32 [B, C] of probabilities or of 0 and 1, or float32 [B, C] scores.

    Args:
        targets: label names or ids, or for each a row of the labels' probabilities (soft labels); lists of them (or
            rows of 0 to 1) for several labels; floats (or rows) for regression.
        labels: the names in the order of the columns.
        problem_type: "single_label_classification", "multi_label_classification" or "regression".

    Raises:
        ValueError: for a label that is not among `labels`, or a row of another width.
    """
    if problem_type == "regression":
        return _rows(targets, len(labels), "scores")
    ids = _Ids(labels)
    if problem_type == "single_label_classification":
        if are_probability_rows(targets, len(labels)):
            return _distributions(targets, len(labels))
        targets = [_single(target) for target in targets]
        ids.choose_reading(targets)
        return np.asarray([ids.of(target, i) for i, target in enumerate(targets)], "int32")
    for i, target in enumerate(targets):
        if not isinstance(target, (list, tuple, set, frozenset, np.ndarray)):
            raise ValueError(f"Example {i} has the target {target!r}: wanted a list of labels, or a row of 0 and 1.")
    if all(_is_row_of_shares(target, len(labels)) for target in targets):
        return _rows(targets, len(labels), "labels")
    ids.choose_reading([label for target in targets for label in target])
    rows = np.zeros((len(targets), len(labels)), "float32")
    for i, target in enumerate(targets):
        numbers = [number for label in target if (number := _whole(label)) is not None]
        if len(numbers) > len(set(numbers)):
            raise ValueError(
                f"Example {i} has the target {target!r:.80}: wanted a list of labels, each once, or a row of "
                f"{len(labels)} numbers from 0 to 1, one for each label."
            )
        for label in target:
            rows[i, ids.of(label, i)] = 1.0
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
    if not _is_numeric(scores):
        wrong = next((i for i, score in enumerate(scores) if not _is_numeric(score)), 0)
        raise ValueError(f"Score {wrong} is {scores[wrong]!r:.80}: wanted a number from -1 to 1 for each pair.")
    scores = np.asarray(scores, "float32")
    wrong = np.flatnonzero(~(np.abs(scores) <= 1.0))
    if len(wrong):
        raise ValueError(
            f"Score {wrong[0]} is {scores.ravel()[wrong[0]]}; a cosine is from -1 to 1, so scores must be too. Divide "
            "them by the highest there is: scores from 0 to 5 by 5."
        )
    return scores


def encode_word_labels(
    targets: Sequence[Sequence], labels: Sequence[str], texts: Sequence[Sequence[str]], ignored: int
) -> list[np.ndarray]:
    """The labels of words, names or ids, as ids: for each text int32 [words]; `ignored`, of words without, stays.

    Of rows of the labels' probabilities: float32 [words, C].

    Raises:
        ValueError: naming the example whose labels are no list, are more or fewer than its words, or are unknown.
    """
    rows = []
    for i, (target, words) in enumerate(zip(targets, texts, strict=True)):
        if isinstance(target, str) or not isinstance(target, Iterable):
            raise ValueError(f"Example {i} has the target {target!r}: wanted a list with a label for each word.")
        rows.append(target.tolist() if hasattr(target, "tolist") else list(target))
        if len(rows[-1]) != len(words):
            raise ValueError(
                f"Example {i} has {len(words)} words but {len(rows[-1])} labels: give each word its label."
            )
    soft = [are_probability_rows(row, len(labels)) for row in rows if row]
    if any(soft):
        if not all(soft):
            raise ValueError("Some texts have soft labels (rows of probabilities) and others names or ids.")
        return [_distributions(row, len(labels)) if row else np.zeros((0, len(labels)), "float32") for row in rows]

    def is_ignored(label) -> bool:
        return not isinstance(label, str) and np.shape(label) == () and label == ignored

    ids = _Ids(labels)
    ids.choose_reading([label for row in rows for label in row if not is_ignored(label)])
    return [
        np.asarray([ignored if is_ignored(label) else ids.of(label, i) for label in row], "int32")
        for i, row in enumerate(rows)
    ]


class _Ids:
    """Turns labels as users write them into columns: names, whole numbers as ids, or numbers that are names."""

    def __init__(self, labels: Sequence[str]):
        self._labels = list(labels)
        self._ids = {label: i for i, label in enumerate(labels)}
        self._by_name = False

    def choose_reading(self, targets: Sequence) -> None:
        """Settles whether the numbers among all targets are ids, or names such as "1".

        Raises:
            ValueError: where both readings are possible and differ.
        """
        numbers = list(dict.fromkeys(number for target in targets if (number := _whole(target)) is not None))
        named = bool(numbers) and all(str(number) in self._ids for number in numbers)
        in_range = all(0 <= number < len(self._labels) for number in numbers)
        if named and in_range:
            for number in numbers:
                if self._labels[number] != str(number):
                    raise ValueError(
                        f"The label {number} is ambiguous, since labels={self._labels}: as an id it is the label "
                        f"{self._labels[number]!r}, as a name it is {str(number)!r}, which has the id "
                        f'{self._ids[str(number)]}. Write names as strings ("{number}"), or the labels in an order in '
                        "which names and ids are the same."
                    )
        self._by_name = named and not in_range

    def of(self, target, example: int) -> int:
        """The column of one label."""
        if isinstance(target, str):
            if target not in self._ids:
                raise ValueError(
                    f"Example {example} has the label {target!r}, which is not among {', '.join(self._ids)}"
                    f"{self._near(target)}."
                )
            return self._ids[target]
        number = _whole(target)
        if number is None:
            what = "a missing value" if is_missing(target) else f"the target {target!r}"
            raise ValueError(f"Example {example} has {what}: wanted one label, by name or id.")
        if self._by_name:
            return self._ids[str(number)]
        if not 0 <= number < len(self._labels):
            raise ValueError(
                f"Example {example} has the label id {number}; the {len(self._labels)} labels are "
                f"{', '.join(self._labels)}."
            )
        return number

    def _near(self, target: str) -> str:
        for label in self._labels:
            if _plain(label) == _plain(target):
                return f": it differs from {label!r} by spaces or Unicode form only"
            if _plain(label).casefold() == _plain(target).casefold():
                return f": it differs from {label!r} by upper and lower case only"
        return ""


def _whole(target) -> int | None:
    """A whole number (1, numpy's, True, 1.0) as int; None for anything else."""
    if isinstance(target, (int, str)):
        return None if isinstance(target, str) else int(target)
    number = np.asarray(target)
    if number.shape != () or number.dtype.kind not in "iubf" or not np.isfinite(number) or number != np.floor(number):
        return None
    return int(number)


def _single(target):
    """A target, taken out of a row of one: labels often come as a column [B, 1]."""
    alone = isinstance(target, (list, tuple, np.ndarray)) and len(target) == 1
    return target[0] if alone else target


def _is_row_of_shares(target, width: int) -> bool:
    """Whether a target of several labels is a row of numbers from 0 to 1, one for each label."""
    if len(target) != width or isinstance(target, (set, frozenset)):
        return False
    values = np.asarray(target)
    return values.shape == (width,) and values.dtype.kind in "biuf" and bool(((values >= 0) & (values <= 1)).all())


def _rows(targets, width: int, what: str) -> np.ndarray:
    missing = next((i for i, target in enumerate(targets) if target is None or type(target).__name__ == "NAType"), None)
    if missing is not None:
        raise ValueError(f"Target {missing} is missing ({targets[missing]!r}): wanted {width} {what}.")
    try:
        rows = np.asarray(targets, "float32").reshape(len(targets), -1)
    except (TypeError, ValueError) as error:
        wrong = next((i for i, target in enumerate(targets) if not _is_numeric(target)), 0)
        raise ValueError(f"Target {wrong} is {targets[wrong]!r}: wanted {width} {what}, as numbers.") from error
    if rows.shape[1] != width:
        raise ValueError(f"Each target has {rows.shape[1]} {what}, the model {width}.")
    if not np.isfinite(rows).all():
        raise ValueError(f"Target {int(np.argmin(np.isfinite(rows).all(axis=1)))} is not a finite number.")
    return rows


def _is_numeric(target) -> bool:
    try:
        return np.asarray(target, "float64").dtype.kind == "f"
    except (TypeError, ValueError):
        return False


def stated_labels(reference: dict, given) -> list[str]:
    """The labels given, or those of a config.json.

    Of a classifier with two labels without names, transformers writes no labels at all.
    """
    classifies = "Classification" in str(reference.get("architectures"))
    unnamed = given is None and classifies and not (reference.get("id2label") or reference.get("num_labels"))
    return ["LABEL_0", "LABEL_1"] if unnamed else labels_from(reference, given)


def check_read_labels(reference: dict, given, folder) -> None:
    """Refuses labels that are a head's own in another order, which would name its answers wrongly; new names may do.

    Raises:
        ValueError: naming both lists and the way out.
    """
    stated = stated_labels(reference, None)
    if any(name in stated and stated.index(name) != column for column, name in enumerate(given)):
        raise ValueError(
            f"labels={list(given)}, but the head in {folder} was trained for {stated}, in this order. Leave labels "
            "out to take the checkpoint's; for a new head, put the task on tfxformer.from_pretrained(folder) yourself."
        )
