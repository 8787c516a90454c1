"""Reads CSV, TSV and JSONL files of texts and labels; every complaint names its line and column."""

from __future__ import annotations

import csv
import difflib
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

COLUMNS = ("text", "text_pair", "label")
WRITES_TARGETS = "seq2seq-lm"  # the task that learns to write one text for another
PAIR_COLUMNS = ("source", "target")  # its files' columns
WITHOUT_LABELS = ("masked-lm", "causal-lm", "permutation-lm", "replaced-token-detection")  # tasks that learn from texts
FORMATS = {".csv": "csv", ".tsv": "tsv", ".jsonl": "jsonl"}


@dataclass(frozen=True)
class Rows:
    """The columns of a data file.

    Attributes:
        path: Path of the file.
        lines: list of int, the line in the file on which each row ends.
        texts: list of str (of list of str, where a JSONL file gives words).
        pairs: list of str, or None without a column text_pair.
        labels: list as the file has them, or None without a column label.
    """

    path: Path
    lines: list[int]
    texts: list
    pairs: list[str] | None
    labels: list | None

    def error(self, row: int, column: str, what: str) -> ValueError:
        return ValueError(f"{self.path}, line {self.lines[row]}, column {column!r}: {what}.")


def read_rows(path, labelled: bool) -> Rows:
    """The rows of a .csv, .tsv or .jsonl file with the columns text, label and (optional) text_pair.

    CSV follows RFC 4180; in TSV a quote is a character like any other; JSONL has an object a line. UTF-8.

    Args:
        path: the file.
        labelled: whether the column label must be there.

    Raises:
        FileNotFoundError, ValueError: naming the line and the column.
    """
    needed, near = (("text", "label"), ("text_pair", "label")) if labelled else (("text",), ("text_pair",))
    path, lines, columns = _read(path, COLUMNS, needed, near)
    return Rows(path, lines, columns["text"], columns.get("text_pair"), columns.get("label"))


def read_pairs(path, targets: bool = True) -> Rows:
    """The rows of such a file with the columns source and target: the texts and labels of `Rows`.

    Args:
        path: the file.
        targets: whether the column target must be there; it is not read otherwise.

    Raises:
        FileNotFoundError, ValueError: naming the line and the column.
    """
    wanted = PAIR_COLUMNS if targets else PAIR_COLUMNS[:1]
    path, lines, columns = _read(path, wanted, wanted, ())
    return Rows(path, lines, columns["source"], None, columns.get("target"))


def _read(path, names: Sequence[str], needed: Sequence[str], near: Sequence[str]) -> tuple[Path, list[int], dict]:
    """(path, line of each row, values by column) of a file.

    Args:
        names: the columns that are read where they are there.
        needed: those that must be.
        near: those for which a name that is nearly theirs is refused.
    """
    path = Path(path).expanduser()
    kind = FORMATS.get(path.suffix.lower())
    if kind is None:
        raise ValueError(f"{path}: a data file ends in {', '.join(FORMATS)}; {path.suffix!r} is none of them.")
    text = read_utf8(path)
    records = list(json_records(path, text) if kind == "jsonl" else _table_records(path, text, kind, names))
    if not records:
        raise ValueError(f"{path} has no rows.")
    first = records[0][1]
    for name in needed:
        if name not in first:
            raise ValueError(f"{path}: there is no column {name!r}; there is {', '.join(map(repr, first))}.")
    columns = {name: [] for name in names if name in first}
    _check_columns(path, first, near)
    for line, record in records:
        if "text_pair" in names and "text_pair" in record and "text_pair" not in columns:
            raise ValueError(f"{path}, line {line}: it has a 'text_pair', the first row has none: give each row one.")
        for name, values in columns.items():
            if fault := _fault(record, name):
                raise ValueError(f"{path}, line {line}, column {name!r}: {fault}.")
            values.append(record[name])
    return path, [line for line, _ in records], columns


def _check_columns(path: Path, found, wanted: Sequence[str]) -> None:
    """Refuses a column that would be left out although its name is near to one that is wanted and not there."""
    missing = [name for name in wanted if name not in found]
    for name in found:
        if name not in COLUMNS and (near := difflib.get_close_matches(name.strip().lower(), missing, 1, 0.75)):
            raise ValueError(f"{path}: the column {name!r} is not read; did you mean {near[0]!r}?")


def read_utf8(path: Path) -> str:
    """The text of a file, its line breaks as they are; ValueError names the line that is not UTF-8."""
    try:
        return path.read_bytes().decode("utf-8-sig")  # read_text would change line breaks inside texts
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise ValueError(f"{path}, line {line}: byte {error.object[error.start]:#x} is not UTF-8.") from error


