"""Data files: what is read, and that each complaint names its line and column."""

import csv
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfxformer.data import tables

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
        read = tables.read_rows(folder / name, labelled=True)
        assert list(zip(read.texts, read.labels, strict=True)) == rows


def test_tsv_keeps_quotes_and_a_byte_order_mark_is_no_column(tmp_path):
    path = tmp_path / "a.tsv"
    path.write_bytes('\ufefftext\tlabel\r\n"he said\tyes\r\n'.encode())
    rows = tables.read_rows(path, labelled=True)
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
        tables.read_rows(path, labelled=True)
    assert said in str(caught.value)
    assert name in str(caught.value)


def jsonl(tmp_path, *records):
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(json.dumps(record) for record in records), encoding="utf-8")
    return tables.read_rows(path, labelled="label" in records[0])


def test_sources_and_targets_are_columns_of_their_own(tmp_path):
    path = tmp_path / "a.tsv"
    path.write_text('source\tid\ttarget\na "b"\t1\tc\nd\t2\te\n', encoding="utf-8")
    rows = tables.read_pairs(path)
    assert (rows.texts, rows.labels, rows.pairs, rows.lines) == (['a "b"', "d"], ["c", "e"], None, [2, 3])
    assert tables.task_inputs(rows, "seq2seq-lm") == ['a "b"', "d"]
    assert tables.task_targets(rows, "seq2seq-lm", None) == ["c", "e"]
    assert tables.read_pairs(path, targets=False).labels is None
    path.write_text("source\ttarget\na\t\n", encoding="utf-8")
    with pytest.raises(ValueError, match="line 2, column 'target': it is empty"):
        tables.read_pairs(path)
    (tmp_path / "a.jsonl").write_text('{"source": "a", "target": ["b"]}', encoding="utf-8")
    with pytest.raises(ValueError, match="line 1, column 'target': wanted a string"):
        tables.read_pairs(tmp_path / "a.jsonl")
    with pytest.raises(ValueError, match="no column 'target'"):
        (tmp_path / "b.jsonl").write_text('{"source": "a", "text": "b"}', encoding="utf-8")
        tables.read_pairs(tmp_path / "b.jsonl")


def test_targets_take_the_form_that_the_task_wants(tmp_path):
    rows = jsonl(tmp_path, {"text": "a b", "label": "X Y"}, {"text": ["c"], "label": ["X"]})
    assert tables.task_inputs(rows, "token-classification") == [["a", "b"], ["c"]]
    assert tables.task_targets(rows, "token-classification", None) == [["X", "Y"], ["X"]]
    rows = jsonl(tmp_path, {"text": "a", "text_pair": "b", "label": "0.5"})
    assert tables.task_inputs(rows, "text-embedding") == [("a", "b")]
    assert tables.task_targets(rows, "text-embedding", None) == [0.5]
    rows = jsonl(tmp_path, {"text": "a", "label": ["x", 3]})
    assert tables.task_targets(rows, "text-classification", "multi_label_classification") == [["x", "3"]]
    rows = jsonl(tmp_path, {"text": "q", "text_pair": "c", "label": None})
    assert tables.task_targets(rows, "question-answering", None) == [None]


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
        tables.task_targets(jsonl(tmp_path, record), task, problem_type)


def test_inputs_of_another_kind_are_refused(tmp_path):
    with pytest.raises(ValueError, match="line 1, column 'text': text-classification wants a string"):
        tables.task_inputs(jsonl(tmp_path, {"text": ["a"], "label": "x"}), "text-classification")
    with pytest.raises(ValueError, match="no column 'text_pair'"):
        tables.task_inputs(jsonl(tmp_path, {"text": "a", "label": None}), "question-answering")


def test_label_names_sort_numbers_by_value_and_unknown_ones_are_refused(tmp_path):
    assert tables.label_names(["10", "9", "b", ["a", "9"]]) == ["9", "10", "a", "b"]
    rows = jsonl(tmp_path, {"text": "a", "label": "x"}, {"text": "b", "label": "z"})
    with pytest.raises(ValueError, match="line 2, column 'label': 'z' is not among the labels x, y"):
        tables.check_labels(rows, ["x", "z"], ["x", "y"])
