"""Split GGUF files, written by the gguf package, against the whole file; and parts that are not one model's."""

import shutil

import gguf_files
import numpy as np
import pytest

from tfxformer.checkpoints import CheckpointError, GGUFFile
from tfxformer.checkpoints.pretrained import open_checkpoint

gguf = pytest.importorskip("gguf")


def split(folder, most=5, seed=0, changes=None):
    """The parts of a tiny llama, in their order."""
    writer = gguf.GGUFWriter(folder / "m.gguf", "llama", split_max_tensors=most)
    for name, value in {**gguf_files.LLAMA, **(changes or {})}.items():
        kind = {int: writer.add_uint32, float: writer.add_float32, str: writer.add_string}[type(value)]
        kind(name, value)
    for name, array in gguf_files.llama_tensors(seed).items():
        writer.add_tensor(name, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return sorted(folder.glob("m-*-of-*.gguf"))


@pytest.fixture
def parts(tmp_path):
    found = split(tmp_path)
    assert [path.name for path in found] == [f"m-{i:05}-of-00004.gguf" for i in range(1, 5)]
    return found


def test_parts_are_one_file(parts, tmp_path):
    whole = GGUFFile(gguf_files.write_llama(tmp_path / "whole.gguf"))
    read = GGUFFile(parts[0])
    assert list(read) == list(whole) and len(read) == 20
    for name in whole:
        assert read.shape(name) == whole.shape(name) == read[name].shape
        np.testing.assert_array_equal(read[name], whole[name])
    says = {key: value for key, value in read.metadata.items() if not key.startswith("split.")}
    assert says == whole.metadata
    config, tensors = open_checkpoint(parts[0])
    assert config == open_checkpoint(tmp_path / "whole.gguf")[0] and len(tensors) == 20


def test_another_part_than_the_first_is_refused(parts):
    with pytest.raises(CheckpointError, match=r"part 2 \(counted from 0\) of the 4.*-00001-of-00004\.gguf"):
        GGUFFile(parts[2])


def test_a_part_that_was_renamed_is_refused(parts):
    with pytest.raises(CheckpointError, match="give the first one"):
        GGUFFile(parts[0].rename(parts[0].with_name("model.gguf")))


def test_a_part_that_is_missing_is_named(parts):
    parts[2].unlink()
    with pytest.raises(CheckpointError, match=r"no GGUF file .*m-00003-of-00004\.gguf"):
        GGUFFile(parts[0])


def test_two_parts_that_changed_places_are_refused(parts):
    shutil.copy(parts[1], parts[2])
    with pytest.raises(CheckpointError, match=r"m-00003-of-00004\.gguf says that it is part 1"):
        GGUFFile(parts[0])


def test_a_part_of_another_split_is_refused(parts, tmp_path):
    (tmp_path / "other").mkdir()
    shutil.copy(split(tmp_path / "other", most=7)[1], parts[1])
    with pytest.raises(CheckpointError, match="of 3, where 1 of 4 was due"):
        GGUFFile(parts[0])


def test_a_tensor_in_two_parts_is_refused(parts):
    content = parts[1].read_bytes()
    name = next(iter(gguf.GGUFReader(parts[1]).tensors)).name
    twin = next(tensor.name for tensor in gguf.GGUFReader(parts[0]).tensors if len(tensor.name) == len(name))
    parts[1].unlink()
    parts[1].write_bytes(content.replace(name.encode(), twin.encode()))
    with pytest.raises(CheckpointError, match=f"holds the tensor {twin!r}, which another part has too"):
        GGUFFile(parts[0])


def test_fewer_tensors_than_promised_are_refused(parts):
    """The number stands in every part."""
    for path in parts:
        content = path.read_bytes()
        at = content.index(b"split.tensors.count") + len(b"split.tensors.count") + 4
        path.unlink()
        path.write_bytes(content[:at] + bytes([21]) + content[at + 1 :])
    with pytest.raises(CheckpointError, match=r"split\.tensors\.count=21, but its parts hold 20"):
        GGUFFile(parts[0])


def test_a_damaged_part_is_named(parts):
    content = parts[3].read_bytes()
    parts[3].unlink()
    parts[3].write_bytes(content[:-100])
    with pytest.raises(CheckpointError, match=r"m-00004-of-00004\.gguf is not a valid GGUF file.*truncated"):
        GGUFFile(parts[0])
