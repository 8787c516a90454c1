"""Bounds of LiteRT files: damaged, cut off, hostile or other files, and inputs out of range, are refused by name."""

import json
import subprocess
import sys
import tracemalloc
import zipfile

import flatbuffers
import keras
import litert_files
import numpy as np
import pytest
import tiny
from ai_edge_litert import schema_py_generated as schema
from export_cases import keras_probabilities
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from litert_files import as_written_by_0_4_0

from tfxformer import export, tasks
from tfxformer.runtime.format import flatbuffer, metadata

# Opens damaged copies of a file, and says of each "refused", "same" or what it answered else.
DAMAGE = """
import collections, json, sys, warnings
import numpy as np
from tfxformer import export

path, damaged, count, seed = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
warnings.simplefilter("ignore")
content = open(path, "rb").read()
decoder = "decoder" in path

def answer(path):
    if decoder:
        return export.LiteRTGenerator(path, num_threads=1).generate("good film", 6)
    return export.LiteRTModel(path, num_threads=1).predict(["good film"]).tolist()

wanted, found = answer(path), collections.Counter()
random = np.random.default_rng(seed)
for turn in range(count):
    changed = bytearray(content)
    if turn % 4 == 0:
        del changed[random.integers(len(content)):]
    else:  # half of the flips where the tables and our entry are
        place = random.integers(len(content) if turn % 2 else 8000)
        changed[place] ^= 1 << int(random.integers(8))
    with open(damaged, "wb") as file:
        file.write(changed)
    try:
        found["same" if answer(damaged) == wanted else "changed"] += 1
    except ValueError as error:
        found["refused" if damaged in str(error) else f"without the name: {error}"] += 1
    except Exception as error:
        found[repr(error)] += 1
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def path():
    return litert_files.classifier("float32")


@pytest.fixture(scope="module")
def model(path):
    return export.LiteRTModel(path)


def batch(**changes):
    ids = np.ones((1, litert_files.LENGTH), np.int32)
    inputs = {"token_ids": 5 * ids, "padding_mask": ids, "segment_ids": 0 * ids, **changes}
    return {name: value for name, value in inputs.items() if value is not None}


def with_member(path, name, data, compression=zipfile.ZIP_DEFLATED):
    """Adds a file to the zip at the end of a file."""
    with zipfile.ZipFile(path, "a", compression) as archive:
        archive.writestr(name, data)


@pytest.mark.parametrize(
    ("kind", "flips"),
    [
        ("float32", 100),
        ("decoder", 100),
        pytest.param("bundle", 100, marks=pytest.mark.extra),
        *(pytest.param(kind, 500, marks=pytest.mark.slow) for kind in ("float32", "dynamic_int8", "decoder")),
        pytest.param("bundle", 500, marks=[pytest.mark.extra, pytest.mark.slow]),
    ],
)
def test_bit_flips_and_truncations_of_our_files(tmp_path, kind, flips):
    """Refused by name, or the same answer; a signal would end the child with a negative code."""
    if kind == "bundle":
        pytest.importorskip("litert_lm_builder", reason="needs the extra [litertlm]")
    files = {"decoder": litert_files.decoder, "bundle": litert_files.bundle}
    path = files[kind]() if kind in files else litert_files.classifier(kind)
    command = [sys.executable, "-c", DAMAGE, path, tmp_path / f"damaged{path.suffix}", str(flips), "7"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert set(found) <= {"refused", "same"}
    assert sum(found.values()) == flips
    assert found["refused"] > 0.95 * flips


def test_truncated_tflite_is_refused_by_name(path, tmp_path):
    content = path.read_bytes()
    for count in (0, 3, 7, 8, 20, 100, 5000, len(content) // 2, len(content) - 1):
        for name, cut in (("ours", content[:count]), ("older", as_written_by_0_4_0(content)[:count])):
            if name == "older" and count == len(content) - 1:
                continue  # the end of an older zip: tested below
            (tmp_path / "cut.tflite").write_bytes(cut)
            for opened in (export.LiteRTModel, export.LiteRTGenerator, export.inspect):
                with pytest.raises(ValueError, match=r"cut\.tflite"):
                    opened(tmp_path / "cut.tflite")


def test_tflite_whose_zip_inflates_to_2_5_gb(path, tmp_path):
    """Of the zip, only the tokenizer is read, and that only to a bound."""
    content = as_written_by_0_4_0(path.read_bytes())
    other = tmp_path / "other.tflite"
    other.write_bytes(content)
    with_member(other, "not_wanted.bin", bytes(64 * 2**20))
    tracemalloc.start()
    assert export.LiteRTModel(other).predict(["good film"]).shape == (1, 3)
    assert "not_wanted.bin" in export.inspect(other).files
    assert tracemalloc.get_traced_memory()[1] < 32 * 2**20
    tracemalloc.stop()

    bomb = tmp_path / "bomb.tflite"
    with zipfile.ZipFile(path) as archive:
        bomb.write_bytes(content[: min(entry.header_offset for entry in archive.infolist())])
    with_member(bomb, metadata.TOKENIZER, "{}")
    claimed = bytearray(bomb.read_bytes())
    place = claimed.rindex(b"PK\x01\x02") + 24  # the size in the zip's list of files
    claimed[place : place + 4] = (2_500_000_000).to_bytes(4, "little")
    bomb.write_bytes(claimed)
    with pytest.raises(ValueError, match=r"bomb\.tflite.*inflates to 2,500,000,000 bytes"):
        export.LiteRTModel(bomb)
    claimed[place : place + 4] = (1).to_bytes(4, "little")  # less than it has: the checksum of its bytes tells
    bomb.write_bytes(claimed)
    with pytest.raises(ValueError, match=r"bomb\.tflite.*tokenizer\.json is damaged"):
        export.LiteRTModel(bomb)


def test_files_of_0_4_0_open_without_a_digest(path, tmp_path):
    """They answer as Keras does (float32: 1e-5)."""
    (tmp_path / "older.tflite").write_bytes(as_written_by_0_4_0(path.read_bytes()))
    found = export.LiteRTModel(tmp_path / "older.tflite").predict(["good film", "what a bad film"])
    wanted = keras_probabilities(litert_files.task(), ["good film", "what a bad film"], litert_files.LENGTH)
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_a_file_that_lost_its_digest_is_refused(path, tmp_path):
    changed = path.read_bytes().replace(b"tfxformer-sha256:", b"tfxformer-sha257:")
    (tmp_path / "changed.tflite").write_bytes(changed)
    with pytest.raises(ValueError, match=r"changed\.tflite.*sha256 is gone"):
        export.LiteRTModel(tmp_path / "changed.tflite")


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True, database=None)
@given(st.data())
def test_reading_any_bytes_ends_in_a_model_or_a_valueerror(data):
    """Without a digest: what our own reader makes of flips and cuts, before LiteRT sees them."""
    content = bytearray(as_written_by_0_4_0(litert_files.classifier("float32").read_bytes()))
    end = data.draw(st.one_of(st.just(len(content)), st.integers(0, len(content))))
    for _ in range(data.draw(st.integers(0, 8))):
        place = data.draw(st.one_of(st.integers(0, 6000), st.integers(0, len(content) - 1)))
        content[place] = data.draw(st.integers(0, 255))
    try:
        model = flatbuffer.read(bytes(content[:end]))
        flatbuffer.signatures(model)
        flatbuffer.operators(model)
        flatbuffer.bytes_by_type(model)
        for graph in range(len(model.subgraphs)):
            flatbuffer.constant_bytes(model, graph)
        metadata.associated_files(bytes(content[:end]))
    except ValueError as error:
        assert str(error)


def test_tables_that_are_named_again_and_again_are_refused():
    """A vector of 4,000 times the same subgraph, whose tensors are 4,000 times the same: 16 million tables to read."""
    builder, count = flatbuffers.Builder(1024), 4000

    def vector(item, times):
        builder.StartVector(4, times, 4)
        for _ in range(times):
            builder.PrependUOffsetTRelative(item)
        return builder.EndVector()

    tensors = vector(schema.TensorT().Pack(builder), count)
    schema.SubGraphStart(builder)
    schema.SubGraphAddTensors(builder, tensors)
    graphs = vector(schema.SubGraphEnd(builder), count)
    buffers = vector(schema.BufferT().Pack(builder), 1)
    schema.ModelStart(builder)
    schema.ModelAddSubgraphs(builder, graphs)
    schema.ModelAddBuffers(builder, buffers)
    builder.Finish(schema.ModelEnd(builder), b"TFL3")
    with pytest.raises(ValueError, match="more tables than bytes"):
        flatbuffer.read(bytes(builder.Output()))


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        (b"", ValueError, "is empty"),
        (b"<!DOCTYPE html><html>404</html>", ValueError, "no .tflite file: it begins with b'<!DOCTYP'"),
        (b"version https://git-lfs.github.com/spec/v1\n", ValueError, "no .tflite file"),
        (b"\x1c\x00\x00\x00TFL3" + bytes(100), ValueError, "damaged or cut off"),
        (b"LITERTLM" + bytes(100), ValueError, "model.tflite cannot be opened"),
        (None, IsADirectoryError, "is a folder"),
    ],
)
def test_what_is_no_model(tmp_path, content, error, message):
    path = tmp_path / "model.tflite"
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content)
    for opened in (export.LiteRTModel, export.LiteRTGenerator, export.inspect):
        with pytest.raises(error, match=r"model\.tflite") as found:
            opened(path)
        assert message in str(found.value)


def test_a_model_of_another_maker_runs_on_arrays(tmp_path):
    """What Keras says, as an independent source; NaN is refused, what float32 cannot hold too."""
    import tensorflow as tf

    inputs = keras.Input((4,), name="features")
    plain = keras.Model(inputs, keras.layers.Dense(3)(inputs))
    path = tmp_path / "foreign.tflite"
    path.write_bytes(tf.lite.TFLiteConverter.from_keras_model(plain).convert())
    model = export.LiteRTModel(path)
    name = model.signatures["serving_default"].inputs[0].name
    features = np.arange(4, dtype="float32")[None]
    (found,) = model.run("serving_default", {name: features.astype("float64")}).values()
    np.testing.assert_allclose(found, plain(features), atol=1e-5)
    for bad, message in ((np.full((1, 4), np.nan), "NaN"), (np.full((1, 4), 1e300), "too large for float32")):
        with pytest.raises(ValueError, match=message):
            model.run("serving_default", {name: bad})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"token_ids": np.full((1, 16), -1)}, "holds -1; the model takes 0 to 399"),
        ({"token_ids": np.full((1, 16), 400)}, "holds 400; the model takes 0 to 399"),
        ({"token_ids": np.full((1, 16), 400, np.int32)}, "holds 400; the model takes 0 to 399"),
        ({"token_ids": np.full((1, 16), 2**33 + 5)}, "holds 8589934597"),
        ({"token_ids": np.full((1, 16), 2**63, np.uint64)}, "holds 9223372036854775808"),
        ({"token_ids": np.full((1, 16), 5.7)}, "is float64, such as 5.7"),
        ({"token_ids": np.full((1, 16), np.nan)}, "is float64, such as nan"),
        ({"token_ids": np.full((1, 16), "good")}, "is <U4"),
        ({"padding_mask": np.full((1, 16), 2)}, "'padding_mask' holds 2; the model takes 0 to 1"),
        ({"segment_ids": np.full((1, 16), 2)}, "'segment_ids' holds 2; the model takes 0 to 1"),
        ({"token_ids": np.ones((2, 16), int)}, r"shape \[2, 16\], the signature takes \[1, 16\]"),
        ({"token_ids": np.ones((1, 17), int)}, r"shape \[1, 17\], the signature takes \[1, 16\]"),
        ({"token_ids": np.ones(16, int)}, r"shape \[16\], the signature takes \[1, 16\]"),
        ({"segment_ids": None}, "wants 'segment_ids'"),
        ({"tokens": np.ones((1, 16), int)}, "has no input 'tokens': its inputs are"),
        ({"input_ids": np.ones((1, 16), int)}, "'token_ids' twice, once by transformers' name"),
    ],
)
def test_run_refuses(model, changes, message):
    with pytest.raises(ValueError, match=message):
        model.run("classify", batch(**changes))


def test_run_takes_a_name_and_a_dict(model):
    with pytest.raises(ValueError, match=r"A batch is a dict of arrays by name .*, not None"):
        model.run("classify", None)
    with pytest.raises(ValueError, match=r"has no signature \{'token_ids'"):
        model.run(batch(), "classify")


def test_run_takes_integers_of_any_kind(model):
    wanted = model.run("classify", batch())["probabilities"]
    ids = np.full((1, 16), 5)
    wide = np.full((1, 32), 5, np.int32)[:, ::2]  # not contiguous
    for same in (ids.astype(np.int64), ids.astype(np.uint8), ids.tolist(), np.asfortranarray(ids), wide):
        np.testing.assert_array_equal(model.run("classify", batch(token_ids=same))["probabilities"], wanted)
    truth = np.ones((1, 16), bool)
    np.testing.assert_array_equal(model.run("classify", batch(padding_mask=truth))["probabilities"], wanted)


def test_token_ids_of_a_generator():
    generator = export.LiteRTGenerator(litert_files.decoder())
    for bad in (-1, 400, 2**33 + 5, 5.7, np.nan, "a", True):
        with pytest.raises(ValueError, match="no token id: they are integers from 0 to 399"):
            generator.generate_ids([5, bad], 2)
        with pytest.raises(ValueError, match=r"integers from 0|no token id"):
            generator.steps().decode(bad)
    with pytest.raises(ValueError, match="no token id"):
        generator.steps().prefill([5, 400])
    assert generator.generate_ids(np.array([5, 6]), 2) == generator.generate_ids([5, 6], 2)
    for bad in (0, -1, 2.5, True):
        with pytest.raises(ValueError, match="max_new_tokens"):
            generator.generate_ids([5], bad)


@pytest.mark.parametrize("num_threads", [0, -1, 2.0, True, "2"])
def test_num_threads(path, num_threads):
    for opened in (export.LiteRTModel, export.LiteRTGenerator):
        with pytest.raises(ValueError, match=r"num_threads=.* must be a positive integer"):
            opened(litert_files.decoder() if opened is export.LiteRTGenerator else path, num_threads=num_threads)


def test_the_other_class_is_named(path):
    with pytest.raises(ValueError, match="LiteRTGenerator runs it"):
        export.LiteRTModel(litert_files.decoder())
    with pytest.raises(ValueError, match="LiteRTModel runs it"):
        export.LiteRTGenerator(path)


def test_home_folders_are_spelled_out(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    inputs = keras.Input((4,), name="features")
    export.export_litert(keras.Model(inputs, keras.layers.Dense(3)(inputs)), "~/models/model.tflite", "float32")
    assert (tmp_path / "models" / "model.tflite").exists()
    assert "serving_default" in export.LiteRTModel("~/models/model.tflite").signatures
    assert export.inspect("~/models/model.tflite").metadata["quantization"] == "float32"
    (tmp_path / "decoder.tflite").write_bytes(litert_files.decoder().read_bytes())
    assert export.LiteRTGenerator("~/decoder.tflite").cache_length == litert_files.CACHE


@pytest.mark.extra
def test_bundles_in_home_folders(monkeypatch, tmp_path):
    pytest.importorskip("litert_lm_builder", reason="needs the extra [litertlm]")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    (tmp_path / "decoder.tflite").write_bytes(litert_files.decoder().read_bytes())
    export.bundle_litertlm("~/decoder.tflite", litert_files.language_model().tokenizer, "~/new/decoder.litertlm")
    assert (tmp_path / "new" / "decoder.litertlm").exists()


@pytest.mark.extra
def test_a_bundle_opens_as_the_file_in_it():
    pytest.importorskip("litert_lm_builder", reason="needs the extra [litertlm]")
    one, other = (export.LiteRTGenerator(path) for path in (litert_files.decoder(), litert_files.bundle()))
    assert one.generate("good film", 8) == other.generate("good film", 8)
    assert export.inspect(litert_files.bundle()).signatures == export.inspect(litert_files.decoder()).signatures
    with pytest.raises(ValueError, match="LiteRTGenerator runs it"):
        export.LiteRTModel(litert_files.bundle())


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_models_at_export(tmp_path, dtype):
    task = tasks.TextClassifier(tiny.backbone(dtype=dtype, encoder__num_layers=1), ["a", "b"])
    with pytest.raises(export.ExportError, match=f'dtype="mixed_{dtype}".*dtype="float32"'):
        export.export_litert(task, tmp_path / "half.tflite", "float32", sequence_length=16)
    assert not list(tmp_path.iterdir())
