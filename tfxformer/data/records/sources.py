"""Where texts come from: files or any iterable, read in groups that are the same whoever reads them.

A group is about a megabyte of neighbouring documents. What becomes of a group depends on nothing outside it, so groups
can be worked on by any number of threads or machines. Of files the groups are known from their names and sizes alone:
a document belongs to the group where its first byte stands.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from tfxformer.text.inputs import check_unicode

GROUP = 1 << 20  # bytes of a group of files, characters of a group of an iterable
UNITS = ("line", "paragraph", "file")
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class Span(NamedTuple):
    """A stretch of a file: the documents that begin in it."""

    file: str
    begin: int
    end: int


def check_unit(documents: str) -> None:
    """Raises ValueError for what is not a way to tell documents apart."""
    if documents not in UNITS:
        raise ValueError(f"documents={documents!r}: a document is a {', a '.join(UNITS)}.")


def is_json_lines(file: str) -> bool:
    """Whether a file has an object a line."""
    return str(file).lower().endswith(".jsonl")


def plan(files: Iterable[tuple[str, int]], documents: str, group: int = GROUP) -> list[tuple[Span, ...]]:
    """The groups of files: (name, bytes) of each, in the order in which they are read.

    Args:
        documents: what a document is: "line", "paragraph" (paragraphs are parted by blank lines) or "file"; a file
            that ends in .jsonl has a document a line in any case.
    """
    groups, spans, room = [], [], group
    for file, size in files:
        whole, begin = documents == "file" and not is_json_lines(file), 0
        while begin < size:
            end = size if whole else min(size, begin + room)
            spans.append(Span(str(file), begin, end))
            room -= end - begin
            begin = end
            if room <= 0:
                groups.append(tuple(spans))
                spans, room = [], group
    return [*groups, tuple(spans)] if spans else groups


def local_sizes(files: Sequence[str | Path]) -> list[tuple[str, int]]:
    """(name, bytes) of files of this machine.

    Raises:
        FileNotFoundError, ValueError: for a file that is not there, or is a folder; or no file at all.
    """
    if not files:
        raise ValueError("There is no file to read.")
    for file in map(Path, files):
        if file.is_dir():
            raise ValueError(f"{file} is a folder: name the files in it.")
        if not file.is_file():
            raise FileNotFoundError(f"There is no file {str(file)!r}.")
    return [(str(file), Path(file).stat().st_size) for file in files]


def open_local(file: str) -> BinaryIO:
    """A file of this machine, opened to be read."""
    return Path(file).open("rb")


def read_group(spans: Iterable[Span], documents: str, field: str, opened: Callable[[str], BinaryIO]) -> list[str]:
    """The documents that begin in the spans of one group, but those without a character other than space.

    Args:
        field: of a .jsonl file's objects, the one that holds the text.
        opened: opens a file, to be read from any position.

    Raises:
        ValueError: naming file and line of bytes that are not UTF-8, and of lines that are not JSON or have no text.
    """
    texts = []
    for span in spans:
        with opened(span.file) as file:
            read = {"line": _lines, "paragraph": _paragraphs, "file": _whole}[
                "line" if is_json_lines(span.file) else documents
            ]
            for begin, content in read(file, span):
                if begin == 0 and content.startswith(_BYTE_ORDER_MARK):
                    begin, content = len(_BYTE_ORDER_MARK), content.removeprefix(_BYTE_ORDER_MARK)
                text = _decoded(file, span.file, begin, content)
                if is_json_lines(span.file) and text.strip():
                    text = _field(file, span.file, begin, text, field)
                if text and not text.isspace():
                    texts.append(text)
    return texts


def iterable_groups(source: Iterable, field: str, group: int = GROUP) -> Iterator[list[str]]:
    """The documents of an iterable of texts, or of mappings with a text each, in groups; it is read as they are taken.

    Raises:
        TypeError, ValueError: naming the number of an element that is no text.
    """
    if isinstance(source, Mapping) or hasattr(source, "columns"):
        raise TypeError(
            f"The source is a {type(source).__name__}, which gives its columns: pass one of them, or its rows as dicts."
        )
    texts, size = [], 0
    for index, element in enumerate(source):
        text = _text_of(element, index, field)
        if index == 0 and os.path.isfile(text):  # noqa: PTH113 - Path raises where a text is too long for a name
            raise ValueError(f"The first text is the name of a file, {text!r}: pass files as pathlib.Path.")
        if text and not text.isspace():
            texts.append(text)
            size += len(text)
        if size >= group:
            yield texts
            texts, size = [], 0
    if texts:
        yield texts


def _text_of(element: Any, index: int, field: str) -> str:
    where = f"Element {index} of the source"
    if isinstance(element, Mapping):
        if field not in element:
            raise ValueError(f"{where} has no field {field!r}; it has {', '.join(map(repr, element)) or 'none'}.")
        element, where = element[field], f"{where}, field {field!r},"
    if not isinstance(element, str):
        raise TypeError(f"{where} is {type(element).__name__}, not a text.")
    if not element.isascii():
        check_unicode(element, where)
    return element


def _lines(file: BinaryIO, span: Span) -> Iterator[tuple[int, bytes]]:
    """(where it begins, what it holds) of each line."""
    place = _first_line(file, span.begin)
    while place < span.end and (line := file.readline()):
        yield place, line.rstrip(b"\r\n")
        place += len(line)


def _paragraphs(file: BinaryIO, span: Span) -> Iterator[tuple[int, bytes]]:
    """The same of paragraphs: they begin after a blank line and end before one."""
    place = _first_line(file, span.begin)
    inside = place > 0 and not _blank_before(file, place)  # of one that is another group's
    file.seek(place)
    begin, lines = place, []
    while place < span.end or lines or inside:
        line = file.readline()
        if not line.strip():
            if lines:
                yield begin, b"".join(lines).rstrip(b"\r\n")
            lines, inside = [], False
            if not line or place >= span.end:
                return
        elif not inside:
            begin = begin if lines else place
            lines.append(line)
        elif place >= span.end:
            return
        place += len(line)


def _whole(file: BinaryIO, span: Span) -> Iterator[tuple[int, bytes]]:
    yield 0, file.read()


def _first_line(file: BinaryIO, begin: int) -> int:
    """Goes to the first line that begins at or after `begin`; where that is."""
    if not begin:
        return 0
    file.seek(begin - 1)
    return begin - 1 + len(file.readline())


def _blank_before(file: BinaryIO, place: int) -> bool:
    """Whether the line that ends where another one begins is blank."""
    size = 1 << 10
    while True:
        begin = max(0, place - size)
        file.seek(begin)
        content = file.read(place - begin)
        if not content.endswith(b"\n"):  # the end of a file without a last line break
            return False
        line = content[:-1].rsplit(b"\n", 1)[-1]
        if line.strip() or b"\n" in content[:-1] or begin == 0:
            return not line.removeprefix(_BYTE_ORDER_MARK).strip()
        size *= 4


def _decoded(file: BinaryIO, name: str, begin: int, content: bytes) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        place = begin + error.start
        raise ValueError(
            f"{name}, line {_line_number(file, place)}: byte {content[error.start]:#x} at {place:,} is not UTF-8."
        ) from error


def _field(file: BinaryIO, name: str, begin: int, line: str, field: str) -> str:
    """The text in a line of a .jsonl file."""

    def refuse(what: str) -> ValueError:
        return ValueError(f"{name}:{_line_number(file, begin)}: {what}.")

    try:
        row = json.loads(line)
    except ValueError as error:
        raise refuse(f"it is not JSON ({error})") from error
    if not isinstance(row, dict):
        raise refuse(f"wanted an object, got {line:.60}")
    if field not in row:
        raise refuse(f"there is no field {field!r}; there is {', '.join(map(repr, row)) or 'none'}")
    if not isinstance(row[field], str):
        raise refuse(f"the field {field!r} is no text but {json.dumps(row[field]):.60}")
    if "\\u" in line:  # JSON can escape half a character
        try:
            check_unicode(row[field], f"the field {field!r}")
        except ValueError as error:
            raise refuse(str(error)) from error
    return row[field]


def _line_number(file: BinaryIO, place: int) -> int:
    """Of the line that the byte at `place` stands in, from 1; only errors ask."""
    file.seek(0)
    number = 1
    while place > 0 and (content := file.read(min(place, 1 << 20))):
        number += content.count(b"\n")
        place -= len(content)
    return number
