"""Bounds (faults of 0.4.0, part 7, and the last of part 8): records, `.keras` files, samples and kept points.

Right is: refused by a ValueError that names the file, or the unchanged answer; nothing outside the folder is opened,
nothing is allocated before the file's bytes can hold it, and nothing that was fetched is run.
"""

import hashlib
import io
import json
import random
import shutil
import tarfile
import tracemalloc
import zipfile
import zlib
from dataclasses import replace
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tiny

from tfxformer import samples, tasks
from tfxformer.data import Records, RecordsError, write_records
from tfxformer.data.records.files import sealed
from tfxformer.keras_files import check_archive
from tfxformer.recipes.sweep import running
from tfxformer.recipes.sweep.recipe import Point
from tfxformer.samples import archives
from tfxformer.samples.catalogue import Sample

ROUNDS = 2000


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """A small set of records."""
    rows = [{"a": np.full(3, index, np.int32), "b": np.float32(index / 2)} for index in range(7)]
    return write_records(rows, tmp_path_factory.mktemp("records") / "set", shards=2).folder


@pytest.fixture
def records(kept, tmp_path):
    """A copy of it to be changed."""
    return shutil.copytree(kept, tmp_path / "set")


def changed(folder, keep_sum=False, **changes):
    """Writes other things into the index; sealed anew, as one who knows the format would, unless `keep_sum`."""
    index = json.loads((folder / "index.json").read_text(encoding="utf-8")) | changes
    (folder / "index.json").write_text(json.dumps(index) if keep_sum else sealed(index), encoding="utf-8")


def shard(folder, **changes):
    """The index's first shard otherwise."""
    shards = json.loads((folder / "index.json").read_text(encoding="utf-8"))["shards"]
    return [shards[0] | changes, *shards[1:]]


# ---- records ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["../other/data-00000-of-00002.tfrecord", "/etc/passwd", "a\\b.tfrecord", "C:x.tfrecord"]
)
def test_a_records_index_naming_a_shard_of_another_folder_is_refused(records, name):
    shutil.copytree(records, records.parent / "other")
    changed(records, shards=shard(records, file=name))
    with pytest.raises(RecordsError, match=r"index.json is not whole .*a shard is a .tfrecord file beside it"):
        Records(records)


@pytest.mark.parametrize("keep_sum", [True, False])
def test_a_records_index_naming_another_dtype_is_refused(records, keep_sum):
    """float32 for int32 has the same size: nothing but the index' own sum can tell; a wise forger is not kept out."""
    other = {"a": {"dtype": "float32", "shape": [3]}, "b": {"dtype": "float32", "shape": []}}
    changed(records, keep_sum, features=other)
    if keep_sum:
        with pytest.raises(RecordsError, match=r"index.json has changed since it was written"):
            Records(records)
    else:
        assert Records(records).format.features["a"][0] == "float32"


@pytest.mark.parametrize("shape", [[10**9], [10**5, 10**5], [-3], [3.0], [True], ["3"]])
def test_a_records_index_claims_no_more_than_its_files_hold(records, shape):
    changed(records, features={"a": {"dtype": "int32", "shape": shape}})
    tracemalloc.start()
    with pytest.raises(RecordsError, match=r"index.json is not whole"):
        Records(records)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10_000_000


@pytest.mark.parametrize(
    "changes", [{"count": 10**12}, {"bytes": 10**15}, {"bytes": -1}, {"count": 1.5}, {"sha256": 7}, {"file": None}]
)
def test_a_shard_is_what_the_index_says(records, changes):
    changed(records, shards=shard(records, **changes))
    with pytest.raises(RecordsError, match=r"set"):
        Records(records)


def test_records_of_version_0_4_0_open(records):
    """Their index, as that version wrote it, has no sum of its own."""
    index = json.loads((records / "index.json").read_text(encoding="utf-8")) | {"format": 1}
    del index["sha256"]
    (records / "index.json").write_text(json.dumps(index, indent=1) + "\n", encoding="utf-8")
    assert [row["a"].tolist() for row in Records(records).dataset(None).as_numpy_iterator()] == [
        [i] * 3 for i in range(7)
    ]
    index["format"] = 2  # without the sum it is none of ours
    (records / "index.json").write_text(json.dumps(index, indent=1) + "\n", encoding="utf-8")
    with pytest.raises(RecordsError, match="has changed since"):
        Records(records)


