"""Metadata as a reader other than ours sees it: offsets walked by hand, zip by the standard library."""

import functools
import io
import json
import zipfile

import flatbuffers
import litert_files
import pytest
from export_cases import backbone, perturb

from tfxformer import export, tasks
from tfxformer.runtime.format import flatbuffer, metadata

SMALL = functools.partial(backbone, encoder__num_layers=1)


def field(table, slot):
    """Absolute position of a field, 0 where absent."""
    offset = table.Offset(4 + 2 * slot)
    return offset + table.Pos if offset else 0


def child(table, slot):
    return flatbuffers.table.Table(table.Bytes, table.Indirect(field(table, slot)))


def children(table, slot):
    vector = table.Vector(field(table, slot) - table.Pos)
    count = table.VectorLen(field(table, slot) - table.Pos)
    return [flatbuffers.table.Table(table.Bytes, table.Indirect(vector + 4 * i)) for i in range(count)]


def string(table, slot):
    return table.String(field(table, slot)).decode()


def byte(table, slot):
    return table.Get(flatbuffers.number_types.Uint8Flags, field(table, slot))


@pytest.fixture(scope="module")
def content():
    path, report = litert_files.exported("dynamic_int8", 48)
    assert report.mediapipe
    return path.read_bytes()


def test_mediapipe_table(content):
    data = flatbuffer.get_metadata(flatbuffer.read(content), "TFLITE_METADATA")
    assert data[4:8] == b"M001"
    start = flatbuffers.encode.Get(flatbuffers.packer.uoffset, data, 0)
    model = flatbuffers.table.Table(data, start)
    (graph,) = children(model, 3)
    names = [string(tensor, 0) for tensor in children(graph, 2)]
    interpreter_order = [tensor.name for tensor in first_inputs(content)]
    expected = {"token_ids": "ids", "padding_mask": "mask", "segment_ids": "segment_ids"}
    assert names == [expected[name] for name in interpreter_order]
    (output,) = children(graph, 3)
    assert string(output, 0) == "probabilities"
    (labels,) = children(output, 6)
    assert (string(labels, 0), byte(labels, 2)) == ("labels.txt", 2)  # TENSOR_AXIS_LABELS
    (unit,) = children(graph, 5)
    assert byte(unit, 0) == 4  # BertTokenizerOptions
    (vocabulary,) = children(child(unit, 1), 0)
    assert (string(vocabulary, 0), byte(vocabulary, 2)) == ("vocab.txt", 5)  # VOCABULARY


def first_inputs(content):
    model = flatbuffer.read(content)
    graph, definition = model.subgraphs[0], model.signatureDefs[0]
    keys = {int(entry.tensorIndex): flatbuffer.text(entry.name) for entry in definition.inputs}
    return [flatbuffer.tensor_info(graph.tensors[i], keys[int(i)]) for i in graph.inputs]


def test_associated_files(classifier, content):
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert all(info.compress_type == zipfile.ZIP_STORED for info in archive.infolist())
        assert archive.read("labels.txt").decode().splitlines() == classifier.labels
        assert archive.read("vocab.txt").decode().splitlines() == classifier.tokenizer.vocabulary()
        assert json.loads(archive.read("tokenizer.json")) == json.loads(classifier.tokenizer.to_json())
    assert set(metadata.associated_files(content)) == {"labels.txt", "vocab.txt", "tokenizer.json"}


def test_own_entry(classifier, content):
    own = json.loads(flatbuffer.get_metadata(flatbuffer.read(content), "tfxformer"))
    assert own["labels"] == classifier.labels
    assert own["signatures"] == {"classify": 48}
    assert own["quantization"] == "dynamic_int8"


def test_one_output_for_mediapipe(content):
    info = flatbuffer.signatures(flatbuffer.read(content))["classify"]
    assert [tensor.name for tensor in info.outputs] == ["probabilities"]


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (
            lambda t: tasks.TokenClassifier(SMALL(), ["O", "X"], tokenizer=t),
            "classification and embedding only",
        ),
        (lambda t: tasks.TextClassifier(SMALL("distilbert-base"), ["a", "b"], tokenizer=t), "segment ids"),
        (
            lambda t: tasks.TextClassifier(SMALL(), ["a"], "regression", tokenizer=t),
            "no task for regression",
        ),
        (lambda t: tasks.TextClassifier(SMALL(), ["a", "b"]), "no tokenizer"),
    ],
)
def test_what_mediapipe_cannot_open_is_a_plain_file(tokenizer, tmp_path, make, reason):
    report = export.export_litert(perturb(make(tokenizer)), tmp_path / "model.tflite", "float32", sequence_length=16)
    assert not report.mediapipe
    assert reason in report.mediapipe_reason
    assert flatbuffer.get_metadata(flatbuffer.read((tmp_path / "model.tflite").read_bytes()), "TFLITE_METADATA") is None
