"""The Beam job writes what the pipeline of one machine writes, byte by byte.

Each job runs in a process of its own: Beam brings its own gRPC and threads, which need not live beside TensorFlow.
"""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tfxformer import samples
from tfxformer.data import Records
from tfxformer.text import Tokenizer

ROOT = Path(__file__).parents[3]
RUNNER = "--runner=apache_beam.runners.portability.fn_api_runner.FnApiRunner"
absent = importlib.util.find_spec("apache_beam") is None
pytestmark = [
    pytest.mark.extra,
    pytest.mark.skipif(absent, reason='Apache Beam is not installed: pip install -e ".[beam]"'),
]
SCRIPT = """
import json, pathlib, sys
from tfxformer.data.records import beam, preparing
from tfxformer.text import Tokenizer

tokenizer = Tokenizer.from_pretrained(sys.argv[1])
for job in map(json.loads, sys.argv[2:]):
    lengths = tuple(job["settings"].pop("sequence_lengths"))
    settings = preparing.Preparation(sequence_lengths=lengths, **job["settings"])
    try:
        if job["local"]:
            files = [pathlib.Path(file) for file in job["files"]]
            preparing.prepare(settings, files, job["local"], tokenizer, job["shards"])
        beam.prepare(settings, job["source"], job["folder"], tokenizer, job["shards"], job["options"])
    except Exception as error:
        print(type(error).__name__, error)
assert "tensorflow" not in sys.modules
"""


def run(tokenizer: Path, *jobs):
    """What jobs print, one after another in one process."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", SCRIPT, str(tokenizer), *map(json.dumps, jobs)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=280, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


def job(tmp_path, name, files, source=None, shards=3, options=(), local=True, **settings):
    settings = {"kind": "causal", "sequence_lengths": [16], "group": 300} | settings
    return {
        "files": list(map(str, files)),
        "source": list(map(str, files if source is None else source)),
        "folder": str(tmp_path / f"{name}-beam"),
        "local": str(tmp_path / f"{name}-local") if local else None,
        "shards": shards,
        "options": list(options),
        "settings": settings,
    }


def same(tmp_path, name):
    """The files of a job, which are those of the local pipeline."""
    folders = [tmp_path / f"{name}-{where}" for where in ("local", "beam")]
    local, beam = (
        {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        for folder in folders
    )
    assert sorted(local) == sorted(beam) and "index.json" in " ".join(local)
    for file, content in local.items():
        assert beam[file] == content, file
    assert {path.name for path in folders[1].iterdir()} == {path.name for path in folders[0].iterdir()}
    return sorted(local)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tokenizer, texts in several files, and what jobs of one process made of them."""
    folder = tmp_path_factory.mktemp("beam")
    texts = [f"the {word} film number {i}, seen by é" for i in range(40) for word in ("good", "dull", "")]
    Tokenizer.train_byte_level_bpe(texts, 300).save_pretrained(folder / "bpe")
    (folder / "a.txt").write_text("\n".join(texts[:70]), encoding="utf-8")
    (folder / "b.txt").write_text("\n\n".join(texts[70:]), encoding="utf-8")
    rows = [json.dumps({"id": i, "text": text}) for i, text in enumerate(texts)]
    (folder / "c.jsonl").write_text("\n".join(rows), encoding="utf-8")
    (folder / "bad.txt").write_bytes(b"good\n" * 200 + b"b\xe9d\n")
    (folder / "empty.txt").write_text(" \n", encoding="utf-8")
    return folder


def test_small_files_give_the_same_bytes(folder, tmp_path):
    files = [folder / "a.txt", folder / "b.txt"]
    jobs = [
        job(tmp_path, "lines", files, [folder / "[ab].txt"]),
        job(tmp_path, "paragraphs", [*files, folder / "c.jsonl"], documents="paragraph", shards=5),
        job(tmp_path, "files", files, documents="file", shards=40),  # more shards than rows
        job(tmp_path, "pieces", files, kind="pieces"),
    ]
    assert run(folder / "bpe", *jobs) == ""
    assert same(tmp_path, "lines")[0] == "data-00000-of-00003.tfrecord"
    assert len(same(tmp_path, "paragraphs")) == 6 and len(same(tmp_path, "files")) == 41
    assert len(same(tmp_path, "pieces")) == 4
    records = Records(tmp_path / "lines-beam", tokenizer=Tokenizer.from_pretrained(folder / "bpe"))
    assert records.count > 20 and records.origin["documents"] == 120


def test_failures_are_named_and_leave_nothing(folder, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    full = job(tmp_path, "full", [folder / "a.txt"], local=False) | {"folder": str(tmp_path / "full")}
    jobs = [
        job(tmp_path, "bad", [folder / "bad.txt"], local=False),
        job(tmp_path, "empty", [folder / "empty.txt"], local=False),
        job(tmp_path, "absent", [folder / "absent.txt"], local=False),
        full,
        job(tmp_path, "mask", [folder / "a.txt"], local=False, kind="masked"),
    ]
    said = run(folder / "bpe", *jobs)
    for message in (
        "bad.txt, line 201: byte 0xe9 at 1,001 is not UTF-8.",
        "The source is empty: it has no document",
        "FileNotFoundError There is no file '",
        "FileExistsError",
        "ValueError Masked rows need a mask and a padding token",
    ):
        assert message in said
    assert [path.name for path in tmp_path.rglob("*")] == ["full", "file"]


@pytest.mark.samples
def test_real_text_on_several_workers(tmp_path):
    novels = samples.austen_novels()
    for name in ("Persuasion", "Northanger Abbey"):
        (tmp_path / f"{name}.txt").write_text(novels[name], encoding="utf-8")
    files = sorted(tmp_path.glob("*.txt"))
    workers = [RUNNER, "--direct_num_workers=2", "--direct_running_mode=multi_processing"]
    jobs = [
        job(tmp_path, "causal", files, shards=4, options=workers, sequence_lengths=[128], group=100_000),
        job(
            tmp_path, "masked", files, shards=3, sequence_lengths=[64, 128], kind="masked", documents="paragraph",
            group=100_000,
        ),
    ]  # fmt: skip
    assert run(samples.minilm(), *jobs) == ""
    assert len(same(tmp_path, "causal")) == 5 and len(same(tmp_path, "masked")) == 8
    assert Records(tmp_path / "causal-beam").count > 1500