def damages(content: bytes, rounds: int):
    """The content with one bit turned, or cut off, at places drawn by chance."""
    chance = random.Random(0)
    for turn in range(rounds):
        place = chance.randrange(len(content))
        if turn % 10 == 0:
            yield content[:place]
        else:
            yield content[:place] + bytes([content[place] ^ 1 << chance.randrange(8)]) + content[place + 1 :]


def test_bit_flips_and_truncations_of_records_are_refused(records):
    paths = sorted(records.iterdir())
    whole = b"".join(path.read_bytes() for path in paths)
    ends = np.cumsum([path.stat().st_size for path in paths])
    opened = 0
    for content in damages(whole, ROUNDS):
        for path, begin, end in zip(paths, [0, *ends], ends, strict=False):
            path.write_bytes(content[begin:end])
        try:
            Records(records)
            opened += 1
        except ValueError as error:
            assert str(records) in str(error)
    assert opened == 0


# ---- .keras -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A tiny task, its file, and a batch."""
    task = tiny.perturb(tasks.TextClassifier(tiny.backbone(encoder__num_layers=1), ["no", "yes"]))
    path = tmp_path_factory.mktemp("keras") / "model.keras"
    task.save(path)
    batch = {name: np.ones((1, 8), "int32") for name in ("token_ids", "padding_mask", "segment_ids")}
    return path, batch, np.asarray(task(batch))


