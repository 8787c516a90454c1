"""Texts to records: every token comes, in known places, and what cannot be prepared is told."""

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import tokenizers

from tfxformer import samples
from tfxformer.data import Records, RecordsError, prepare_records, rows_of, write_records
from tfxformer.data.records import preparing
from tfxformer.data.records.preparing import Preparation, prepare
from tfxformer.text import Tokenizer

TEXTS = ["We saw a good film.", "It was long, and fine!", " ", "a", "Good. " * 30, "The film was dull.", ""]


@pytest.fixture(scope="module")
def novel():
    """The beginning of a novel, and MiniLM's tokenizer."""
    text = samples.austen_novels()["Persuasion"][:60_000]
    return text, Tokenizer.from_pretrained(samples.minilm())


@pytest.fixture(scope="module")
def bpe():
    """A tokenizer with an end token."""
    return Tokenizer.train_byte_level_bpe(TEXTS, 280)


def arrays(records):
    """All rows in their order, as one batch."""
    (batch,) = records.dataset(records.count).as_numpy_iterator()
    return batch


def files_of(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.samples
def test_causal_rows_hold_every_pair_of_real_text(novel, tmp_path):
    """A second way: the Rust tokenizer on each document, read off the rows pair by pair."""
    text, tokenizer = novel
    (tmp_path / "novel.txt").write_text(text, encoding="utf-8")
    records = prepare(Preparation("causal", (128,), group=9000), tmp_path / "novel.txt", tmp_path / "set", tokenizer, 3)
    rust = tokenizers.Tokenizer.from_file(str(samples.minilm() / "tokenizer.json"))
    rust.no_truncation()
    rust.no_padding()
    lines = [line for line in text.split("\n") if line.strip()]
    expected = []
    for encoding in rust.encode_batch(lines):
        expected += zip(encoding.ids[:-1], encoding.ids[1:], strict=True)
    found = arrays(records)
    there = found["weights"].astype(bool)
    assert list(zip(found["token_ids"][there], found["targets"][there], strict=True)) == expected
    assert not found["padding_mask"][~there].any() and found["padding_mask"][there].all()
    assert records.origin["tokens"] == len(expected) and records.origin["documents"] == len(lines)
    groups = -(-len(text.encode()) // 9000)
    assert (~there).sum() < groups * 128  # less than a row of padding a group


def test_threads_change_nothing(bpe, tmp_path, monkeypatch):
    texts = TEXTS * 20
    settings = Preparation("causal", (16,), group=200)
    with monkeypatch.context() as patch:
        patch.setattr(preparing, "_THREADS", {"line": 3})
        several = prepare(settings, texts, tmp_path / "several", bpe, 3)
    alone = prepare(settings, iter([{"text": text} for text in texts]), tmp_path / "alone", bpe, 3)
    assert files_of(several.folder) == files_of(alone.folder)
    assert several.fingerprint == alone.fingerprint and {p.name for p in tmp_path.iterdir()} == {"several", "alone"}


def test_documents_end_with_the_end_token(bpe, tmp_path):
    found = arrays(prepare_records(["ab", "c"], tmp_path / "set", bpe, sequence_length=8, shards=1))
    ab, c = bpe.ids(["ab", "c"])
    reads, follows = [*ab, *c], [*ab[1:], bpe.eos_id, *c[1:], bpe.eos_id]
    assert found["token_ids"][0, : len(reads)].tolist() == reads
    assert found["targets"][0, : len(reads)].tolist() == follows
    assert found["padding_mask"][0].tolist() == [1] * len(ab) + [2] * len(c) + [0] * (8 - len(reads))


def test_masked_rows_are_the_tokenizers_own_windows(tiny_tokenizer, tmp_path):
    records = prepare_records(TEXTS, tmp_path / "set", tiny_tokenizer, sequence_length=16, kind="masked", shards=2)
    expected = tiny_tokenizer.encode([t for t in TEXTS if t.strip()], sequence_length=16, return_overflow=True)
    found = arrays(records)
    assert list(found) == ["padding_mask", "segment_ids", "token_ids"]
    for name, value in found.items():
        np.testing.assert_array_equal(value, getattr(expected, name))
    words = tiny_tokenizer.ids([TEXTS[4]], special_tokens=False)[0]
    begin = int(np.flatnonzero(expected.overflow_to_sample == 3)[0])
    kept = [row[row > 0][1:-1] for row in found["token_ids"][begin:-1]]
    assert np.concatenate(kept).tolist() == words  # nothing of the long text is lost


def test_pieces_are_the_texts_one_after_another(bpe, tmp_path):
    texts = [text for text in TEXTS if text.strip()]
    settings = Preparation("pieces", (16,), group=60)
    records = prepare(settings, TEXTS, tmp_path / "set", bpe, 2)
    found = arrays(records)
    assert list(found) == ["padding_mask", "token_ids"]
    read, there = found["token_ids"], found["padding_mask"] > 0
    assert read[there].tolist() == [token for row in bpe.ids(texts, special_tokens=False) for token in row]
    assert (np.diff(there.astype(int), axis=1) <= 0).all() and (read[~there] == bpe.padding_id).all()
    full = there.all(axis=1)
    assert 0 < (~full).sum() <= 3  # at most the last row of each group
    assert records.origin["kind"] == "pieces" and records.origin["tokens"] == there.sum()


def test_several_lengths_are_several_sets(tiny_tokenizer, tmp_path):
    settings = Preparation("masked", (8, 16, 32, 64), group=60)
    sets = prepare(settings, TEXTS[:4], tmp_path / "sets", tiny_tokenizer, 2)
    assert list(sets) == [8, 16] and sorted(p.name for p in (tmp_path / "sets").iterdir()) == ["16", "8"]
    lengths = tiny_tokenizer.token_counts(["".join(t) for t in TEXTS[:4] if t.strip()])
    assert [sets[8].count, sets[16].count] == [(lengths <= 8).sum(), ((lengths > 8) & (lengths <= 16)).sum()]
    for length, records in sets.items():
        assert arrays(records)["token_ids"].shape == (records.count, length)
        assert records.origin["sequence_length"] == length and records.origin["documents"] == 3


def test_the_index_knows_its_tokenizer(bpe, tiny_tokenizer, tmp_path):
    records = prepare_records(TEXTS, tmp_path / "set", bpe, sequence_length=16)
    index = json.loads((tmp_path / "set" / "index.json").read_text(encoding="utf-8"))
    assert index["origin"] == records.origin
    assert records.origin["kind"] == "causal" and records.origin["tokenizer"] == bpe.fingerprint
    bpe.save_pretrained(tmp_path / "saved")
    assert Records(tmp_path / "set", tokenizer=Tokenizer.from_pretrained(tmp_path / "saved")).count == records.count
    with pytest.raises(RecordsError, match=r"made with another tokenizer .* their ids mean other tokens"):
        Records(tmp_path / "set", tokenizer=tiny_tokenizer)
    bare = write_records(rows_of({"a": np.zeros((2, 3), np.int32)}), tmp_path / "bare")
    assert bare.origin is None
    with pytest.raises(RecordsError, match="does not tell its tokenizer"):
        Records(tmp_path / "bare", tokenizer=bpe)


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        ([], {}, "The source is empty"),
        (["", " \n"], {}, "The source is empty"),
        (["a"], {"shards": 0}, "shards=0: at least one file"),
        (["a"], {"kind": "nsp"}, "kind='nsp' must be one of causal, masked, pieces"),
        (["a"], {"documents": "word"}, "documents='word'"),
        (["a"], {"sequence_length": (64, 128)}, "causal rows are full blocks of one length"),
        (["a"], {"sequence_length": (64, 128), "kind": "pieces"}, "pieces rows are full blocks of one length"),
        (["a"], {"sequence_length": 0}, "wanted a length"),
        (["a"], {"sequence_length": (64, 32), "kind": "masked"}, "several that grow"),
        (["a"], {"kind": "masked"}, "Masked rows need a mask and a padding token"),
    ],
)
def test_what_cannot_be_prepared_leaves_nothing(bpe, tmp_path, source, options, message):
    with pytest.raises(ValueError, match=message):
        prepare_records(source, tmp_path / "set", bpe, **options)
    assert list(tmp_path.iterdir()) == []


