"""Documents out of files and iterables: each once, whatever the groups are, and damage is told with its place."""

import io
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfxformer.data.records import sources
from tfxformer.data.records.sources import Span

PIECES = st.lists(
    st.sampled_from(["a", "bb c", "é", "猫", " ", "\t", "\n", "\n\n", "\r\n", "\n \n", "long " * 9]), max_size=25
)


def read(contents, documents, group, field="text", suffix=".txt"):
    """The documents of some files, group by group."""
    files = {f"{index}{suffix}": content for index, content in enumerate(contents)}
    groups = sources.plan([(name, len(content)) for name, content in files.items()], documents, group)
    return [sources.read_group(spans, documents, field, lambda name: io.BytesIO(files[name])) for spans in groups]


def flat(groups):
    return [text for group in groups for text in group]


def visible(texts):
    return [text for text in texts if text.strip()]


@settings(max_examples=150, deadline=None)
@given(st.lists(PIECES, max_size=3), st.integers(1, 60))
def test_every_document_comes_once_whatever_the_groups_are(parts, group):
    """A second way: the whole text, split by regular expressions."""
    texts = ["".join(some) for some in parts]
    contents = [text.encode() for text in texts]
    lines = [re.sub(r"[\r\n]+$", "", line) for text in texts for line in text.split("\n")]
    assert flat(read(contents, "line", group)) == visible(lines)
    blank = re.compile(r"(?:^|(?<=\n))[ \t\r]*(?:\n|\Z)")  # the lines that part paragraphs
    paragraphs = [re.sub(r"[\r\n]+$", "", part) for text in texts for part in blank.sub("\0", text).split("\0")]
    assert flat(read(contents, "paragraph", group)) == visible(paragraphs)
    assert flat(read(contents, "file", group)) == visible(texts)


@given(st.lists(st.integers(0, 50), max_size=8), st.integers(1, 40))
def test_groups_cover_all_files_evenly(sizes, group):
    groups = sources.plan([(str(i), size) for i, size in enumerate(sizes)], "line", group)
    covered = [(span.file, byte) for spans in groups for span in spans for byte in range(span.begin, span.end)]
    assert covered == [(str(i), byte) for i, size in enumerate(sizes) for byte in range(size)]
    found = [sum(span.end - span.begin for span in spans) for spans in groups]
    assert all(size == group for size in found[:-1]) and all(0 < size <= group for size in found)


def test_small_files_share_a_group_and_large_ones_are_whole():
    assert sources.plan([("a", 4), ("b", 9), ("c", 1), ("d", 3)], "file", 5) == [
        (Span("a", 0, 4), Span("b", 0, 9)),
        (Span("c", 0, 1), Span("d", 0, 3)),
    ]


def test_a_byte_order_mark_is_no_character():
    for documents in sources.UNITS:
        assert flat(read([b"\xef\xbb\xbfone"], documents, 100)) == ["one"]


def test_long_blank_lines_are_looked_back_over():
    content = b"one\n" + b" " * 5000 + b"\ntwo"
    assert flat(read([content], "paragraph", 5005)) == ["one", "two"]
    assert flat(read([b"x" * 5000 + b"\ntwo"], "paragraph", 5001)) == ["x" * 5000 + "\ntwo"]


@pytest.mark.parametrize("group", [7, 1000])
def test_json_lines_give_their_field(group):
    content = b'{"text": "one"}\n\n{"text": "", "n": 1}\n{"text": "two\\nlines \\u00e9"}\r\n'
    assert flat(read([content], "paragraph", group, suffix=".jsonl")) == ["one", "two\nlines é"]
    assert flat(read([b'{"a": "b"}'], "line", group, "a", ".JSONL")) == ["b"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"other": "x"}', r"^0.jsonl:3: there is no field 'text'; there is 'other'\.$"),
        (b"{}", "there is none"),
        (b'{"text": 5}', "0.jsonl:3: the field 'text' is no text but 5"),
        (b"[1]", "0.jsonl:3: wanted an object, got"),
        (b'{"text', "0.jsonl:3: it is not JSON"),
        (b'{"text": "\\ud800"}', "0.jsonl:3: the field 'text' holds a lone surrogate"),
        (b'{"text": "\xe9"}', "0.jsonl, line 3: byte 0xe9 at 42 is not UTF-8"),
    ],
)
def test_a_bad_line_is_named(line, message):
    with pytest.raises(ValueError, match=message):
        read([b'{"text": "one"}\n{"text": "two"}\n' + line + b'\n{"text": "x"}\n'], "line", 20, suffix=".jsonl")


@pytest.mark.parametrize("documents", sources.UNITS)
def test_bytes_that_are_no_text_are_named(documents):
    with pytest.raises(ValueError, match=r"0.txt, line 3: byte 0xff at 10 is not UTF-8\."):
        read([b"ab\ncd\nefg \xff"], documents, 4)


def test_iterables_are_read_as_they_are_taken():
    taken = []

    def texts():
        for i in range(10**9):
            taken.append(i)
            yield {"text": "four", "id": i} if i % 2 else "4444"

    groups = sources.iterable_groups(texts(), "text", 12)
    assert next(groups) == ["4444", "four", "4444"] and len(taken) == 3
    assert [list(part) for part in sources.iterable_groups(["a", " ", "", "b"], "text", 9)] == [["a", "b"]]
    assert list(sources.iterable_groups([], "text")) == []


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        (["a", 5], TypeError, "Element 1 of the source is int, not a text"),
        ([b"a"], TypeError, "Element 0 of the source is bytes"),
        ([{"text": None}], TypeError, "Element 0 of the source, field 'text', is NoneType"),
        ([{"body": "a"}], ValueError, "Element 0 of the source has no field 'text'; it has 'body'"),
        (["é\ud800"], ValueError, "Element 0 of the source holds a lone surrogate"),
        ({"text": ["a"]}, TypeError, "The source is a dict, which gives its columns"),
        ([__file__], ValueError, "is the name of a file.* pass files as pathlib.Path"),
    ],
)
def test_elements_that_are_no_text_are_named(source, error, message):
    with pytest.raises(error, match=message):
        list(sources.iterable_groups(source, "text"))


def test_files_that_are_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"There is no file .*absent\.txt"):
        sources.local_sizes([tmp_path / "absent.txt"])
    with pytest.raises(ValueError, match="is a folder: name the files in it"):
        sources.local_sizes([tmp_path])
    with pytest.raises(ValueError, match="There is no file to read"):
        sources.local_sizes([])
    with pytest.raises(ValueError, match="documents='word': a document is a line, a paragraph, a file"):
        sources.check_unit("word")
