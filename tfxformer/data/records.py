"""Rows of tokens in files: deterministic TFRecord shards with an index, read by many workers from any position.

    write_records(rows_of(pack(documents, 128)), "data/train", shards=16)
    records = Records("data/train")
    model.fit(records.dataset(32, seed=0, epochs=3))

A folder holds `name-00000-of-00016.tfrecord`, ... and `index.json`, which is written last: a folder without one is not
finished. Row k is in shard k modulo the number of shards. Equal rows make equal files.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tfxformer import __version__
from tfxformer.data.record_format import RecordFormat, RecordsError
from tfxformer.data.record_order import serialized_rows

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


def write_records(rows: Iterable[Mapping[str, np.ndarray]], folder, name: str = "data", *, shards: int = 8) -> Records:
    """Writes rows into a new folder, whole or not at all.

    Args:
        rows: dicts of int32 and float32 arrays, every row of the same names and shapes; see `rows_of`.
        folder: must not exist yet, or be empty.
        name: what the files' names begin with.
        shards: files; a multiple of the number of workers lets each read its own ones only.

    Raises:
        RecordsError: for a row that is not like the first one, or no row.
        FileExistsError: for a folder that has files.
        OSError: where the disk is full or refuses; nothing is left behind.
    """
    import tensorflow as tf

    folder = Path(folder)
    if shards < 1:
        raise RecordsError(f"shards={shards}: at least one file is needed.")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileExistsError(f"{folder} has files already. Name a new folder, or remove it first.")
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    temporary.mkdir(parents=True)
    writers = []
    try:
        writers += [tf.io.TFRecordWriter(str(temporary / shard_name(name, i, shards))) for i in range(shards)]
        form = None
        for index, row in enumerate(rows):
            form = form or RecordFormat.of(row)
            writers[index % shards].write(form.encode(row, f"Row {index}"))
        if form is None:
            raise RecordsError("There is no row to write.")
        for writer in writers:
            writer.close()
        index_shards(temporary, name, shards, form)
        temporary.replace(folder)
    except tf.errors.OpError as error:
        raise OSError(f"The records of {folder} could not be written: {error.message}") from error
    finally:
        writers.clear()  # closed where an error left them open
        shutil.rmtree(temporary, ignore_errors=True)
    return Records(folder, check=False)


def index_shards(folder, name: str, shards: int, form: RecordFormat) -> None:
    """Writes the index of complete shards; the last step of writing a folder, whoever wrote the files.

    Raises:
        RecordsError: for files of a size that is no number of records, or counts that differ by more than one.
    """
    folder, entries = Path(folder), []
    for index in range(shards):
        path = folder / shard_name(name, index, shards)
        size = path.stat().st_size
        if size % form.record_bytes:
            raise RecordsError(f"{path} has {size:,} bytes, which is no number of records of {form.record_bytes:,}.")
        entries.append(Shard(path.name, size // form.record_bytes, size, _sha256(path)))
    counts = [entry.count for entry in entries]
    total = sum(counts)
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
        "shards": [entry._asdict() for entry in entries],
    }
    temporary = folder / f".{INDEX}.{os.getpid()}.tmp"
    try:
        temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        temporary.replace(folder / INDEX)
    finally:
        temporary.unlink(missing_ok=True)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


class Records:
    """Records of a folder that `write_records` made.

    Args:
        folder: with its index.json.
        check: read all files once and compare their checksums; False looks at their sizes only.

    Attributes:
        count: rows.
        format: `RecordFormat` of a row.
        version: of the tfxformer that wrote them.
        fingerprint: of all rows and their order; workers with equal ones have equal data.

    Raises:
        RecordsError: for an index that is missing, broken or of another format, and for shards that are missing,
            truncated or changed.
    """

    def __init__(self, folder, *, check: bool = True):
        self.folder = Path(folder)
        content = self._read_index()
        try:
            self.format = RecordFormat.from_json(content["features"])
            self.count, self.version = int(content["count"]), content["tfxformer"]
            self.shards = [Shard(**entry) for entry in content["shards"]]
            whole = self.count == sum(shard.count for shard in self.shards) and self.shards
        except (KeyError, TypeError, ValueError) as error:
            raise RecordsError(f"{self.folder / INDEX} is not whole ({error!r}): write the records again.") from error
        if not whole or any(shard.bytes != shard.count * self.format.record_bytes for shard in self.shards):
            raise RecordsError(f"{self.folder / INDEX} contradicts itself: its counts and sizes do not agree.")
        self._check_shards(check)
        told = json.dumps([self.format.to_json(), [(shard.count, shard.sha256) for shard in self.shards]])
        self.fingerprint = hashlib.sha256(told.encode()).hexdigest()

    def _read_index(self) -> dict:
        path = self.folder / INDEX
        if not path.is_file():
            raise RecordsError(f"{self.folder} has no {INDEX}: it holds no records, or writing them did not end.")
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise RecordsError(f"{path} is not whole ({error}): write the records again.") from error
        found = content.get("format") if isinstance(content, dict) else None
        if found != FORMAT:
            raise RecordsError(f"{path} has format {found!r}; this tfxformer {__version__} reads {FORMAT}.")
        return content

    def _check_shards(self, checksums: bool) -> None:
        for shard in self.shards:
            path = self.folder / shard.file
            if not path.is_file():
                raise RecordsError(f"{path} is missing: the index has {len(self.shards)} shards. Copy it again.")
            if path.stat().st_size != shard.bytes:
                raise RecordsError(
                    f"{path} has {path.stat().st_size:,} bytes, its index says {shard.bytes:,}: it is truncated or of "
                    "another set. Copy it again."
                )
            if checksums and _sha256(path) != shard.sha256:
                raise RecordsError(f"{path} has changed since it was written (its sha256 differs). Copy it again.")

    def rows(self, worker: int = 0, workers: int = 1) -> int:
        """The rows of an epoch for one of several workers."""
        if not 0 <= worker < workers:
            raise ValueError(f"worker={worker} must be one of {workers}: 0 to {workers - 1}.")
        return len(range(worker, self.count, workers))

    def position_after(self, rows: int, worker: int = 0, workers: int = 1) -> tuple[int, int]:
        """(epoch, position) to go on from after a worker has read so many rows since epoch 0."""
        return divmod(rows, self.rows(worker, workers))

    def dataset(
        self,
        batch_size: int | None,
        *,
        seed: int | None = None,
        epoch: int = 0,
        position: int = 0,
        epochs: int = 1,
        worker: int = 0,
        workers: int = 1,
        window: int = 1024,
        drop_remainder: bool = True,
    ):
        """A `tf.data.Dataset` of batches: name -> tensor [B, *shape].

        The order of an epoch depends on the seed and the epoch's number alone. Worker i of n reads every n-th row of
        it, from i on: n workers see together, step by step, what one would see with n times the batch. So do not let a
        strategy shard it again: give it to `strategy.distribute_datasets_from_function` with the context's
        `input_pipeline_id` and `num_input_pipelines`.

        Args:
            batch_size: rows of a batch; None for rows. A batch may hold rows of two epochs.
            seed: shuffles all shards, the windows of each, and the rows of each window; None: as they were written.
            epoch, position: where to begin: the first epoch, and how many rows of this worker to leave out in it. It
                takes no longer from the middle.
            epochs: how many epochs, the one that is begun in the middle too.
            worker, workers: which one of how many. Only where `workers` divides the number of shards does each read
                files of its own; else all read all.
            window: rows of a shard that are read and shuffled together; a window of each shard is in memory.
            drop_remainder: leave out a short last batch, so that all have one static shape.

        Raises:
            ValueError: for a worker or a position that is not there.
        """
        if not 0 <= position <= self.rows(worker, workers):
            raise ValueError(
                f"position={position} is not in an epoch of {self.rows(worker, workers)} rows (worker {worker} of "
                f"{workers}); position_after counts over epochs."
            )
        if epochs < 1 or epoch < 0 or window < 1:
            raise ValueError(f"epochs={epochs} and window={window} must be at least 1, epoch={epoch} at least 0.")
        import tensorflow as tf

        epochs = range(epoch, epoch + epochs)
        records = serialized_rows(self, seed, epochs, position, worker, workers, window)
        if batch_size is None:
            records = records.batch(256).map(self.format.decode, tf.data.AUTOTUNE).unbatch()
        else:
            records = records.batch(batch_size, drop_remainder=drop_remainder)
            records = records.map(self.format.decode, tf.data.AUTOTUNE)
        left = self.rows(worker, workers) * len(epochs) - position
        if batch_size is not None:
            left = left // batch_size if drop_remainder else -(-left // batch_size)
        return records.apply(tf.data.experimental.assert_cardinality(left)).prefetch(tf.data.AUTOTUNE)
