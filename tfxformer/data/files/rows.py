"""Tables as what a task's `fit` takes; every complaint names its place and column."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tfxformer.data.files.columns import Columns, choose_columns
from tfxformer.data.files.language import read_language
from tfxformer.data.files.sources import read_table
from tfxformer.data.files.table import MISSING, Table
from tfxformer.data.files.word_spans import are_spans, tags_of_spans
from tfxformer.data.targets.words.entities import split_texts

WRITES_TARGETS = "seq2seq-lm"  # the task that learns to write one text for another
WITHOUT_LABELS = ("masked-lm", "causal-lm", "permutation-lm", "replaced-token-detection")  # tasks that learn from texts


@dataclass(frozen=True)
class Rows:
    """A table as a task reads it.

    Attributes:
        table: what was read.
        columns: which of its columns are what.
        texts: list of str, of sources, or of lists of words.
        pairs: list of str, or None without such a column.
        labels: list as the file has them, or of targets; None without such a column.
    """

    table: Table
    columns: Columns
    texts: list
    pairs: list[str] | None
    labels: list | None

    def error(self, row: int, role: str, what: str) -> ValueError:
        return self.table.error(row, getattr(self.columns, role), what)


def load(source: Any, task: str, *, labelled: bool = True, text_column=None, pair_column=None, label_column=None):
    """A data file, a folder or an object like a `datasets.Dataset`, as (inputs, targets) of a task's `fit`.

    Args:
        source: see `data.files.sources.read_table`: .csv, .tsv, .jsonl, .json (SQuAD's too), .parquet, .conll, .conllu,
            .txt, folders of .txt files. Of "causal-lm" also prompts with answers, and conversations (`read_language`).
        task: "text-classification", "token-classification", "question-answering", "text-embedding", "seq2seq-lm",
            "masked-lm", ...
        labelled: whether the labels are read; without them, targets are None.
        text_column, pair_column, label_column: names; None for the column that has a usual one ("text", "tokens",
            "question", "ner_tags", "answers", ...).

    Raises:
        FileNotFoundError, ValueError: naming the place and the column.

    Example:
        words, tags = data.load("train.conll", "token-classification")
        tagger.fit(words, tags)
    """
    given = {"text": text_column, "pair": pair_column, "label": label_column}
    if task == "causal-lm" and not any(given.values()):
        return read_language(source)
    rows = read_rows(source, task, labelled=labelled, given=given)
    return task_inputs(rows, task), task_targets(rows, task, None) if rows.labels is not None else None


def read_rows(source: Any, task: str, *, labelled: bool = True, given: dict[str, str | None] | None = None) -> Rows:
    """The rows of a source, with its labels or targets where the task learns from any and they are wanted.

    Args:
        source: see `read_table`.
        task: name of the task.
        labelled: whether labels are read; they must be there then.
        given: {"text" | "pair" | "label": name of the column}, where the caller says it.

    Raises:
        FileNotFoundError, ValueError: naming the place and the column.
    """
    return rows_of(read_table(source), task, labelled=labelled, given=given)


def rows_of(table: Table, task: str, *, labelled: bool, given: dict[str, str | None] | None = None) -> Rows:
    """The rows of a table; see `read_rows`."""
    columns = choose_columns(table, task, labelled and task not in WITHOUT_LABELS, given)
    found = {"text": table.columns[columns.text], "pair": None, "label": None}
    for role in ("pair", "label"):
        if (name := getattr(columns, role)) is not None:
            found[role] = table.columns[name]
    rows = Rows(table, columns, found["text"], found["pair"], found["label"])
    for role, values in found.items():
        for row, value in enumerate(values or ()):
            if fault := _fault(value, role, task):
                raise rows.error(row, role, fault)
    if task == "token-classification":
        return _of_words(rows)
    return rows


def _fault(value, role: str, task: str) -> str:
    """What is wrong with a field, or ""."""
    if value is MISSING:
        return "it is missing, and another row has it"
    if value == "" or (value == [] and (role, task) != ("label", "token-classification")):
        return "it is empty"
    words = task == "token-classification" and isinstance(value, list) and all(isinstance(word, str) for word in value)
    text = role != "label" or task == WRITES_TARGETS
    if text and not isinstance(value, str) and not words:
        return f"wanted a string, got {_shown(value)}"
    return ""


def _shown(value) -> str:
    try:
        return f"{json.dumps(value, ensure_ascii=False):.60}"
    except TypeError:  # a date, an image, ...
        return f"{value!r:.60}"


def _of_words(rows: Rows) -> Rows:
    """Texts as words, and labels as one for each: strings are split at their spaces, texts with spans at signs too."""
    if rows.labels is None:
        texts = [text.split() if isinstance(text, str) else text for text in rows.texts]
        return Rows(rows.table, rows.columns, texts, None, None)
    if are_spans(rows.labels):
        split = split_texts(rows.texts)
        return Rows(rows.table, rows.columns, split.words, None, tags_of_spans(rows, split))
    texts = [text.split() if isinstance(text, str) else text for text in rows.texts]
    rows = Rows(rows.table, rows.columns, texts, None, rows.labels)
    return Rows(rows.table, rows.columns, texts, None, [_word_labels(rows, row) for row in range(len(texts))])


def task_inputs(rows: Rows, task: str) -> list:
    """The texts as a task takes them: strings, pairs, or lists of words."""
    if rows.pairs is not None:
        return list(zip(rows.texts, rows.pairs, strict=True))
    if task == "question-answering":
        raise ValueError(f"{rows.table.source} has no column 'text_pair' or 'context': answers stand in contexts.")
    return rows.texts


def task_targets(rows: Rows, task: str, problem_type: str | None) -> list | None:
    """The labels as a task's `fit` takes them.

    Classes are names (a number is the name of its digits, unless the source names its classes), several of them a JSON
    list; scores are numbers; labels of words a list, or one string split at its spaces; answers JSON objects with text
    and answer_start, or null.

    Raises:
        ValueError: naming the place.
    """
    if task in WITHOUT_LABELS:
        return None
    if rows.labels is None:
        raise ValueError(f"{rows.table.source} has no column 'label'.")
    if task in ("question-answering", "token-classification", WRITES_TARGETS):
        return rows.labels
    if task == "text-embedding" or problem_type == "regression":
        return [_score(rows, row) for row in range(len(rows.labels))]
    return [_classes(rows, row, problem_type) for row in range(len(rows.labels))]


def _names(rows: Rows) -> list[str] | None:
    return rows.table.label_names.get(rows.columns.label)


def _name(rows: Rows, row: int, value) -> str:
    """The name of a class; of a number the source's own name where it has one."""
    names = _names(rows)
    if names is None or not isinstance(value, int):
        return str(value)
    if not 0 <= value < len(names):
        raise rows.error(row, "label", f"class {value} of the {len(names)} classes {', '.join(names)}")
    return names[value]


def _word_labels(rows: Rows, row: int) -> list[str]:
    words, label = len(rows.texts[row]), rows.labels[row]
    names = label.split() if isinstance(label, str) else label
    if not isinstance(names, list) or not all(isinstance(name, (str, int)) for name in names):
        raise rows.error(row, "label", "wanted a label for each word, or spans (start, end, label)")
    if len(names) != words:
        raise rows.error(row, "label", f"{len(names)} labels for {words} words")
    return [_name(rows, row, name) for name in names]


def _score(rows: Rows, row: int) -> float:
    try:
        return float(rows.labels[row])
    except (TypeError, ValueError) as error:
        raise rows.error(row, "label", f"wanted a number, got {rows.labels[row]!r:.60}") from error


def _classes(rows: Rows, row: int, problem_type: str | None):
    label = rows.labels[row]
    if problem_type == "multi_label_classification":
        if not isinstance(label, list):
            raise rows.error(row, "label", f"wanted a JSON list of names, got {label!r:.60}")
        return [_name(rows, row, name) for name in label]
    if not isinstance(label, (str, int)) or isinstance(label, Mapping):
        raise rows.error(row, "label", f"wanted one name, got {label!r:.60}")
    return _name(rows, row, label)


def label_names(targets: Sequence) -> list[str]:
    """The names that targets use, sorted (numbers by their value)."""
    names = {name for target in targets for name in ([target] if isinstance(target, str) else target)}
    return sorted(names, key=lambda name: (0, int(name), name) if name.isdecimal() else (1, 0, name))


def check_labels(rows: Rows, targets: Sequence, labels: Sequence[str]) -> None:
    """Refuses names that are not among `labels`.

    Raises:
        ValueError: naming the place.
    """
    known = set(labels)
    for row, target in enumerate(targets):
        for name in [target] if isinstance(target, str) else target:
            if name not in known:
                raise rows.error(row, "label", f"{name!r} is not among the labels {', '.join(labels)}")
