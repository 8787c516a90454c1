"""Records: what goes in comes out, in an order known for every worker and position, and damage is told."""

import json
import resource
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import example, given, settings
from hypothesis import strategies as st

import tfxformer
from tfxformer.data import Records, RecordsError, rows_of, write_records
from tfxformer.data.records.checksum import masked_crc32c
from tfxformer.data.records.files import sealed
from tfxformer.data.records.format import HEAD, TAIL, RecordFormat
from tfxformer.data.records.records import index_shards, shard_name
from tfxformer.data.targets.packing import join, pack

SPECS = st.dictionaries(
    st.text(st.characters(codec="utf-8", categories=("L", "N")), min_size=1, max_size=8),
    st.tuples(st.sampled_from(["int32", "float32"]), st.lists(st.integers(1, 4), max_size=3).map(tuple)),
    min_size=1,
    max_size=4,
)


def some_rows(spec, count, seed=0):
    """Rows of any bits: NaN and infinities, negative and large integers."""
    random = np.random.default_rng(seed)
    bits = lambda shape: random.integers(0, 2**32, shape, dtype=np.uint32)  # noqa: E731
    return [{name: bits(shape).view(dtype) for name, (dtype, shape) in spec.items()} for _ in range(count)]


def numbered(folder, count, shards, **options):
    """Rows of two arrays that tell their number."""
    rows = [{"token_ids": np.full(3, i, np.int32), "weights": np.float32(i / 2)} for i in range(count)]
    return write_records(rows, folder, shards=shards, **options)


def order(records, batch_size=5, **options):
    """The numbers of the rows that are read."""
    data = records.dataset(batch_size, drop_remainder=False, **options)
    return [int(number) for batch in data for number in batch["token_ids"][:, 0]]


# ---- bytes ----------------------------------------------------------------------------------------------------


def numbers(batches) -> list[int]:
    return [int(number) for batch in batches for number in batch["token_ids"][:, 0]]


@pytest.mark.parametrize("workers", [1, 2, 3])
@pytest.mark.parametrize("seed", [None, 4])
def test_numpy_reads_the_same_rows_from_every_position(tmp_path, workers, seed):
    """Without TensorFlow: each row once, workers share them, and an epoch goes on from anywhere."""
    records = numbered(tmp_path / "records", 47, 4)
    every = []
    for worker in range(workers):
        place = {"worker": worker, "workers": workers, "seed": seed, "window": 5}
        read = numbers(records.batches(1, epoch=2, **place))
        assert len(read) == records.rows(worker, workers)
        for position in range(len(read)):
            assert numbers(records.batches(1, epoch=2, position=position, **place)) == read[position:]
        if seed is None:
            assert read == order(records, **place)
        every += read
    assert sorted(every) == list(range(47))
    first = next(records.batches(8, seed=seed))
    assert first["weights"].dtype == "float32" and first["token_ids"].shape == (8, 3)
    np.testing.assert_array_equal(first["weights"], first["token_ids"][:, 0] / 2)
    if seed is not None:
        assert numbers(records.batches(1, seed=seed)) != numbers(records.batches(1, seed=seed, epoch=1))
    with pytest.raises(ValueError, match="position=99"):
        records.batches(1, position=99)


@settings(max_examples=5, deadline=None)
@given(SPECS, st.integers(1, 7), st.integers(1, 4), st.integers(0, 99))
def test_every_bit_comes_back(tmp_path_factory, spec, count, shards, seed):
    rows = some_rows(spec, count, seed)
    records = write_records(rows, tmp_path_factory.mktemp("records") / "set", shards=shards)
    assert records.format.features == {name: spec[name] for name in sorted(spec)} and records.count == count
    found = list(Records(records.folder).dataset(None).as_numpy_iterator())
    assert len(found) == count
    for row, again in zip(rows, found, strict=True):
        assert row.keys() == again.keys()
        for name, (dtype, shape) in spec.items():
            assert again[name].dtype == dtype and again[name].shape == shape
            assert again[name].tobytes() == row[name].tobytes()


def test_any_reader_of_tfrecord_files_reads_them(tmp_path):
    """A second way: TensorFlow's own reader, which checks the checksum of each record, and its protobuf."""
    rows = some_rows({"b": ("float32", (2, 3)), "a": ("int32", (5,))}, 10)
    write_records(rows, tmp_path / "set", "train", shards=3)
    for shard in range(3):
        file = tmp_path / "set" / f"train-0000{shard}-of-00003.tfrecord"
        records = list(tf.data.TFRecordDataset(str(file)).as_numpy_iterator())
        assert len(records) == len(rows[shard::3])
        for row, record in zip(rows[shard::3], records, strict=True):
            features = tf.train.Example.FromString(record).features.feature
            for name, value in row.items():
                assert features[name].bytes_list.value[0] == value.tobytes()


