"""The command prepare: raw texts become records. See `actions`."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

from tfxformer import data


def prepare(files, tokenizer, output, sequence_length, kind, documents, field, shards, beam) -> dict:
    """Tokenizes text files into a folder of records: what was written."""
    options = {
        "sequence_length": lengths(sequence_length),
        "kind": kind,
        "documents": documents,
        "field": field,
        "shards": shards,
    }
    opened = open_tokenizer(tokenizer)
    if beam is not None:
        from tfxformer.data.records.beam import prepare_records

        records = prepare_records(files, output, opened, options=shlex.split(beam), **options)
    else:
        paths = [Path(file).expanduser() for file in files]
        records = data.prepare_records(paths, output, opened, verbose=sys.stderr.isatty(), **options)
    if not isinstance(records, dict):
        return {"folder": str(output), **({} if records is None else _facts(records))}
    return {"folder": str(output), "sequence_lengths": {str(length): _facts(one) for length, one in records.items()}}


def lengths(given: str) -> int | list[int]:
    """One sequence length, or several that are parted by commas."""
    try:
        found = [int(part) for part in given.split(",")]
    except ValueError as error:
        raise ValueError(f"--sequence-length {given}: wanted a number, or several with commas.") from error
    return found[0] if len(found) == 1 else found


def open_tokenizer(model: str):
    """The tokenizer of a folder, a hub id, a .gguf file or a tokenizer.json."""
    from tfxformer.text import Tokenizer

    path = Path(model).expanduser()
    if path.suffix == ".json":
        return Tokenizer.from_file(path)
    if path.is_dir():  # it need not be a whole checkpoint
        return Tokenizer.from_pretrained(path)
    from tfxformer.checkpoints.files.gguf import GGUFFile, is_gguf
    from tfxformer.checkpoints.files.hub import resolve
    from tfxformer.recipes.models import with_revision

    found = resolve(*with_revision(model))
    return Tokenizer.from_gguf(GGUFFile(found).metadata) if is_gguf(found) else Tokenizer.from_pretrained(found)


def _facts(records) -> dict:
    positions = records.count * records.origin["sequence_length"]
    return {
        "documents": records.origin["documents"],
        "rows": records.count,
        "tokens": records.origin["tokens"],
        "padding": 1 - records.origin["tokens"] / positions,
        "shards": len(records.shards),
        "megabytes": sum(shard.bytes for shard in records.shards) / 1e6,
        "fingerprint": records.fingerprint,
    }
