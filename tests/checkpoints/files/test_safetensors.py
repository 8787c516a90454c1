"""The safetensors reader and writer against the safetensors library, and against files that lie."""

import errno
import json
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tfxformer.checkpoints import CheckpointError, SafetensorsFile
from tfxformer.checkpoints.files import safetensors

DTYPES = ["float32", "float16", "float64", "int64", "int32", "int16", "int8", "uint8", "bool"]
NAMES = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12).filter(lambda name: name != "__metadata__")
ARRAYS = st.sampled_from(DTYPES).flatmap(
    lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, min_side=0, max_side=4))
)
TENSORS = st.dictionaries(NAMES, ARRAYS, max_size=4)


def check_same(actual, wanted):
    assert set(actual) == set(wanted)
    for name, array in wanted.items():
        assert actual[name].dtype == array.dtype and actual[name].shape == array.shape
        assert actual[name].tobytes() == np.ascontiguousarray(array).tobytes()


@pytest.mark.reference
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tensors=TENSORS)
def test_the_library_reads_what_we_write(tensors, tmp_path):
    from safetensors.numpy import load

    safetensors.write(tmp_path / "ours.safetensors", tensors)
    check_same(load((tmp_path / "ours.safetensors").read_bytes()), tensors)


@pytest.mark.reference
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tensors=TENSORS)
def test_we_read_what_the_library_writes(tensors, tmp_path):
    from safetensors.numpy import save

    # A new name each time: a file must not be rewritten under an open map.
    path = tmp_path / f"theirs-{len(list(tmp_path.iterdir()))}.safetensors"
    path.write_bytes(save(tensors, {"format": "pt"}) if tensors else save(tensors))
    check_same(SafetensorsFile(path), tensors)


@pytest.mark.reference
def test_bfloat16_both_ways(tmp_path):
    import torch
    from safetensors.torch import load_file, save_file

    values = np.random.default_rng(0).normal(size=(5, 3)).astype(ml_dtypes.bfloat16)
    safetensors.write(tmp_path / "ours.safetensors", {"x": values})
    theirs = load_file(tmp_path / "ours.safetensors")["x"]
    assert theirs.dtype == torch.bfloat16
    np.testing.assert_array_equal(theirs.float().numpy(), values.astype("float32"))
    save_file({"x": theirs}, tmp_path / "theirs.safetensors")
    assert SafetensorsFile(tmp_path / "theirs.safetensors")["x"].tobytes() == values.tobytes()


@pytest.mark.reference
def test_the_library_reads_our_shards(tmp_path):
    from safetensors.numpy import load_file

    tensors = {f"t{i}": np.full((10, 10), i, "float32") for i in range(7)}
    written = safetensors.write_folder(tmp_path, tensors, max_shard_bytes=900)
    assert [path.name for path in written][-1] == "model.safetensors.index.json"
    index = json.loads(written[-1].read_text())
    assert index["metadata"]["total_size"] == 2800
    assert len(set(index["weight_map"].values())) == 4 == len(written) - 1
    for name, shard in index["weight_map"].items():
        np.testing.assert_array_equal(load_file(tmp_path / shard)[name], tensors[name])
    check_same(safetensors.open_folder(tmp_path), tensors)


def test_transposed_views_and_foreign_byte_orders(tmp_path):
    array = np.arange(6, dtype="float32").reshape(2, 3)
    safetensors.write(tmp_path / "x.safetensors", {"x": array.T})
    np.testing.assert_array_equal(SafetensorsFile(tmp_path / "x.safetensors")["x"], array.T)
    with pytest.raises(CheckpointError, match="dtype"):
        safetensors.write(tmp_path / "y.safetensors", {"x": array.astype(">f4")})
    with pytest.raises(CheckpointError, match="complex64"):
        safetensors.write(tmp_path / "y.safetensors", {"x": array.astype("complex64")})
    assert not (tmp_path / "y.safetensors").exists()


def test_arrays_are_views_of_the_file(tmp_path):
    safetensors.write(tmp_path / "x.safetensors", {"x": np.ones((4, 4), "float32")})
    file = SafetensorsFile(tmp_path / "x.safetensors")
    assert not file["x"].flags.writeable and not file["x"].flags.owndata
    assert file.shape("x") == (4, 4) and list(file) == ["x"] and len(file) == 1
    with pytest.raises(KeyError):
        file["y"]


# ---- files that lie -------------------------------------------------------------------------------------------


