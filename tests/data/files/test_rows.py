"""Data files: what is read, and that each complaint names its line and column."""

import csv
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfxformer.data.files import rows as files

TASK = "text-classification"
TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), min_size=1, max_size=30)


@settings(max_examples=60, deadline=None)
@given(rows=st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=5))
def test_csv_and_jsonl_give_back_what_was_written(tmp_path_factory, rows):
    folder = tmp_path_factory.mktemp("data")
    with (folder / "a.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([("text", "label"), *rows])
    with (folder / "a.jsonl").open("w", encoding="utf-8", newline="") as file:
        file.writelines(json.dumps({"text": text, "label": label}) + "\n" for text, label in rows)
    for name in ("a.csv", "a.jsonl"):
        read = files.read_rows(folder / name, TASK)
        assert list(zip(read.texts, read.labels, strict=True)) == rows


def test_tsv_keeps_quotes_and_a_byte_order_mark_is_no_column(tmp_path):
    path = tmp_path / "a.tsv"
    path.write_bytes('\ufefftext\tlabel\r\n"he said\tyes\r\n'.encode())
    rows = files.read_rows(path, TASK)
    assert (rows.texts, rows.labels) == (['"he said'], ["yes"])


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.csv", b"", "is empty"),
        ("a.csv", b"text,label\n", "has no rows"),
        ("a.csv", b"texts,label\na,b\n", "no column 'text'; there is 'texts', 'label'"),
        ("a.csv", b"text\na\n", "no column 'label'"),
        ("a.csv", b"text,text,label\na,b,c\n", "line 1: column 'text' comes twice"),
        ("a.csv", b"text,label\na,b\nc,d,e\n", "line 3: 3 fields for the 2 columns"),
        ("a.csv", b"text,label\na,b\nc,\n", "line 3, column 'label': it is empty"),
        ("a.csv", b'text,label\n"a\nb",c\n,d\n', "line 4, column 'text': it is empty"),
        ("a.csv", b'text,label\n"a"b,c\n', "line 2"),
        ("a.csv", b"text,label\na,b\n\xff,c\n", "line 3: byte 0xff is not UTF-8"),
        ("a.jsonl", b'{"text": "a", "label": "b"}\n{"text"\n', "line 2: it is not JSON"),
        ("a.jsonl", b"[1]\n", "line 1: wanted an object"),
        ("a.jsonl", b'{"text": "a", "label": 1}\n\n{"text": 2, "label": 1}', "line 3, column 'text': wanted"),
        ("a.jsonl", b'{"text": "a", "label": 1}\n{"text": "b"}\n', "line 2, column 'label': it is missing"),
        ("a.xlsx", b"", "ends in .csv, .tsv, .jsonl"),
    ],
)  # fmt: skip
def test_complaints_name_line_and_column(tmp_path, name, content, said):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ValueError) as caught:
        files.read_rows(path, TASK)
    assert said in str(caught.value)
    assert name in str(caught.value)


def jsonl(tmp_path, *records, task=TASK):
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(json.dumps(record) for record in records), encoding="utf-8")
    return files.read_rows(path, task, labelled="label" in records[0])


def test_sources_and_targets_are_columns_of_their_own(tmp_path):
    path = tmp_path / "a.tsv"
    path.write_text('source\tid\ttarget\na "b"\t1\tc\nd\t2\te\n', encoding="utf-8")
    rows = files.read_rows(path, "seq2seq-lm")
    assert (rows.texts, rows.labels, rows.pairs) == (['a "b"', "d"], ["c", "e"], None)
    assert rows.table.places == ["line 2", "line 3"]
    assert files.task_inputs(rows, "seq2seq-lm") == ['a "b"', "d"]
    assert files.task_targets(rows, "seq2seq-lm", None) == ["c", "e"]
    assert files.read_rows(path, "seq2seq-lm", labelled=False).labels is None
    path.write_text("source\ttarget\na\t\n", encoding="utf-8")
    with pytest.raises(ValueError, match="line 2, column 'target': it is empty"):
        files.read_rows(path, "seq2seq-lm")
    (tmp_path / "a.jsonl").write_text('{"source": "a", "target": ["b"]}', encoding="utf-8")
    with pytest.raises(ValueError, match="line 1, column 'target': wanted a string"):
        files.read_rows(tmp_path / "a.jsonl", "seq2seq-lm")
    with pytest.raises(ValueError, match="no column 'target'"):
        (tmp_path / "b.jsonl").write_text('{"source": "a", "text": "b"}', encoding="utf-8")
        files.read_rows(tmp_path / "b.jsonl", "seq2seq-lm")


def test_targets_take_the_form_that_the_task_wants(tmp_path):
    rows = jsonl(
        tmp_path, {"text": "a b", "label": "X Y"}, {"text": ["c"], "label": ["X"]}, task="token-classification"
    )
    assert files.task_inputs(rows, "token-classification") == [["a", "b"], ["c"]]
    assert files.task_targets(rows, "token-classification", None) == [["X", "Y"], ["X"]]
    rows = jsonl(tmp_path, {"text": "a", "text_pair": "b", "label": "0.5"}, task="text-embedding")
    assert files.task_inputs(rows, "text-embedding") == [("a", "b")]
    assert files.task_targets(rows, "text-embedding", None) == [0.5]
    rows = jsonl(tmp_path, {"text": "a", "label": ["x", 3]})
    assert files.task_targets(rows, "text-classification", "multi_label_classification") == [["x", "3"]]
    rows = jsonl(tmp_path, {"text": "q", "text_pair": "c", "label": None}, task="question-answering")
    assert files.task_targets(rows, "question-answering", None) == [None]


@pytest.mark.parametrize(
    ("record", "task", "problem_type", "said"),
    [
        ({"text": "a b", "label": "X"}, "token-classification", None, "1 labels for 2 words"),
        ({"text": "a", "label": "high"}, "text-classification", "regression", "wanted a number, got 'high'"),
        (
            {"text": "a", "label": "x"},
            "text-classification",
            "multi_label_classification",
            "wanted a JSON list",
        ),
        (
            {"text": "a", "label": ["x"]},
            "text-classification",
            "single_label_classification",
            "wanted one name",
        ),
    ],
)
def test_targets_of_another_kind_are_refused_by_line(tmp_path, record, task, problem_type, said):
    with pytest.raises(ValueError, match=f"line 1, column 'label': .*{said}"):
        files.task_targets(jsonl(tmp_path, record, task=task), task, problem_type)


def test_inputs_of_another_kind_are_refused(tmp_path):
    with pytest.raises(ValueError, match="line 1, column 'text': wanted a string, got \\["):
        jsonl(tmp_path, {"text": ["a"], "label": "x"})
    with pytest.raises(ValueError, match="no column 'text_pair'"):
        jsonl(tmp_path, {"text": "a", "label": None}, task="question-answering")


def test_label_names_sort_numbers_by_value_and_unknown_ones_are_refused(tmp_path):
    assert files.label_names(["10", "9", "b", ["a", "9"]]) == ["9", "10", "a", "b"]
    rows = jsonl(tmp_path, {"text": "a", "label": "x"}, {"text": "b", "label": "z"})
    with pytest.raises(ValueError, match="line 2, column 'label': 'z' is not among the labels x, y"):
        files.check_labels(rows, ["x", "z"], ["x", "y"])
