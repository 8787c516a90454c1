"""Checkpoint files: what was written comes back, other readers open them, and damage is seen."""

import json

import ml_dtypes
import numpy as np
import pytest

from tfxformer.checkpoints.files.safetensors import SafetensorsFile
from tfxformer.files import remove_leftovers
from tfxformer.training.resume.checkpoint_files import (
    DamagedCheckpointError,
    checkpoint_name,
    list_checkpoints,
    read_checkpoint,
    write_checkpoint,
)

ARRAYS = {
    "scalar": np.array(3, "int64"),
    "model/00000/dense/kernel": np.arange(6, dtype="float32").reshape(2, 3).T,  # not in C order
    "half": np.array([1.5, -2.0], ml_dtypes.bfloat16),
    "empty": np.zeros((0, 4), "float16"),
    "flags": np.array([True, False]),
    "seed": np.array([1, 2], "uint32"),
}
MANIFEST = {"epoch": 1, "value": 0.1 + 0.2, "none": None, "infinite": float("inf"), "numpy": np.float32(0.5)}


def test_arrays_and_manifest_come_back_and_any_reader_opens_the_file(tmp_path):
    path = tmp_path / "new" / checkpoint_name(1, 2)
    write_checkpoint(path, ARRAYS, MANIFEST)
    arrays, manifest = read_checkpoint(path)
    assert manifest == MANIFEST and list(arrays) == list(ARRAYS)
    for name, array in ARRAYS.items():
        assert arrays[name].dtype == array.dtype
        np.testing.assert_array_equal(arrays[name], array)
    assert [one.name for one in path.parent.iterdir()] == [path.name]
    known = {name: array for name, array in ARRAYS.items() if name != "seed"}  # our reader takes no uint32
    write_checkpoint(path, known, MANIFEST)
    foreign = SafetensorsFile(path)  # shares no code with the writer
    assert set(foreign) == set(known)
    np.testing.assert_array_equal(foreign["model/00000/dense/kernel"], ARRAYS["model/00000/dense/kernel"])
    np.testing.assert_array_equal(foreign["half"].astype("float32"), [1.5, -2.0])


def test_every_byte_is_covered(tmp_path):
    path = tmp_path / checkpoint_name(0, 1)
    write_checkpoint(path, {"a": np.arange(3, dtype="int8")}, {"epoch": 0})
    content = path.read_bytes()
    for index in range(len(content)):
        changed = bytearray(content)
        changed[index] ^= 4
        path.write_bytes(changed)
        with pytest.raises(DamagedCheckpointError, match="is damaged"):
            read_checkpoint(path)
    path.write_bytes(content[:-1])
    with pytest.raises(DamagedCheckpointError, match="is damaged"):
        read_checkpoint(path)


def test_names_sort_as_positions_and_other_files_are_let_alone(tmp_path):
    for epoch, batch in ((10, 0), (2, 300), (2, 4)):
        write_checkpoint(tmp_path / checkpoint_name(epoch, batch), {}, {})
    for name in ("notes.txt", "model.safetensors"):
        (tmp_path / name).write_text(json.dumps(1))
    (tmp_path / f".{checkpoint_name(1, 1)}.0123456789abcdef.tfxformer-tmp").mkdir()  # of a writer that was killed
    remove_leftovers(tmp_path)
    assert [path.name for path in list_checkpoints(tmp_path)] == [
        checkpoint_name(*position) for position in ((2, 4), (2, 300), (10, 0))
    ]
    assert (tmp_path / "notes.txt").exists() and not list(tmp_path.glob(".*"))
    assert list_checkpoints(tmp_path / "absent") == []
