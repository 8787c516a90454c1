"""CSV, TSV, JSONL, JSON and Parquet files as tables; every complaint names its line."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path

from tfxformer.data.files.table import Table, table_of
from tfxformer.extras import needs


def read_utf8(path: Path) -> str:
    """The text of a file, its line breaks as they are; ValueError names the line that is not UTF-8."""
    try:
        return path.read_bytes().decode("utf-8-sig")  # read_text would change line breaks inside texts
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise ValueError(f"{path}, line {line}: byte {error.object[error.start]:#x} is not UTF-8.") from error


def read_csv(path: Path) -> Table:
    """A CSV file (RFC 4180), whose first line names the columns. UTF-8."""
    return table_of(path, list(_delimited(path, {"strict": True})))


def read_tsv(path: Path) -> Table:
    """A file with tabs, in which a quote is a character like any other; its first line names the columns. UTF-8."""
    return table_of(path, list(_delimited(path, {"delimiter": "\t", "quoting": csv.QUOTE_NONE})))


def read_jsonl(path: Path) -> Table:
    """A file with an object a line. UTF-8."""
    return table_of(path, [(f"line {line}", record) for line, record in json_records(path, read_utf8(path))])


def read_json(path: Path) -> Table:
    """A JSON file: a list of objects, or SQuAD's tree of articles, paragraphs and questions.

    Raises:
        ValueError: for another form.
    """
    try:
        found = json.loads(read_utf8(path))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON ({error}); of one object a line the name ends in .jsonl.") from error
    if isinstance(found, dict) and isinstance(found.get("data"), list):
        found = found["data"]
        if found and all(isinstance(article, dict) and "paragraphs" in article for article in found):
            return table_of(path, list(_squad_records(path, found)))
    if not isinstance(found, list) or not all(isinstance(record, dict) for record in found):
        raise ValueError(f'{path}: wanted a list of objects, or SQuAD\'s {{"data": [{{"paragraphs": ...}}]}}.')
    return table_of(path, [(f"object {number}", record) for number, record in enumerate(found, start=1)])


def read_parquet(path: Path) -> Table:
    """A Parquet file; of integers that stand for names, the names that Hugging Face's `datasets` wrote into it.

    Raises:
        ModuleNotFoundError: without pyarrow, the extra [parquet].
        ValueError: for what is no Parquet file.
    """
    needs("Reading a Parquet file", "pyarrow")
    from pyarrow import ArrowException, parquet

    try:
        table = parquet.read_table(path)
    except (ArrowException, OSError) as error:
        raise ValueError(f"{path} is no Parquet file that can be read ({error}).") from error
    if not table.num_rows:
        raise ValueError(f"{path} has no rows.")
    stated = json.loads((table.schema.metadata or {}).get(b"huggingface", b"{}"))
    features = stated.get("info", {}).get("features", {})
    names = {column: found for column, feature in features.items() if (found := _class_names(feature))}
    places = [f"row {row}" for row in range(1, table.num_rows + 1)]
    return Table(str(path), places, {name: table.column(name).to_pylist() for name in table.column_names}, names)


def _class_names(feature) -> list[str] | None:
    """The names of a stored feature's classes, also where it is a list of them."""
    while isinstance(feature, dict) and "names" not in feature:
        feature = feature.get("feature")
    while isinstance(feature, list) and feature:
        feature = feature[0]
    return list(feature["names"]) if isinstance(feature, dict) and isinstance(feature["names"], list) else None


def _delimited(path: Path, options: dict) -> Iterator[tuple[str, dict]]:
    csv.field_size_limit(2**31 - 1)  # texts are longer than the 131,072 characters that csv allows by default
    # Not splitlines: it would also break lines at characters that are legal inside a text.
    reader = csv.reader(io.StringIO(read_utf8(path), newline=""), **options)
    try:
        header = next(reader, None)
        if header is None:
            raise ValueError(f"{path} is empty: its first line must name the columns, such as text,label.")
        for name in header:
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
            yield f"line {reader.line_num}", dict(zip(header, fields, strict=True))
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


def _squad_records(path: Path, articles: list[dict]) -> Iterator[tuple[str, dict]]:
    """Rajpurkar et al., 2016 (arXiv:1606.05250) and 2018 (arXiv:1806.03822)."""
    for number, article in enumerate(articles, start=1):
        place = f"article {number}"
        try:
            for paragraph in article["paragraphs"]:
                for question in paragraph["qas"]:
                    place = f"question {question.get('id', question['question'])!r}"
                    answers = [] if question.get("is_impossible") else question["answers"]
                    yield (
                        place,
                        {
                            "question": question["question"],
                            "context": paragraph["context"],
                            "answers": {key: [answer[key] for answer in answers] for key in ("text", "answer_start")},
                        },
                    )
        except (KeyError, TypeError) as error:
            raise ValueError(f"{path}, {place}: it is not as SQuAD has it ({error!r}).") from error
