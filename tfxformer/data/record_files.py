"""Writing records: a folder that appears whole or not at all, its shards, and the index that closes it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tfxformer import __version__
from tfxformer.data.record_format import RecordFormat, RecordsError

INDEX = "index.json"
FORMAT = 1  # of the index; another number is another layout


class Shard(NamedTuple):
    """A file of records: its name, how many it holds, its bytes and their checksum."""

    file: str
    count: int
    bytes: int
    sha256: str


def shard_name(name: str, shard: int, shards: int) -> str:
    """name-00003-of-00016.tfrecord."""
    return f"{name}-{shard:05d}-of-{shards:05d}.tfrecord"


def check_shards(shards: int) -> None:
    """Raises RecordsError for no file at all."""
    if shards < 1:
        raise RecordsError(f"shards={shards}: at least one file is needed.")


@contextlib.contextmanager
def new_folder(folder) -> Iterator[Path]:
    """A temporary folder that becomes `folder` when all went well, and else leaves nothing.

    Raises:
        FileExistsError: for a folder that has files.
    """
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileExistsError(f"{folder} has files already. Name a new folder, or remove it first.")
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    with writing(folder):
        temporary.mkdir(parents=True)
    try:
        yield temporary
        with writing(folder):
            temporary.replace(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextlib.contextmanager
def writing(folder) -> Iterator[None]:
    """Says of an OSError that it was met in writing records."""
    try:
        yield
    except OSError as error:
        raise OSError(f"The records of {folder} could not be written: {error.strerror or error}.") from error


class ShardFiles:
    """The files of one set while they are written: row k goes into shard k modulo their number.

    Args:
        folder: where the files are made.
        target: the folder that messages name.
    """

    def __init__(self, folder: Path, target, name: str, shards: int):
        self.rows = 0
        self._target = target
        with writing(target):
            folder.mkdir(exist_ok=True)
            self._files = [(folder / shard_name(name, shard, shards)).open("wb") for shard in range(shards)]
        self._folder = folder

    def write(self, rows: np.ndarray) -> None:
        """The next rows, uint8 [R, record_bytes], as `RecordFormat.encode` makes them."""
        with writing(self._target):
            for shard, file in enumerate(self._files):
                file.write(rows[(shard - self.rows) % len(self._files) :: len(self._files)].tobytes())
        self.rows += len(rows)

    def remove(self) -> None:
        """Removes the folder: no row was written."""
        shutil.rmtree(self._folder)

    def close(self) -> None:
        """Ends the files."""
        with writing(self._target), contextlib.ExitStack() as stack:
            for file in self._files:
                stack.callback(file.close)


def index_shards(folder, name: str, shards: int, form: RecordFormat, origin: dict[str, Any] | None = None) -> None:
    """Writes the index of complete shards; the last step of writing a folder, whoever wrote the files.

    Args:
        origin: what the rows were made of and how, ready for JSON.

    Raises:
        RecordsError: for files of a size that is no number of records, or counts that differ by more than one.
    """
    folder, entries = Path(folder), []
    for index in range(shards):
        path = folder / shard_name(name, index, shards)
        size = path.stat().st_size
        if size % form.record_bytes:
            raise RecordsError(f"{path} has {size:,} bytes, which is no number of records of {form.record_bytes:,}.")
        entries.append(Shard(path.name, size // form.record_bytes, size, sha256_of(path)))
    content = index_text(folder, name, entries, form, origin)
    temporary = folder / f".{INDEX}.{os.getpid()}.tmp"
    try:
        temporary.write_text(content, encoding="utf-8")
        temporary.replace(folder / INDEX)
    finally:
        temporary.unlink(missing_ok=True)


def index_text(folder, name: str, entries: list[Shard], form: RecordFormat, origin: dict[str, Any] | None) -> str:
    """What index.json says of shards.

    Raises:
        RecordsError: for counts that differ by more than one.
    """
    counts = [entry.count for entry in entries]
    total, shards = sum(counts), len(entries)
    if counts != [len(range(index, total, shards)) for index in range(shards)]:
        raise RecordsError(
            f"Row k belongs into shard k modulo {shards}, but the shards of {folder} have {counts} rows."
        )
    content = {
        "format": FORMAT,
        "tfxformer": __version__,
        "name": name,
        "count": total,
        "record_bytes": form.record_bytes,
        "features": form.to_json(),
        **({} if origin is None else {"origin": origin}),
        "shards": [entry._asdict() for entry in entries],
    }
    return json.dumps(content, indent=1) + "\n"


def sha256_of(path: Path) -> str:
    """Of a file, in hexadecimal."""
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