def readable(content: bytes) -> bool:
    """Whether zip's checksums hold for all that a model is made of; Keras refuses a file where they do not."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as opened:
            return bool(opened.read("config.json") and opened.read("model.weights.h5"))
    except (zipfile.BadZipFile, zlib.error, KeyError, RuntimeError, NotImplementedError, EOFError, OSError, ValueError):
        return False


def test_bit_flips_and_truncations_of_keras_files_are_refused_or_change_nothing(saved, tmp_path):
    """Keras loads what zip calls whole, and one in 250 of the rest, as proof that it refuses those."""
    path, batch, wanted = saved
    bad, loaded, refused = tmp_path / "bad.keras", 0, 0
    for turn, content in enumerate(damages(path.read_bytes(), ROUNDS)):
        if not (whole := readable(content)) and turn % 250:
            continue
        bad.write_bytes(content)
        try:
            found = np.asarray(keras.saving.load_model(bad)(batch))
        except Exception:  # zipfile's, HDF5's and Keras' own
            refused += 1
            assert turn or not whole
            continue
        np.testing.assert_array_equal(found, wanted)
        loaded += 1
    assert refused >= ROUNDS // 250 - 1


def test_keras_reading_an_archive_piece_by_piece_is_seen(saved, tmp_path):
    """Its fallback for weights that it could not read at once: from Python 3.13 on zip compares no checksum there."""
    content = bytearray(saved[0].read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "bad.keras").write_bytes(content)
    closed = []
    with zipfile.ZipFile(tmp_path / "bad.keras") as archive:
        store = SimpleNamespace(archive=archive, h5_file=SimpleNamespace(close=lambda: closed.append(True)))
        with pytest.raises(ValueError, match=r"bad.keras is damaged \(model.weights.h5\)"):
            check_archive(store)
    assert closed
    with zipfile.ZipFile(saved[0]) as archive:
        check_archive(SimpleNamespace(archive=archive))
    check_archive(SimpleNamespace(archive=None))


# ---- samples ----------------------------------------------------------------------------------------------------


def source_archive(folder, extra=()) -> Sample:
    """An sdist whose build would leave a mark, in a folder that is a package index."""
    page = folder / "simple" / "tiny"
    page.mkdir(parents=True)
    mark = folder / "was-run"
    contents = {"setup.py": f"open({str(mark)!r}, 'w')", "pyproject.toml": "", "data/a.txt": "one", "PKG-INFO": ""}
    with tarfile.open(page / "tiny-1.0.tar.gz", "w:gz") as opened:
        for name, text in contents.items():
            entry = tarfile.TarInfo(f"tiny-1.0/{name}")
            entry.size = len(text)
            opened.addfile(entry, io.BytesIO(text.encode()))
        for entry in extra:
            opened.addfile(entry)
    content = (page / "tiny-1.0.tar.gz").read_bytes()
    (page / "index.html").write_text('<a href="tiny-1.0.tar.gz">tiny-1.0.tar.gz</a>')
    return Sample(
        requirement="tiny==1.0",
        archive="tiny-1.0.tar.gz",
        sha256=hashlib.sha256(content).hexdigest(),
        size=len(content),
        root="tiny-1.0/data",
        suffixes=(".txt",),
        licence="CC0",
        content="one file",
    )


@pytest.fixture
def index(tmp_path, monkeypatch):
    """An empty cache, and pip told by its own file of settings where to look."""
    monkeypatch.setenv("TFXFORMER_CACHE", str(tmp_path / "cache"))
    for name in ("PIP_NO_INDEX", "PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    settings = tmp_path / "pip.conf"
    settings.write_text(f"[global]\nindex-url = {(tmp_path / 'registry' / 'simple').as_uri()}\nextra-index-url =\n")
    monkeypatch.setenv("PIP_CONFIG_FILE", str(settings))
    monkeypatch.setenv("PIP_INDEX_URL", (tmp_path / "registry" / "simple").as_uri())
    return tmp_path / "registry"


def test_registry_sdists_fetched_by_samples_are_never_built(index, monkeypatch):
    sample = source_archive(index)
    monkeypatch.setitem(samples.SAMPLES, "tiny", sample)
    folder = samples.fetch("tiny")
    assert [path.name for path in folder.iterdir()] == ["a.txt"] and (folder / "a.txt").read_text() == "one"
    assert not (index / "was-run").exists()


def test_other_or_larger_bytes_than_those_pinned_are_refused(index, monkeypatch):
    sample = source_archive(index)
    monkeypatch.setitem(samples.SAMPLES, "tiny", replace(sample, sha256="0" * 64))
    with pytest.raises(ValueError, match="served another file"):
        samples.fetch("tiny")
    monkeypatch.setitem(samples.SAMPLES, "tiny", replace(sample, size=sample.size - 1))
    with pytest.raises(RuntimeError, match="of more than"):
        samples.fetch("tiny")
    assert not (index / "was-run").exists() and not list((samples.cache_folder() / "samples").iterdir())


def test_members_of_archives_are_bounded(index, tmp_path, monkeypatch):
    sample = source_archive(index)
    archive = index / "simple" / "tiny" / sample.archive
    monkeypatch.setattr(archives, "MOST_BYTES", 10)
    with pytest.raises(ValueError, match=r"tiny-1.0.tar.gz holds more than .* 10 bytes"):
        archives.unpack(archive, sample, tmp_path / "out")
    monkeypatch.setattr(archives, "MOST_BYTES", 10**6)
    monkeypatch.setattr(archives, "MOST_MEMBERS", 2)
    with pytest.raises(ValueError, match="holds more than 2 members"):
        archives.unpack(archive, sample, tmp_path / "out")


# ---- sweeps -----------------------------------------------------------------------------------------------------


@pytest.fixture
def sweep(tmp_path):
    """A sweep that has nothing but its folder."""
    made = running.Sweep.__new__(running.Sweep)
    made.output, made._identity = tmp_path, {}
    return made


@pytest.mark.parametrize("content", ["", '{"name": "a", "byt', "[]"])
def test_a_truncated_point_json_is_named(sweep, content):
    folder = sweep._point_folder(Point())
    folder.mkdir(parents=True)
    (folder / "point.json").write_text(content)
    with pytest.raises(ValueError, match=r"points/\w+/point.json .*Remove the folder .*the sweep makes it again"):
        sweep.measure(Point())


def test_a_point_without_its_whole_file_and_half_a_model_are_named(sweep):
    folder = sweep._point_folder(Point())
    folder.mkdir(parents=True)
    (folder / "point.json").write_text('{"name": "a", "bytes": 10}')
    for content in (None, b"123456789"):
        if content:
            (folder / "model.tflite").write_bytes(content)
        with pytest.raises(ValueError, match=r"model.tflite is not whole, or not there"):
            sweep.measure(Point())
    stage = sweep._stage_folder(Point(), running.MODEL_AXES[-1])
    stage.mkdir(parents=True)
    (stage / "model.keras").write_bytes(b"half")
    with pytest.raises(ValueError, match=r"stage.json"):
        sweep.make(Point(), running.MODEL_AXES[-1])
    (stage / "stage.json").write_text("{}")
    with pytest.raises(ValueError, match=r"model.keras is not whole"):
        sweep.make(Point(), running.MODEL_AXES[-1])