@settings(max_examples=20, deadline=None)
@given(SPECS, st.integers(1, 3), st.integers(0, 99))
def test_records_are_framed_as_tensorflow_frames_them(tmp_path_factory, spec, count, seed):
    """A second way: protobuf's own serialization, and TensorFlow's writer."""
    rows = some_rows(spec, count, seed)
    path = tmp_path_factory.mktemp("records") / "file"
    with tf.io.TFRecordWriter(str(path)) as writer:
        for values in rows:
            lists = {n: tf.train.BytesList(value=[value.tobytes()]) for n, value in values.items()}
            features = {name: tf.train.Feature(bytes_list=one) for name, one in lists.items()}
            example = tf.train.Example(features=tf.train.Features(feature=features))
            writer.write(example.SerializeToString(deterministic=True))
    found = RecordFormat(spec).encode({name: np.stack([values[name] for values in rows]) for name in spec})
    assert found.tobytes() == path.read_bytes()


def test_many_rows_have_each_its_checksum():
    """More rows than are handled at once, of a length that is no number of words; a second way: bit by bit."""
    rows = np.random.default_rng(0).integers(0, 256, (5000, 13)).astype(np.uint8)
    found = masked_crc32c(rows)
    for index in (0, 511, 512, 4095, 4096, 4999):
        crc = 0xFFFFFFFF
        for byte in rows[index].tolist():
            crc ^= byte
            for _ in range(8):
                crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
        crc ^= 0xFFFFFFFF
        assert found[index] == ((crc >> 15 | crc << 17) + 0xA282EAD8) % 2**32
    assert masked_crc32c(rows[:0]).shape == (0,)


def test_equal_rows_make_equal_files_and_the_index_tells_them(tmp_path):
    spec = {"a": ("int32", (4,)), "b": ("float32", ())}
    rows = some_rows(spec, 11)
    backwards = [dict(reversed(row.items())) for row in rows]
    first, second = (write_records(r, tmp_path / n, shards=4) for n, r in (("one", rows), ("two", iter(backwards))))
    for path in sorted(first.folder.iterdir()):
        assert path.read_bytes() == (second.folder / path.name).read_bytes()
    assert first.fingerprint == second.fingerprint
    assert write_records(rows[:10], tmp_path / "three", shards=4).fingerprint != first.fingerprint
    assert write_records(rows, tmp_path / "four", shards=3).fingerprint != first.fingerprint
    index = json.loads((first.folder / "index.json").read_text(encoding="utf-8"))
    assert index["count"] == 11 and [shard["count"] for shard in index["shards"]] == [3, 3, 3, 2]
    assert index["tfxformer"] == tfxformer.__version__ == first.version
    assert index["features"] == {"a": {"dtype": "int32", "shape": [4]}, "b": {"dtype": "float32", "shape": []}}
    assert {path.name for path in tmp_path.iterdir()} == {"one", "two", "three", "four"}  # nothing temporary


def test_packed_blocks_and_dicts_are_rows(tmp_path):
    blocks = pack(join([[1, 2, 3], [5, 6, 7, 8], [9, 10]]), 4)
    records = write_records(rows_of(blocks), tmp_path / "set", shards=2)
    (batch,) = records.dataset(len(blocks.token_ids)).as_numpy_iterator()
    for name, value in blocks._asdict().items():
        np.testing.assert_array_equal(batch[name], value)
    assert [row["a"] for row in rows_of({"a": np.arange(3)})] == [0, 1, 2]


# ---- order ----------------------------------------------------------------------------------------------------

SIZES = st.tuples(st.integers(1, 40), st.integers(1, 6), st.integers(1, 6), st.sampled_from([None, 0, 7]))


@settings(max_examples=2, deadline=None)
@given(SIZES, st.data())
def test_goes_on_exactly_from_every_position(tmp_path_factory, sizes, data):
    """What is left is the end of the whole, for any worker, window and epoch."""
    count, shards, window, seed = sizes
    workers = data.draw(st.integers(1, min(4, count)))
    worker = data.draw(st.integers(0, workers - 1))
    epoch = data.draw(st.integers(0, 3))
    records = numbered(tmp_path_factory.mktemp("records") / "set", count, shards)
    options = {"seed": seed, "worker": worker, "workers": workers, "window": window}
    whole = order(records, epoch=epoch, epochs=2, **options)
    rows = records.rows(worker, workers)
    assert len(whole) == 2 * rows == len(records.dataset(1, epochs=2, **options))
    position = data.draw(st.integers(0, rows))
    assert order(records, epoch=epoch, position=position, epochs=2, **options) == whole[position:]
    assert order(records, epoch=epoch + 1, **options) == whole[rows:]
    assert records.position_after(rows + position, worker, workers) == divmod(rows + position, rows)


