"""prepare: text files become records, or a line says why not."""

import json

from typer.testing import CliRunner

from tfxformer.cli.main import app
from tfxformer.data import Records
from tfxformer.text import Tokenizer

LINES = ["the film was good", "the plot was dull", "we saw a fine film"] * 9


def run(*arguments):
    return CliRunner().invoke(app, ["prepare", *map(str, arguments)])


def test_text_files_become_records(tiny, tmp_path):
    (tmp_path / "a.txt").write_text("\n".join(LINES), encoding="utf-8")
    (tmp_path / "b.jsonl").write_text('{"body": "it is fine"}\n', encoding="utf-8")
    files = [tmp_path / "a.txt", tmp_path / "b.jsonl"]
    done = run(*files, "--tokenizer", tiny, "-o", tmp_path / "set", "--shards", 2, "--field", "body", "--json")
    assert done.exit_code == 0, done.stderr
    told = json.loads(done.stdout)
    records = Records(tmp_path / "set", tokenizer=Tokenizer.from_pretrained(tiny))
    assert told["documents"] == 28 and told["rows"] == records.count and told["shards"] == len(records.shards) == 2
    assert told["fingerprint"] == records.fingerprint and records.origin["kind"] == "causal"
    assert told["padding"] == 1 - told["tokens"] / (128 * told["rows"])


def test_masked_rows_of_several_lengths(tiny, tmp_path):
    (tmp_path / "a.txt").write_text("good film\n" + " ".join(LINES[:2]) + "\n", encoding="utf-8")
    options = ["--kind", "masked", "--sequence-length", "4,16", "-o", tmp_path / "sets", "--documents", "line"]
    done = run(tmp_path / "a.txt", "--tokenizer", tiny / "tokenizer.json", *options, "--json")
    assert done.exit_code == 0, done.stderr
    told = json.loads(done.stdout)["sequence_lengths"]
    assert [told[length]["rows"] for length in ("4", "16")] == [1, 1]
    assert Records(tmp_path / "sets" / "16").count == 1


def test_errors_are_one_line(tiny, tmp_path):
    (tmp_path / "bad.txt").write_bytes(b"good\n\xff")
    for arguments, message in (
        ([tmp_path / "bad.txt"], "bad.txt, line 2: byte 0xff at 5 is not UTF-8."),
        ([tmp_path / "absent.txt"], "There is no file"),
        ([tmp_path / "bad.txt", "--sequence-length", "1,x"], "--sequence-length 1,x: wanted a number"),
    ):
        done = run(*arguments, "--tokenizer", tiny, "-o", tmp_path / "set")
        assert done.exit_code == 1 and done.stdout == "" and message in done.stderr and done.stderr.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["bad.txt"]
