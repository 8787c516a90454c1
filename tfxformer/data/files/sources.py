"""Files of words and tags, folders of texts, and objects like Hugging Face's datasets, as tables."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tfxformer.data.files.table import Table, table_of
from tfxformer.data.files.tables import read_csv, read_json, read_jsonl, read_parquet, read_tsv, read_utf8

_UNIVERSAL = {"words": 1, "upos": 3, "xpos": 4}  # the columns of CoNLL-U that are read, counted from 0
_UNIVERSAL_WIDTH = 10
_TAG = re.compile(r"O|[BIESLU]-.+")


def read_table(source: Any) -> Table:
    """The table of a file, a folder or an object like a `datasets.Dataset`.

    .csv, .tsv, .jsonl, .json (a list of objects, or SQuAD's tree) and .parquet have columns with names. .conll, .bio,
    .iob and .iob2 have a word and its tags a line, .conllu Universal Dependencies' ten columns; a sentence ends at an
    empty line. .txt has a text a line. A folder has .txt files, or folders of them, each named as its texts' label.

    Raises:
        FileNotFoundError, ValueError: naming the place.
    """
    if is_dataset_like(source):
        return read_dataset(source)
    path = Path(source).expanduser()
    if path.is_dir():
        return read_folder(path)
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise ValueError(f"{path}: a data file ends in {', '.join(READERS)}; {path.suffix!r} is none of them.")
    return reader(path)


def is_dataset_like(source: Any) -> bool:
    """Whether this is an object like a `datasets.Dataset`: columns by name (told without importing the package)."""
    return hasattr(source, "column_names") and hasattr(source, "__getitem__")


def read_dataset(dataset: Any) -> Table:
    """The table of a `datasets.Dataset`, with the names of its classes.

    Raises:
        ValueError: for several splits.
    """
    if isinstance(dataset.column_names, dict):
        raise ValueError(f"The dataset has the splits {', '.join(dataset.column_names)}: give one, dataset[name].")
    columns = {name: list(dataset[name]) for name in dataset.column_names}
    count = len(next(iter(columns.values()), []))
    if not count:
        raise ValueError("The dataset has no rows.")
    features = getattr(dataset, "features", None) or {}
    names = {column: found for column, feature in features.items() if (found := _feature_names(feature))}
    return Table(type(dataset).__name__, [f"row {row}" for row in range(count)], columns, names)


def _feature_names(feature: Any) -> list[str] | None:
    """The names of a `datasets` feature's classes, also where it is a list of them."""
    names = getattr(feature, "names", None)
    inner = getattr(feature, "feature", None)
    return list(names) if names else (None if inner is None else _feature_names(inner))


def read_conll(path: Path) -> Table:
    """A word and its tags a line, with spaces or tabs between them: the columns words, tags (the last), and 2, 3, ...

    Lines that begin with -DOCSTART- are passed over, as are comments: lines that begin with "#" before a sentence's
    first word, unless "#" is that word, with its tag.
    """
    return table_of(path, list(_sentences(path, None)))


def read_conllu(path: Path) -> Table:
    """Universal Dependencies' CoNLL-U: the columns words, upos and xpos, without ranges (1-2) and empty nodes (1.1)."""
    return table_of(path, list(_sentences(path, _UNIVERSAL)))


def _sentences(path: Path, universal: dict | None) -> Iterator[tuple[str, dict]]:
    rows, begins, width = [], 0, None
    lines = read_utf8(path).replace("\r\n", "\n").split("\n")
    for number, line in enumerate([*lines, ""], start=1):
        if not line.strip() or line.startswith("-DOCSTART-"):
            if rows:
                yield f"line {begins}", _columns(rows, universal)
            rows = []
            continue
        fields = line.split("\t") if universal or "\t" in line else line.split()
        if line.startswith("#") and not rows and (universal or fields[0] != "#" or not _TAG.fullmatch(fields[-1])):
            continue
        width = width or (_UNIVERSAL_WIDTH if universal else len(fields))
        if len(fields) != width or width < 2:
            raise ValueError(
                f"{path}, line {number}: {len(fields)} columns; wanted {max(width, 2)}, a word first and its tag last."
            )
        if universal and not fields[0].isdecimal():
            continue
        begins = begins if rows else number
        rows.append(fields)


def _columns(rows: list[list[str]], universal: dict | None) -> dict:
    columns = [list(column) for column in zip(*rows, strict=True)]
    if universal:
        return {name: columns[index] for name, index in universal.items()}
    middle = {str(number): column for number, column in enumerate(columns[1:-1], start=2)}
    return {"words": columns[0], "tags": columns[-1], **middle}


def read_texts(path: Path) -> Table:
    """A text a line; empty lines are passed over."""
    lines = read_utf8(path).split("\n")
    return table_of(
        path, [(f"line {n}", {"text": line.strip("\r")}) for n, line in enumerate(lines, 1) if line.strip()]
    )


def read_folder(folder: Path) -> Table:
    """Folders of .txt files, each named as the label of its texts; or .txt files alone.

    Raises:
        ValueError: for both, or neither, and for folders that are splits, not labels.
    """
    folders = sorted(inner for inner in folder.iterdir() if inner.is_dir() and not inner.name.startswith("."))
    here = sorted(folder.glob("*.txt"))
    if here and folders:
        raise ValueError(f"{folder} has texts, and folders of texts: give one of the two.")
    splits = [inner.name for inner in folders if inner.name in ("train", "test", "dev", "val", "validation")]
    if len(splits) > 1:
        raise ValueError(f"{folder} has the folders {', '.join(splits)}, which are splits and no labels: give one.")
    files = [(path, {}) for path in here] or [
        (path, {"label": inner.name}) for inner in folders for path in sorted(inner.rglob("*.txt"))
    ]
    if not files:
        raise ValueError(f"{folder} has no .txt file, and no folder of them.")
    return table_of(
        folder, [(str(path.relative_to(folder)), {"text": read_utf8(path).strip(), **label}) for path, label in files]
    )


READERS = {
    ".csv": read_csv,
    ".tsv": read_tsv,
    ".jsonl": read_jsonl,
    ".json": read_json,
    ".parquet": read_parquet,
    **dict.fromkeys((".conll", ".bio", ".iob", ".iob2"), read_conll),
    ".conllu": read_conllu,
    ".txt": read_texts,
}