def entry(begin=0, end=4, dtype="F32", shape=(1,)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


def encode(header, data=b"\0" * 4, length=None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + data


LIES = {
    "empty file": b"",
    "seven bytes": b"\0" * 7,
    "header longer than the file": encode({"x": entry()}, length=10**6),
    "header of 2**63 bytes": encode({"x": entry()}, length=2**63),
    "header cut": encode({"x": entry()}, length=20),
    "not JSON": encode(b"not json"),
    "not text": encode(b"\xff\xfe\xfd"),
    "nested without end": encode(b"[" * 100_000),
    "a list": encode([1, 2]),
    "a string": encode("x"),
    "key twice": encode(b'{"x":%(e)s,"x":%(e)s}' % {b"e": json.dumps(entry()).encode()}),
    "key twice inside": encode(b'{"x":{"dtype":"F32","dtype":"F32","shape":[1],"data_offsets":[0,4]}}'),
    "metadata not an object": encode({"__metadata__": 3, "x": entry()}),
    "entry a list": encode({"x": [1]}),
    "entry without dtype": encode({"x": {"shape": [1], "data_offsets": [0, 4]}}),
    "unknown dtype": encode({"x": entry(dtype="X4")}),
    "dtype a list": encode({"x": entry(dtype=["F32"])}),
    "shape a number": encode({"x": {**entry(), "shape": 1}}),
    "shape of floats": encode({"x": {**entry(), "shape": [1.0]}}),
    "shape of booleans": encode({"x": {**entry(), "shape": [True]}}),
    "negative shape": encode({"x": entry(shape=(-1, -1))}),
    "three offsets": encode({"x": {**entry(), "data_offsets": [0, 4, 8]}}),
    "negative offset": encode({"x": entry(begin=-4, end=0)}),
    "offsets swapped": encode({"x": entry(begin=4, end=0)}),
    "wrong dtype for the size": encode({"x": entry(dtype="F64")}),
    "huge shape": encode({"x": entry(shape=(2**40, 2**40))}),
    "past the end": encode({"x": entry(0, 8, shape=(2,))}),
    "bytes to spare": encode({"x": entry()}, data=b"\0" * 5),
    "hole": encode({"x": entry(), "y": entry(8, 12)}, data=b"\0" * 12),
    "hole at the start": encode({"x": entry(4, 8)}, data=b"\0" * 8),
    "overlap": encode({"x": entry(), "y": entry(2, 6)}, data=b"\0" * 6),
    "the same bytes": encode({"x": entry(), "y": entry()}),
}


@pytest.mark.parametrize("lie", list(LIES))
def test_lying_file_is_refused(lie, tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(LIES[lie])
    with pytest.raises(CheckpointError, match=r"model\.safetensors is not a valid safetensors file: .*[Dd]ownload"):
        SafetensorsFile(path)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_file_never_crashes(data, tmp_path):
    """Any one byte changed, or the file cut anywhere: read as it says, or refused; never another error."""
    path = tmp_path / "good.safetensors"
    if not path.exists():
        safetensors.write(path, {"a": np.arange(6, dtype="float32").reshape(2, 3), "b": np.ones(3, "int8")})
    content = bytearray(path.read_bytes())
    position = data.draw(st.integers(0, len(content) - 1))
    if data.draw(st.booleans()):
        content = content[:position]
    else:
        content[position] = data.draw(st.integers(0, 255))
    damaged = tmp_path / f"damaged-{len(list(tmp_path.iterdir()))}.safetensors"
    damaged.write_bytes(content)
    try:
        opened = SafetensorsFile(damaged)
    except CheckpointError:
        return
    for name in opened:
        assert opened[name].shape == opened.shape(name)


# ---- folders --------------------------------------------------------------------------------------------------


def write_index(folder, weight_map, shard=b""):
    index = weight_map if isinstance(weight_map, str) else json.dumps({"weight_map": weight_map})
    (folder / "model.safetensors.index.json").write_text(index)
    (folder / "a.safetensors").write_bytes(shard or encode({"x": entry()}))


@pytest.mark.parametrize(
    "name", ["../a.safetensors", "/etc/passwd", "sub/a.safetensors", "..", ".", "", "..\\a.safetensors", 3, None]
)
def test_shard_outside_the_folder_is_refused(name, tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    write_index(folder, {"x": name})
    (tmp_path / "a.safetensors").write_bytes(encode({"x": entry()}))
    with pytest.raises(CheckpointError, match="must lie beside its index"):
        safetensors.open_folder(folder)


@pytest.mark.parametrize(
    ("weight_map", "message"),
    [
        ("not json", "not an index"),
        ("[]", "not an index"),
        ('{"weight_map": 3}', "not an index"),
        ('{"weight_map": {"x": "a.safetensors", "x": "b.safetensors"}}', "comes twice"),
        ({"x": "b.safetensors"}, "which is not there"),
        ({"x": "a.safetensors", "y": "a.safetensors"}, "promises tensor 'y'"),
        ({}, "weight_map"),
    ],
)
def test_broken_index_is_refused(weight_map, message, tmp_path):
    write_index(tmp_path, weight_map)
    if weight_map == {}:
        assert len(safetensors.open_folder(tmp_path)) == 0
        return
    with pytest.raises(CheckpointError, match=message):
        safetensors.open_folder(tmp_path)


def test_tensor_that_the_index_forgets_is_an_error(tmp_path):
    write_index(tmp_path, {"x": "a.safetensors"}, encode({"x": entry(), "y": entry(4, 8)}, data=b"\0" * 8))
    with pytest.raises(CheckpointError, match=r"'y', which model\.safetensors\.index\.json does not place"):
        safetensors.open_folder(tmp_path)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "model.ckpt"])
def test_pickles_are_refused_with_the_way_out(name, tmp_path):
    (tmp_path / name).write_bytes(b"cos\nsystem\n(S'touch /tmp/never'\ntR.")
    with pytest.raises(CheckpointError, match=rf"{name}.*can run any code.*save_pretrained"):
        safetensors.open_folder(tmp_path)


def test_folder_without_weights(tmp_path):
    with pytest.raises(CheckpointError, match=r"neither model\.safetensors nor model\.safetensors\.index\.json"):
        safetensors.open_folder(tmp_path)


# ---- writing whole or not at all ------------------------------------------------------------------------------


@pytest.fixture
def full_disk(monkeypatch):
    """After `allowed` tensors, the disk is full."""
    real, state = np.ascontiguousarray, {"allowed": 2}

    def ascontiguousarray(array):
        if state["allowed"] == 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        state["allowed"] -= 1
        return real(array)

    monkeypatch.setattr(safetensors.np, "ascontiguousarray", ascontiguousarray)
    return state


def listing(folder: Path) -> dict:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("max_shard_bytes", [10**9, 100])
def test_full_disk_leaves_nothing(max_shard_bytes, tmp_path, full_disk):
    tensors = {f"t{i}": np.ones(20, "float32") for i in range(4)}
    with pytest.raises(OSError, match="No space left"):
        safetensors.write_folder(tmp_path, tensors, max_shard_bytes)
    assert listing(tmp_path) == {}


@pytest.mark.parametrize("max_shard_bytes", [10**9, 100])
def test_full_disk_leaves_the_old_checkpoint(max_shard_bytes, tmp_path, full_disk):
    full_disk["allowed"] = 4
    tensors = {f"t{i}": np.ones(20, "float32") for i in range(4)}
    safetensors.write_folder(tmp_path, tensors, max_shard_bytes)
    before = listing(tmp_path)
    full_disk["allowed"] = 3
    with pytest.raises(OSError, match="No space left"):
        safetensors.write_folder(tmp_path, {name: array * 2 for name, array in tensors.items()}, max_shard_bytes)
    assert listing(tmp_path) == before


def test_new_checkpoint_hides_behind_no_old_file(tmp_path):
    tensors = {f"t{i}": np.full(20, i, "float32") for i in range(4)}
    (tmp_path / "other.safetensors").write_bytes(b"")
    for max_shard_bytes, files in ((80, 5), (10**9, 1), (160, 3), (80, 5)):
        safetensors.write_folder(tmp_path, tensors, max_shard_bytes)
        assert len(list(tmp_path.iterdir())) == files + 1
        check_same(safetensors.open_folder(tmp_path), tensors)
        tensors = {name: array + 1 for name, array in tensors.items()}


def test_open_map_survives_its_file_being_replaced(tmp_path):
    """A model may be saved over the folder it is still mapped from."""
    safetensors.write(tmp_path / "x.safetensors", {"x": np.zeros(1000, "float32")})
    mapped = SafetensorsFile(tmp_path / "x.safetensors")["x"]
    safetensors.write(tmp_path / "x.safetensors", {"x": np.ones(10, "float32")})
    assert (mapped == 0).all()