@settings(max_examples=1, deadline=None)
@given(SIZES, st.integers(1, 4))
@example((23, 3, 4, 7), 2)  # each worker reads files of the other
def test_workers_share_an_epoch_as_one_would_read_it(tmp_path_factory, sizes, workers):
    count, shards, window, seed = sizes
    records = numbered(tmp_path_factory.mktemp("records") / "set", count, shards)
    alone = order(records, seed=seed, window=window)
    assert sorted(alone) == list(range(count))
    if seed is None:
        assert alone == list(range(count))  # as they were written
    if workers <= count:
        for worker in range(workers):
            options = {"seed": seed, "window": window, "worker": worker, "workers": workers}
            assert order(records, **options) == alone[worker::workers]


def test_workers_of_their_own_files_open_no_others(tmp_path):
    records = numbered(tmp_path / "set", 24, 4)
    for shard in (1, 3):
        (records.folder / shard_name("data", shard, 4)).unlink()
    assert order(records, worker=0, workers=2) == list(range(0, 24, 2))
    with pytest.raises(tf.errors.NotFoundError):
        order(records, worker=1, workers=2)


def test_epochs_and_seeds_differ_and_nothing_else_matters(tmp_path):
    records = numbered(tmp_path / "set", 400, 4)
    first = order(records, 50, seed=0, window=16)
    tf.random.set_seed(1)
    np.random.seed(1)  # noqa: NPY002
    assert order(Records(records.folder), batch_size=7, seed=0, window=16) == first
    others = [order(records, 50, seed=0, epoch=1, window=16), order(records, 50, seed=1, window=16)]
    others += [order(records, 50, seed=0, window=400)]
    for other in others:
        assert sorted(other) == list(range(400))
        assert np.mean(np.array(other) == first) < 0.05
    # Far from where they were written: the mean distance of a random order is a third of all.
    assert np.abs(np.array(first) - np.arange(400)).mean() > 80


def test_batches_have_static_shapes_and_cross_epochs(tmp_path):
    records = numbered(tmp_path / "set", 10, 3)
    data = records.dataset(4, epochs=2)
    assert data.element_spec["token_ids"].shape == (4, 3) and data.element_spec["weights"].shape == (4,)
    assert len(data) == 5
    found = [batch["weights"].tolist() for batch in data.as_numpy_iterator()]
    assert found == [[n / 2 % 5 for n in range(i, i + 4)] for i in range(0, 20, 4)]
    assert len(records.dataset(4)) == 2 and len(records.dataset(4, drop_remainder=False)) == 3


# ---- damage ---------------------------------------------------------------------------------------------------


def damaged(folder, change):
    records = numbered(folder, 20, 4)
    change(records.folder)
    return records.folder


def edit_index(**changes):
    def edit(folder):
        path = folder / "index.json"
        path.write_text(sealed({**json.loads(path.read_text(encoding="utf-8")), **changes}), encoding="utf-8")

    return edit


def flip(folder):
    path = folder / shard_name("data", 2, 4)
    content = bytearray(path.read_bytes())
    content[-10] ^= 1
    path.write_bytes(content)


def shorten(folder):
    path = folder / shard_name("data", 1, 4)
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda folder: (folder / "index.json").unlink(), "has no index.json: it holds no records, or writing"),
        (lambda folder: (folder / "index.json").write_text("{"), "index.json is not whole"),
        (lambda folder: (folder / "index.json").write_text("[]"), "has format None; this tfxformer"),
        (edit_index(format=3), "has format 3; this tfxformer .* reads 2"),
        (edit_index(features={"a": {"dtype": "int8", "shape": []}}), "index.json is not whole .*int8"),
        (edit_index(shards=[{"file": "x"}]), "index.json is not whole"),
        (edit_index(count=21), "contradicts itself"),
        (edit_index(features={"a": {"dtype": "int32", "shape": [7]}}), "contradicts itself"),
        (lambda folder: (folder / shard_name("data", 3, 4)).unlink(), "00003-of-00004.tfrecord is missing"),
        (shorten, r"00001-of-00004.tfrecord has .* bytes, its index says .*: it is truncated"),
        (flip, r"00002-of-00004.tfrecord has changed since it was written \(its sha256 differs\)"),
    ],
)
def test_damage_is_told(tmp_path, change, message):
    with pytest.raises(RecordsError, match=message):
        Records(damaged(tmp_path / "set", change))