def _fault(record: dict, name: str) -> str:
    """What is wrong with a field, or ""."""
    if name not in record:
        return "it is missing, and the first row has it"
    value = record[name]
    if value in ("", []):
        return "it is empty"
    words = name == "text" and isinstance(value, list) and all(isinstance(word, str) for word in value)
    if name != "label" and not isinstance(value, str) and not words:
        return f"wanted a string, got {json.dumps(value):.60}"
    return ""


def _table_records(path: Path, text: str, kind: str, names: Sequence[str]) -> Iterator[tuple[int, dict]]:
    csv.field_size_limit(2**31 - 1)  # texts are longer than the 131,072 characters that csv allows by default
    options = {"strict": True} if kind == "csv" else {"delimiter": "\t", "quoting": csv.QUOTE_NONE}
    # Not splitlines: it would also break lines at characters that are legal inside a text.
    reader = csv.reader(io.StringIO(text, newline=""), **options)
    try:
        header = next(reader, None)
        if header is None:
            raise ValueError(f"{path} is empty: its first line must name the columns, such as text,label.")
        for name in names:
            if header.count(name) > 1:
                raise ValueError(f"{path}, line 1: column {name!r} comes twice.")
        for fields in reader:
            if not fields:
                continue
            if len(fields) != len(header):
                raise ValueError(
                    f"{path}, line {reader.line_num}: {len(fields)} fields for the {len(header)} columns "
                    f"{', '.join(header)}; a text with a comma or a line break in it needs quotes."
                )
            yield reader.line_num, dict(zip(header, fields, strict=True))
    except csv.Error as error:
        raise ValueError(f"{path}, line {reader.line_num}: {error}.") from error


def json_records(path: Path, text: str) -> Iterator[tuple[int, dict]]:
    """(line, object) of each line of a JSONL file that is not empty."""
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except ValueError as error:
            raise ValueError(f"{path}, line {number}: it is not JSON ({error}).") from error
        if not isinstance(record, dict):
            raise ValueError(f"{path}, line {number}: wanted an object, got {line:.60}.")
        yield number, record


def task_inputs(rows: Rows, task: str) -> list:
    """The texts as a task takes them: strings, pairs, or lists of words (a string is split at its spaces)."""
    if task == "token-classification":
        return [text.split() if isinstance(text, str) else text for text in rows.texts]
    for row, text in enumerate(rows.texts):
        if not isinstance(text, str):
            raise rows.error(row, "text", f"{task} wants a string, not a list of words")
    if rows.pairs is not None:
        return list(zip(rows.texts, rows.pairs, strict=True))
    if task == "question-answering":
        raise ValueError(f"{rows.path} has no column 'text_pair': questions are in text, contexts in text_pair.")
    return rows.texts


def task_targets(rows: Rows, task: str, problem_type: str | None) -> list | None:
    """The labels as a task's `fit` takes them.

    Classes are names (a number is the name of its digits), several of them a JSON list; scores are numbers;
    labels of words a list, or one string split at its spaces; answers JSON objects with text and
    answer_start, or null.

    Raises:
        ValueError: naming the line.
    """
    if task in WITHOUT_LABELS:
        return None
    if rows.labels is None:
        raise ValueError(f"{rows.path} has no column 'label'.")
    if task in ("question-answering", WRITES_TARGETS):
        return rows.labels
    if task == "token-classification":
        return [_word_labels(rows, row) for row in range(len(rows.labels))]
    if task == "text-embedding" or problem_type == "regression":
        return [_score(rows, row) for row in range(len(rows.labels))]
    return [_classes(rows, row, problem_type) for row in range(len(rows.labels))]


def _word_labels(rows: Rows, row: int) -> list[str]:
    text, label = rows.texts[row], rows.labels[row]
    words = len(text.split() if isinstance(text, str) else text)
    names = label.split() if isinstance(label, str) else label
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise rows.error(row, "label", "wanted a label for each word")
    if len(names) != words:
        raise rows.error(row, "label", f"{len(names)} labels for {words} words")
    return names


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
        return [str(name) for name in label]
    if not isinstance(label, (str, int)):
        raise rows.error(row, "label", f"wanted one name, got {label!r:.60}")
    return str(label)


def label_names(targets: Sequence) -> list[str]:
    """The names that targets use, sorted (numbers by their value)."""
    names = {name for target in targets for name in ([target] if isinstance(target, str) else target)}
    return sorted(names, key=lambda name: (0, int(name), name) if name.isdecimal() else (1, 0, name))


def check_labels(rows: Rows, targets: Sequence, labels: Sequence[str]) -> None:
    """Refuses names that are not among `labels`.

    Raises:
        ValueError: naming the line.
    """
    known = set(labels)
    for row, target in enumerate(targets):
        for name in [target] if isinstance(target, str) else target:
            if name not in known:
                raise rows.error(row, "label", f"{name!r} is not among the labels {', '.join(labels)}")
