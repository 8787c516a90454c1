"""Files of torch.save whose lengths, places and nesting lie: each is refused by our error, in little memory."""

import io
import struct
import tracemalloc
import zipfile

import pickle_files as made
import pytest
from pickle_files import name, sizes, tensor, text, tuple_of

from tfxformer.checkpoints import CheckpointError, PickleFile
from tfxformer.checkpoints.files.pickles import archive, machine, reader

MOST_MEMORY = 8_000_000
FEW = 20_000  # operations, where a pickle may have two million


def of(*arguments, **keywords):
    return made.archive(made.state({"x": tensor(*arguments, **keywords)}))


def raw_tensor(*arguments):
    return made.archive(made.state({"x": name("torch._utils", "_rebuild_tensor_v2") + tuple_of(*arguments) + b"R"}))


def bomb(step, times=FEW // 4):
    """An operation many times, before a state dict."""
    return made.archive(made.PROTOCOL + step * times + b".")


def doubled(depth=60):
    """A tuple of two tuples of two tuples..., 2**60 in all, that is the root."""
    return made.PROTOCOL + b"K\x01" + b"q\x00h\x00\x86" * depth + b"."


def changed(content, old, new, count=1):
    assert content.count(old) >= count and len(old) == len(new)
    return content.replace(old, new)


def duplicate():
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as opened:
        for entry, content in (("a/data.pkl", made.state()), ("a/data/0", made.bytes_of()), ("a/data/1", b"x" * 24)):
            opened.writestr(entry, content)
    return changed(file.getvalue(), b"a/data/1", b"a/data/0", 2)


def listed(content, key):
    """Where the list of entries tells of a storage."""
    return content.rindex(f"archive/data/{key}".encode()) - 46


def overlapping():
    """Two entries of the list at one place, as bombs have them."""
    content = bytearray(made.archive(storages={"0": made.bytes_of(), "1": made.bytes_of()}))
    first, second = listed(content, 0) + 42, listed(content, 1) + 42
    content[second : second + 4] = content[first : first + 4]
    return bytes(content)


def longer(extra):
    """An entry whose size in the list is larger than what is there."""
    content = bytearray(made.archive())
    for field in (listed(content, 0) + 20, listed(content, 0) + 24):
        content[field : field + 4] = struct.pack("<I", 24 + extra)
    return bytes(content)


def shaped(shape, offset=b"K\0"):
    """A tensor whose shape is pickled as it is given."""
    return raw_tensor(made.storage(), offset, shape, sizes((1,)), b"\x89", b"}")


def many_names(count=100):
    """One tensor under many names."""
    named = b"".join(text(f"y{i}") + b"h\x09" for i in range(count))
    return made.PROTOCOL + b"}(" + text("x") + tensor() + b"q\x09" + named + b"u."


def for_a_key():
    return made.PROTOCOL + b"}" + doubled()[len(made.PROTOCOL) : -1] + b"Ns."


LIES = {
    "offset beyond": (of(offset=1), "does not fit the 6 numbers"),
    "stride beyond": (of((2, 3), (4, 1)), "does not fit"),
    "negative offset": (of(offset=-1), "the offset -1"),
    "negative stride": (of((2, 3), (-3, 1), 3), "strides of a tensor holds -3"),
    "negative shape": (of((-2, -3)), "shape of a tensor holds -2"),
    "huge shape": (of((2**40, 2**40), (0, 0)), "does not fit"),
    "numel that overflows 64 bits to 0": (of((2**32, 2**32), (0, 0)), "does not fit"),
    "a number of 2,000 bits": (shaped(sizes((6,)), b"\x8a\xfa" + b"\x7f" * 250), "a number of 1999 bits"),
    "expanded a million times": (of((10**6, 6), (0, 1)), "does not fit"),
    "empty, with a huge side": (of((0, 2**62), (1, 1)), "an empty tensor has the shape"),
    "65 dimensions": (of((1,) * 65, (1,) * 65), "the shape of a tensor is a tuple of 65"),
    "more strides than sizes": (of((6,), (1, 1)), "1 dimensions and 2 strides"),
    "shape of texts": (shaped(tuple_of(text("6"))), "holds '6'"),
    "shape of booleans": (shaped(b"\x88\x85"), "holds True"),
    "shape a list": (shaped(b"]"), "shape of a tensor is a list"),
    "a tensor of no storage": (of(of=b"N"), "storage is None"),
    "entry shorter than numel": (of((7,), (1,), numel=7), "has 24 bytes, where 28 were due"),
    "entry longer than numel": (of((5,), (1,), numel=5), "has 24 bytes, where 20 were due"),
    "numel of 2**62": (of((1,), (1,), numel=2**62), "more than any file can hold"),
    "negative numel": (of((0,), (1,), numel=-1), "-1 numbers"),
    "one storage with two dtypes": (
        made.archive(made.state({"x": tensor(), "y": tensor(kind="IntStorage")})),
        "two types or lengths",
    ),
    "a storage that is not there": (of(key="7"), "lacks the storage '7'"),
    "size in the list of entries": (longer(10**6), r"truncated\?|another header|over another"),
    "size that reaches into the next entry": (longer(8), r"another header|over another|where 24 were due"),
    "the same entry twice": (duplicate(), "entry 'a/data/0' twice"),
    "two entries in one place": (overlapping(), "another header|over another"),
    "absolute name": (made.archive(extra=[("/etc/cron.d/x", b"x")]), "the path '/etc/cron.d/x'"),
    "name with ..": (made.archive(extra=[("archive/../../x", b"x")]), r"the path 'archive/\.\./\.\./x'"),
    "name of Windows": (made.archive(extra=[("C:/x", b"x")]), "the path 'C:/x'"),
    "compressed": (made.archive(compression=zipfile.ZIP_DEFLATED), "is compressed"),
    "compressed bomb": (
        made.archive(storages={"0": bytes(30_000_000)}, compression=zipfile.ZIP_DEFLATED),
        "is compressed",
    ),
    "big-endian": (made.archive(order=b"big"), "byte order b'big'"),
    "no pickle": (changed(made.archive(), b"archive/data.pkl", b"archive/date.pkl", 2), "0 data.pkl"),
    "two pickles": (made.archive(extra=[("other/data.pkl", made.state())]), "2 data.pkl"),
    "truncated zip": (made.archive()[:-30], "no whole zip"),
    "only a beginning": (b"PK\x03\x04", "no whole zip"),
    "a list of entries of 4 GB": (made.archive()[:-10] + b"\xff" * 4 + made.archive()[-6:], "list of entries has"),
    "empty file": (b"", "empty or too short"),
    "text": (b"<!DOCTYPE html>", "no pickle"),
    "tar": (b"\0" * 257 + b"ustar" + b"\0" * 100, "tar archive"),
    "truncated pickle": (made.archive(made.state()[:-20]), "without an end|in the middle"),
    "truncated name": (made.archive(made.PROTOCOL + b"ctorch\nFloat"), "a name without an end"),
    "text longer than the file": (made.archive(made.PROTOCOL + b"X\xff\xff\x00\x00x."), "ends in the middle"),
    "text of 4 GB": (made.archive(made.PROTOCOL + b"X\xff\xff\xff\xffx."), "a text of 4294967295 bytes"),
    "text that is none": (made.archive(made.PROTOCOL + b"X\x01\x00\x00\x00\xff."), "not UTF-8"),
    "empty stack": (made.archive(made.PROTOCOL + b"."), "empty stack"),
    "no mark": (made.archive(made.PROTOCOL + b"t."), "no mark"),
    "below a mark": (made.archive(made.PROTOCOL + b"}(" + text("x") + b"s."), "empty stack"),
    "memo that nobody wrote": (made.archive(made.PROTOCOL + b"h\x07."), "memo 7"),
    "memo of nothing": (made.archive(made.PROTOCOL + b"q\x07."), "empty stack"),
    "a key without a value": (made.archive(made.PROTOCOL + b"}(" + text("x") + b"u."), "1 keys and values"),
    "a tuple for a key": (made.archive(made.PROTOCOL + b"}(K\x01tNs."), "a tuple of 1 for a key"),
    "a key twice": (made.archive(made.state({"x": tensor()}, text("x") + tensor() + b"s")), "'x' comes twice"),
    "items of a tensor": (made.archive(made.state({"x": tensor() + text("a") + b"Ns"})), "of a Tensor"),
    "appends to a dict": (made.archive(made.PROTOCOL + b"}Na."), "appends to a dict"),
    "doubled 60 times": (made.archive(doubled()), "it holds a tuple of 2"),
    "a key doubled 60 times": (made.archive(for_a_key()), "for a key"),
    "nested": (made.archive(made.PROTOCOL + b")" + b"\x85" * (FEW // 2) + b"."), "it holds a tuple of 1"),
    "a list in itself": (made.archive(made.PROTOCOL + b"]q\x00h\x00a."), "it holds a list of 1"),
    "a dict in itself": (
        made.archive(made.PROTOCOL + b"}q\x00" + text("x") + b"h\x00s."),
        "its entry 'x' is a dict of 1",
    ),
    "marks without end": (made.archive(made.PROTOCOL + b"(" * 2 * FEW), "operations"),
    "memos without end": (made.archive(made.PROTOCOL + b"N" + b"q\x00" * FEW), "operations"),
    "dicts without end": (made.archive(made.PROTOCOL + b"}" * 2 * FEW), "operations"),
    "one storage for many tensors": (
        made.archive(many_names()),
        "share their numbers so often",
    ),
    "no state dict": (made.archive(made.PROTOCOL + b"K\x05."), "it holds 5"),
    "a number for a name": (made.archive(made.PROTOCOL + b"}K\x05" + tensor() + b"s."), "its entry 5 is"),
    "a dict of dicts": (made.archive(made.state({"state_dict": b"}"})), "its entry 'state_dict' is a dict"),
    "a stream: another magic": (made.stream(magic=5), "holds 5, and is not torch.save's"),
    "a stream: big-endian": (made.stream(little=b"\x89"), "little-endian"),
    "a stream: another count": (made.stream(storages={"0": (5, made.bytes_of(5))}), "has 5 numbers, not 6"),
    "a stream: negative count": (made.stream(storages={"0": (-1, b"")}), "has -1 numbers"),
    "a stream: truncated": (made.stream()[:-1], "truncated"),
    "a stream: without its storages": (made.stream(storages={}, keys=["0"]), "ends before its storage '0'"),
    "a stream: a key twice": (made.stream(keys=["0", "0"]), "names one twice"),
    "a stream: a key of nobody": (made.stream(keys=["9"]), "is that of no tensor"),
    "a stream: a key too few": (made.stream(keys=[]), "lacks the storage '0'"),
    "a stream: a view of a storage": (
        made.stream(made.state({"x": tensor(of=made.storage(view=sizes((0, 0, 3))))})),
        "a view of another",
    ),
}


@pytest.mark.parametrize("lie", LIES)
def test_lying_file_is_refused_in_little_memory(lie, tmp_path, monkeypatch):
    content, message = LIES[lie]
    monkeypatch.setattr(machine, "MOST_OPERATIONS", FEW)
    path = tmp_path / "pytorch_model.bin"
    path.write_bytes(content)
    tracemalloc.start()
    try:
        with pytest.raises(CheckpointError, match=rf"pytorch_model\.bin is not read: .*({message})"):
            PickleFile(path)
        assert tracemalloc.get_traced_memory()[1] < MOST_MEMORY
    finally:
        tracemalloc.stop()


def test_large_pickles_and_lists_are_refused_before_they_are_read(tmp_path, monkeypatch):
    path = tmp_path / "x.bin"
    path.write_bytes(made.archive())
    monkeypatch.setattr(archive, "MOST_PICKLE_BYTES", 100)
    with pytest.raises(CheckpointError, match="more than 100"):
        PickleFile(path)
    monkeypatch.setattr(archive, "MOST_DIRECTORY_BYTES", 100)
    monkeypatch.setattr(archive.zipfile, "ZipFile", None)
    with pytest.raises(CheckpointError, match=r"limit 100"):
        PickleFile(path)


def test_tied_tensors_are_read(tmp_path):
    """What layers that share weights have: many names of the same numbers."""
    entries = {f"layer.{i}.weight": tensor() for i in range(reader._MOST_SHARING)}
    (tmp_path / "x.bin").write_bytes(made.archive(made.state(entries)))
    assert len(PickleFile(tmp_path / "x.bin")) == reader._MOST_SHARING
