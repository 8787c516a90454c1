"""Reading and editing .tflite files, judged by LiteRT's own interpreter."""

import litert_files
import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter

from tfxformer.runtime.format import flatbuffer


@pytest.fixture(scope="module")
def content():
    return litert_files.exported("float32", 16, 48)[0].read_bytes()


def outputs(content, signature="classify_16"):
    runner = Interpreter(model_content=content).get_signature_runner(signature)
    ids = np.arange(16, dtype="int32")[None]
    return runner(token_ids=ids, padding_mask=np.ones_like(ids), segment_ids=np.zeros_like(ids))


def test_round_trip_keeps_the_numbers_and_aligns_the_buffers(content):
    written = flatbuffer.write(flatbuffer.read(content))
    wanted, got = outputs(content), outputs(written)
    assert all(np.array_equal(wanted[name], got[name]) for name in wanted)
    start = np.frombuffer(written, np.uint8).ctypes.data
    model = flatbuffer.read(written)
    positions = [
        buffer.data.ctypes.data - start for buffer in model.buffers if buffer.data is not None and buffer.data.size
    ]
    # Offsets count from the end of the builder, which is where the file's alignment is anchored.
    assert {position % 16 for position in positions} == {0}


@pytest.mark.parametrize("reading", [flatbuffer.read, flatbuffer.outline])
def test_signatures_as_the_interpreter_sees_them(content, reading):
    found = flatbuffer.signatures(reading(content))
    listed = Interpreter(model_content=content).get_signature_list()
    assert {name: sorted(t.name for t in info.inputs) for name, info in found.items()} == {
        name: sorted(entry["inputs"]) for name, entry in listed.items()
    }
    assert {t.name: t.shape for t in found["classify_48"].outputs} == {
        "logits": (1, 3),
        "probabilities": (1, 3),
    }
    assert {t.dtype for t in found["classify_48"].inputs} == {"int32"}


def test_constants_are_counted_once(content):
    model = flatbuffer.read(content)
    graphs = [info.subgraph for info in flatbuffer.signatures(model).values()]
    shared = flatbuffer.constant_buffers(model, graphs[0]) & flatbuffer.constant_buffers(model, graphs[1])
    one = flatbuffer.constant_bytes(model, graphs[0])
    assert sum(model.buffers[i].data.size for i in shared) > 0.9 * one
    assert sum(flatbuffer.bytes_by_type(model).values()) < 1.2 * one


def test_kept_signature_runs_alone(content):
    model = flatbuffer.read(content)
    flatbuffer.keep_signature(model, "classify_16")
    alone = flatbuffer.write(model)
    assert list(Interpreter(model_content=alone).get_signature_list()) == ["classify_16"]
    assert np.array_equal(outputs(alone)["logits"], outputs(content)["logits"])


def test_dropped_output_changes_nothing_else(content):
    model = flatbuffer.read(content)
    flatbuffer.drop_output(model, "classify_16", "logits")
    got = outputs(flatbuffer.write(model))
    assert set(got) == {"probabilities"}
    assert np.array_equal(got["probabilities"], outputs(content)["probabilities"])


def test_double_constants_become_one(content):
    model = flatbuffer.read(content)
    tensor = next(t for t in model.subgraphs[0].tensors if model.buffers[t.buffer].data is not None)
    model.buffers.append(flatbuffer.AlignedBuffer(model.buffers[tensor.buffer].data.copy()))
    tensor.buffer = len(model.buffers) - 1
    assert flatbuffer.share_buffers(model) >= model.buffers[tensor.buffer].data.size
    assert np.array_equal(outputs(flatbuffer.write(model))["logits"], outputs(content)["logits"])


def test_embedding_lookup_gives_the_same_rows(content):
    model = flatbuffer.read(content)
    count = flatbuffer.gather_to_embedding_lookup(model)
    if count == 0:
        pytest.fail("no GATHER was rewritten: the lookups must have ids of rank one")
    written = flatbuffer.write(model)
    assert flatbuffer.operators(flatbuffer.read(written))["EMBEDDING_LOOKUP"] == count
    np.testing.assert_allclose(outputs(written)["logits"], outputs(content)["logits"], atol=1e-5)


def test_metadata_is_replaced_not_doubled(content):
    model = flatbuffer.read(content)
    for value in (b"one", b"two"):
        flatbuffer.set_metadata(model, "note", value)
    again = flatbuffer.read(flatbuffer.write(model))
    assert flatbuffer.get_metadata(again, "note") == b"two"
    assert flatbuffer.get_metadata(flatbuffer.outline(flatbuffer.write(again)), "note") == b"two"
    assert flatbuffer.get_metadata(again, "absent") is None
    assert sum(flatbuffer.text(entry.name) == "note" for entry in again.metadata) == 1


@pytest.mark.parametrize("junk", [b"", b"PK\x03\x04 a zip is not it", b"\x00" * 64])
def test_other_files_are_refused(junk):
    with pytest.raises(ValueError, match=r"no \.tflite file"):
        flatbuffer.read(junk)