def test_texts_of_one_token_have_no_pair(tmp_path):
    characters = Tokenizer.characters("abc")
    with pytest.raises(RecordsError, match="none of 2 documents has two tokens"):
        prepare_records(["a", "b"], tmp_path / "set", characters)


def test_an_error_in_a_late_group_leaves_nothing(bpe, tmp_path):
    lines = [json.dumps({"text": text}) for text in TEXTS * 9] + ['{"body": 1}']
    (tmp_path / "rows.jsonl").write_text("\n".join(lines), encoding="utf-8")
    with pytest.raises(ValueError, match=r"rows.jsonl:64: there is no field 'text'"):
        prepare(Preparation("causal", (16,), group=300), tmp_path / "rows.jsonl", tmp_path / "set", bpe, 2)
    assert [path.name for path in tmp_path.iterdir()] == ["rows.jsonl"]
    with pytest.raises(FileExistsError, match="has files already"):
        prepare_records(TEXTS, tmp_path, bpe)


def test_full_disk_leaves_nothing_and_a_bar_shows(tmp_path):
    """In a process that may write files of 100 kB only."""
    script = textwrap.dedent(
        f"""
        import resource, signal, sys
        from tfxformer.data import prepare_records
        from tfxformer.text import Tokenizer
        tokenizer = Tokenizer.characters("abcdefgh ")
        prepare_records(["abc"] * 10, {str(tmp_path / "small")!r}, tokenizer, shards=2, verbose=True)
        assert "tensorflow" not in sys.modules
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        try:
            prepare_records(("abc def" * 100 for _ in range(9000)), {str(tmp_path / "large")!r}, tokenizer)
        except OSError as error:
            print("said:", error)
        """
    )
    root = Path(__file__).parents[3]
    environment = os.environ | {"PYTHONPATH": str(root)}
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, cwd=root, timeout=120, env=environment)
    assert "said: The records of" in done.stdout and "could not be written: File too large" in done.stdout, done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["small"] and "Tokenizing" in done.stderr