def test_without_checksums_sizes_are_compared_still(tmp_path):
    assert Records(damaged(tmp_path / "changed", flip), check=False).count == 20
    with pytest.raises(RecordsError, match="truncated"):
        Records(damaged(tmp_path / "short", shorten), check=False)


def row(**arrays):
    return {name: np.asarray(value) for name, value in arrays.items()}


I, F = np.int32, np.float32


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "There is no row"),
        ([{}], "at least one array"),
        ([row(a=I([1])), row(a=I([1, 2]))], r"Row 1: 'a' is int32 \[2\]; wanted int32 \[1\].* Pad or pack"),
        ([row(a=I([1])), row(a=F([1]))], r"Row 1: 'a' is float32 \[1\]; wanted int32 \[1\]"),
        ([row(a=I(1)), row(a=I(1), b=I(1))], r"Row 1 has \['a', 'b'\]; wanted \['a'\]"),
        ([row(a=np.int64(1))], "'a' is int64; records hold int32 and float32: cast it"),
        ([row(a=I([]))], r"'a' has the shape \[0\]: it holds nothing"),
        ([{"a": [1, 2]}], "'a' is int64; records hold"),
    ],
)
def test_rows_that_cannot_be_written_leave_nothing(tmp_path, rows, message):
    with pytest.raises(RecordsError, match=message):
        write_records(rows, tmp_path / "set")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_files_is_left_alone(tmp_path):
    records = numbered(tmp_path / "set", 5, 2)
    before = {path.name: path.read_bytes() for path in records.folder.iterdir()}
    with pytest.raises(FileExistsError, match="has files already"):
        numbered(tmp_path / "set", 6, 2)
    assert {path.name: path.read_bytes() for path in records.folder.iterdir()} == before
    (tmp_path / "empty").mkdir()
    assert numbered(tmp_path / "empty", 6, 2).count == 6


def test_an_error_of_the_rows_leaves_nothing(tmp_path):
    def rows():
        yield row(a=I([1]))
        raise KeyError("the tokenizer fails")

    with pytest.raises(KeyError, match="the tokenizer fails"):
        write_records(rows(), tmp_path / "set")
    assert list(tmp_path.iterdir()) == []


def test_full_disk_leaves_nothing(tmp_path):
    """In a process that may write files of 100 kB only."""
    script = textwrap.dedent(
        f"""
        import resource, signal
        import numpy as np
        from tfxformer.data import write_records
        write_records([{{"a": np.zeros(10, np.int32)}}], {str(tmp_path / "small")!r})
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        try:
            write_records(({{"a": np.zeros(1000, np.int32)}} for _ in range(2000)), {str(tmp_path / "large")!r})
        except OSError as error:
            print("said:", error)
        """
    )
    root = Path(__file__).parents[3]
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=root, timeout=120)
    assert "said: The records of" in done.stdout and "could not be written" in done.stdout, done.stderr[-3000:]
    assert [path.name for path in tmp_path.iterdir()] == ["small"]
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 100_000


def test_the_index_of_files_that_others_wrote(tmp_path):
    """As a cluster writes shards: each worker its own, in the same order."""
    form = RecordFormat({"a": ("int32", (2,))})
    for shard in range(3):
        with tf.io.TFRecordWriter(str(tmp_path / shard_name("x", shard, 3))) as writer:
            for i in range(shard, 8, 3):
                writer.write(form.encode({"a": I([[i, -i]])})[0, HEAD:-TAIL].tobytes())
    index_shards(tmp_path, "x", 3, form)
    found = [batch["a"][0, 0] for batch in Records(tmp_path).dataset(1).as_numpy_iterator()]
    assert found == list(range(8))
    (tmp_path / shard_name("x", 0, 3)).write_bytes((tmp_path / shard_name("x", 2, 3)).read_bytes())
    with pytest.raises(RecordsError, match=r"shard k modulo 3, but the shards .* have \[2, 3, 2\] rows"):
        index_shards(tmp_path, "x", 3, form)
    with pytest.raises(RecordsError, match="no number of records"):
        index_shards(tmp_path, "x", 3, RecordFormat({"a": ("int32", (3,))}))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"worker": 2, "workers": 2}, "worker=2 must be one of 2: 0 to 1"),
        ({"position": 21}, r"position=21 is not in an epoch of 20 rows \(worker 0 of 1\)"),
        ({"position": 8, "worker": 2, "workers": 3}, r"not in an epoch of 6 rows \(worker 2 of 3\)"),
        ({"epochs": 0}, "epochs=0 and window=1024 must be at least 1"),
        ({"window": 0}, "window=0 must be at least 1"),
    ],
)
def test_what_cannot_be_read(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        numbered(tmp_path / "set", 20, 4).dataset(1, **options)
