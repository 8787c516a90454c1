"""Writing records: a folder that appears whole or not at all, its shards, and the index that closes it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tfxformer import __version__
from tfxformer.data.records.format import RecordFormat, RecordsError
from tfxformer.files import replacing_folder, write_text

INDEX = "index.json"
FORMAT = 2  # of the index; another number is another layout
_UNCHECKED_FORMAT = 1  # of version 0.4.0 and before: without a sha256 of the index itself
_NO_SHA256 = "0" * 64  # in the place of the digest while it is computed


class Shard(NamedTuple):
    """A file of records: its name, how many it holds, its bytes and their checksum."""

    file: str
    count: int
    bytes: int
    sha256: str

    def checked(self) -> Shard:
        """The file name, where an index may name it.

        Raises:
            RecordsError: for a name that could be of another folder, and numbers that are none.
        """
        # A path, or the name of a drive or stream, could open any file of the machine.
        plain = isinstance(self.file, str) and re.fullmatch(r"[^/\\:\0]*\.tfrecord", self.file)
        if not plain or not all(type(number) is int and number >= 0 for number in (self.count, self.bytes)):
            raise RecordsError(f"The index names {tuple(self)}: a shard is a .tfrecord file beside it. Copy it again.")
        return self


def shard_name(name: str, shard: int, shards: int) -> str:
    """name-00003-of-00016.tfrecord."""
    return f"{name}-{shard:05d}-of-{shards:05d}.tfrecord"


def check_shards(shards: int) -> None:
    """Raises RecordsError for no file at all."""
    if shards < 1:
        raise RecordsError(f"shards={shards}: at least one file is needed.")


@contextlib.contextmanager
def new_folder(folder) -> Iterator[Path]:
    """Yields an empty folder that becomes `folder` if the block ends well, and is removed otherwise; see `files`.

    Raises:
        FileExistsError: for a folder that has files.
    """
    folder = Path(folder).expanduser()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileExistsError(f"{folder} has files already. Name a new folder, or remove it first.")
    with replacing_folder(folder) as new:
        yield new


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
    write_text(folder / INDEX, index_text(folder, name, entries, form, origin))


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
    return sealed(content)


def sealed(content: dict[str, Any]) -> str:
    """The text of an index, which holds the SHA-256 of the rest of itself."""
    text = json.dumps({**content, "sha256": _NO_SHA256}, indent=1) + "\n"
    return text.replace(_NO_SHA256, hashlib.sha256(text.encode()).hexdigest(), 1)


def read_index(folder: Path) -> dict:
    """index.json of a folder, as it was written.

    Raises:
        RecordsError: where it is missing, of another format, or changed since.
    """
    path = folder / INDEX
    if not path.is_file():
        raise RecordsError(f"{folder} has no {INDEX}: it holds no records, or writing them did not end.")
    try:
        text = path.read_text(encoding="utf-8")
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise RecordsError(f"{path} is not whole ({error}): write the records again.") from error
    found = content.get("format") if isinstance(content, dict) else None
    if found not in (FORMAT, _UNCHECKED_FORMAT):
        raise RecordsError(f"{path} has format {found!r}; this tfxformer {__version__} reads {FORMAT}.")
    told = content.get("sha256")
    if found == FORMAT:
        blank = text.replace(told, _NO_SHA256, 1) if isinstance(told, str) and told else ""
        if hashlib.sha256(blank.encode()).hexdigest() != told:
            raise RecordsError(f"{path} has changed since it was written (its sha256 differs). Copy it again.")
    return content


def sha256_of(path: Path) -> str:
    """Of a file, in hexadecimal."""
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
