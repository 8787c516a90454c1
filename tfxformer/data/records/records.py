"""Rows of tokens in files: deterministic TFRecord shards with an index, read by many workers from any position.

    write_records(rows_of(pack(documents, 128)), "data/train", shards=16)
    records = Records("data/train")
    model.fit(records.dataset(32, seed=0, epochs=3))

A folder holds `name-00000-of-00016.tfrecord`, ... and `index.json`, which is written last: a folder without one is not
finished. Row k is in shard k modulo the number of shards. Equal rows make equal files.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np

from tfxformer.data.records import files as record_files
from tfxformer.data.records.files import INDEX, Shard, index_shards, read_index, sha256_of, shard_name
from tfxformer.data.records.format import RecordFormat, RecordsError
from tfxformer.data.records.order import framed_rows, rows_in_order
from tfxformer.extras import needs
from tfxformer.files import recover
from tfxformer.text import Tokenizer

__all__ = ["Records", "index_shards", "shard_name", "write_records"]
_TOGETHER = 1024  # rows that are encoded at once


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
    record_files.check_shards(shards)
    with record_files.new_folder(folder) as temporary:
        files, form, rows = record_files.ShardFiles(temporary, folder, name, shards), None, iter(rows)
        try:
            while together := list(itertools.islice(rows, _TOGETHER)):
                form = form or RecordFormat.of(together[0])
                for index, row in enumerate(together, files.rows):
                    form.check(row, f"Row {index}")
                files.write(form.encode({name: np.stack([row[name] for row in together]) for name in form.features}))
        finally:
            files.close()
        if form is None:
            raise RecordsError("There is no row to write.")
        with record_files.writing(folder):
            index_shards(temporary, name, shards, form)
    return Records(folder, check=False)


class Records:
    """Records of a folder that `write_records` made.

    Args:
        folder: with its index.json.
        check: read all files once and compare their checksums; False looks at their sizes only.
        tokenizer: the one of the model that reads them: records that another one made are refused.

    Attributes:
        count: rows.
        format: `RecordFormat` of a row.
        version: of the tfxformer that wrote them.
        origin: what `prepare_records` made them of, and how: a dict; None where the rows were written as they are.
        fingerprint: of all rows and their order; workers with equal ones have equal data.

    Raises:
        RecordsError: for an index that is missing, broken or of another format, and for shards that are missing,
            truncated or changed, or of another tokenizer.
    """

    def __init__(self, folder, *, check: bool = True, tokenizer: Tokenizer | None = None):
        self.folder = Path(folder).expanduser()
        recover(self.folder)
        content = read_index(self.folder)
        with self._reading():
            self.shards = [Shard(**entry).checked() for entry in content["shards"]]
            largest = max(shard.bytes for shard in self.shards)
        self._check_sizes()  # the files bound what the index may claim, before anything of that size is made
        with self._reading():
            self.format = RecordFormat.from_json(content["features"], largest)
            self.count, self.version = int(content["count"]), content["tfxformer"]
            self.origin = content.get("origin")
            whole = self.count == sum(shard.count for shard in self.shards)
        if not whole or any(shard.bytes != shard.count * self.format.record_bytes for shard in self.shards):
            raise RecordsError(f"{self.folder / INDEX} contradicts itself: its counts and sizes do not agree.")
        if tokenizer is not None:
            self.check_tokenizer(tokenizer)
        if check:
            self._check_sums()
        told = json.dumps([self.format.to_json(), [(shard.count, shard.sha256) for shard in self.shards]])
        self.fingerprint = hashlib.sha256(told.encode()).hexdigest()

    @contextlib.contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise RecordsError(f"{self.folder / INDEX} is not whole ({error!r}): write the records again.") from error

    def _check_sizes(self) -> None:
        for shard in self.shards:
            path = self.folder / shard.file
            if not path.is_file():
                raise RecordsError(f"{path} is missing: the index has {len(self.shards)} shards. Copy it again.")
            if path.stat().st_size != shard.bytes:
                raise RecordsError(
                    f"{path} has {path.stat().st_size:,} bytes, its index says {shard.bytes:,}: it is truncated or of "
                    "another set. Copy it again."
                )

    def _check_sums(self) -> None:
        for shard in self.shards:
            if sha256_of(self.folder / shard.file) != shard.sha256:
                raise RecordsError(
                    f"{self.folder / shard.file} has changed since it was written (its sha256 differs). Copy it again."
                )

    def check_tokenizer(self, tokenizer: Tokenizer) -> None:
        """Raises RecordsError where another tokenizer made the records, or they do not tell which one did."""
        if self.origin is None:
            raise RecordsError(
                f"{self.folder / INDEX} does not tell its tokenizer: its rows were written by write_records, not by "
                "prepare_records. Open it without tokenizer=."
            )
        if self.origin["tokenizer"] != tokenizer.fingerprint:
            raise RecordsError(
                f"The records of {self.folder} were made with another tokenizer (fingerprint "
                f"{self.origin['tokenizer'][:12]}, this one has {tokenizer.fingerprint[:12]}): their ids mean other "
                "tokens. Prepare them again with this one."
            )

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
        self._check_place(position, epoch, epochs, worker, workers, window)
        needs("A dataset of records", "tensorflow")
        import tensorflow as tf

        epochs = range(epoch, epoch + epochs)
        rows = framed_rows(self, seed, epochs, position, worker, workers, window)
        rows = rows.rebatch(batch_size or _TOGETHER, drop_remainder=batch_size is not None and drop_remainder)
        rows = rows.map(self.format.decode, tf.data.AUTOTUNE)
        if batch_size is None:
            rows = rows.unbatch()
        left = self.rows(worker, workers) * len(epochs) - position
        if batch_size is not None:
            left = left // batch_size if drop_remainder else -(-left // batch_size)
        return rows.apply(tf.data.experimental.assert_cardinality(left)).prefetch(tf.data.AUTOTUNE)

    def batches(
        self,
        batch_size: int,
        *,
        seed: int | None = None,
        epoch: int = 0,
        position: int = 0,
        worker: int = 0,
        workers: int = 1,
        window: int = 1024,
    ) -> Iterator[dict[str, np.ndarray]]:
        """Batches of one epoch as arrays [B, *shape] by name, read by numpy: for Keras on JAX, without TensorFlow.

        A short last batch is left out. The order depends on the seed and the epoch's number alone; shuffled, it is not
        that of `dataset`.

        Args:
            all: as `dataset` has them.

        Raises:
            ValueError: for a worker or a position that is not there.
        """
        self._check_place(position, epoch, 1, worker, workers, window)
        return self._batches(rows_in_order(self, seed, epoch, position, worker, workers, window), batch_size)

    def _batches(self, rows: Iterable[np.ndarray], batch_size: int) -> Iterator[dict[str, np.ndarray]]:
        left = np.empty((0, self.format.record_bytes), np.uint8)
        for some in rows:
            left = np.concatenate([left, some])
            while len(left) >= batch_size:
                yield self.format.decode_arrays(left[:batch_size])
                left = left[batch_size:]

    def _check_place(self, position, epoch, epochs, worker, workers, window) -> None:
        if not 0 <= position <= self.rows(worker, workers):
            raise ValueError(
                f"position={position} is not in an epoch of {self.rows(worker, workers)} rows (worker {worker} of "
                f"{workers}); position_after counts over epochs."
            )
        if epochs < 1 or epoch < 0 or window < 1:
            raise ValueError(f"epochs={epochs} and window={window} must be at least 1, epoch={epoch} at least 0.")
