"""Records as what `fit` goes through epoch by epoch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from tfxformer.backend import on_jax
from tfxformer.training import Epochs


class Mapped(Iterator):
    """An iterator of batches with the `map` of a `tf.data.Dataset`, for JAX."""

    def __init__(self, batches: Iterable):
        self._batches = iter(batches)

    def __next__(self):
        return next(self._batches)

    def map(self, function) -> Mapped:
        """The same batches as `function` returns them; of tuples it takes the parts."""
        return Mapped(function(*batch) if isinstance(batch, tuple) else function(batch) for batch in self)


def record_epochs(task, records, batch_size: int, seed: int, names: Iterable[str], batches: Callable) -> Epochs:
    """The epochs of a task on records.

    Args:
        task: its tokenizer, where it has one, must be the one that made the records, where they tell it.
        records: `data.Records`.
        batch_size: rows of a batch; of an epoch the rows of a short last batch are left out.
        seed: of the order of rows.
        names: what the task reads of a row.
        batches: function (dataset, on JAX `Mapped`, of batches of rows; number of its first batch) -> what `fit` takes.

    Raises:
        ValueError: for records of another kind, or of fewer rows than a batch. RecordsError: of another tokenizer.
    """
    missing = [name for name in names if name not in records.format.features]
    if missing:
        raise ValueError(
            f"{type(task).__name__} reads {', '.join(missing)} of a row, which the records of {records.folder} do not "
            f"have, only {', '.join(records.format.features)}: prepare them for it (`data.prepare_records(kind=...)`)."
        )
    if task.tokenizer is not None and records.origin is not None:
        records.check_tokenizer(task.tokenizer)
    count = records.count // batch_size
    if not count:
        raise ValueError(f"batch_size={batch_size} is more than the {records.count} rows of {records.folder}.")

    def make(epoch: int, first: int):
        place = {"seed": seed, "epoch": epoch, "position": batch_size * first}
        if on_jax():
            rows = Mapped(records.batches(batch_size, **place))
        else:
            rows = records.dataset(batch_size, **place)
        return batches(rows, epoch * count + first)

    return Epochs(make, count, f"{records.fingerprint}, batches of {batch_size}, seed {seed}")
