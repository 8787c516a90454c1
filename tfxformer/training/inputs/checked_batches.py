"""Batches that pass through a function on the host, on their way into a step: to be checked, or to be made."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

import keras
import numpy as np

from tfxformer.training.compiling.losses_and_metrics import LogitsLoss
from tfxformer.training.inputs.array_checks import Limits, check_batch, check_length, named_arrays

REFUSED = "tfxformer refuses: "  # begins what a dataset says, whose errors TensorFlow wraps


def checked_batches(x, y, sample_weight, limits: Limits):
    """What Keras reads batches of, with every batch checked where it stands in the host's memory.

    Arrays are checked at once, generators and PyDatasets batch by batch, datasets by operations of their own pipeline.

    Raises:
        ValueError: see `training.array_checks.check_batch`; of a dataset `refusals` raises it.
    """
    if isinstance(x, keras.utils.PyDataset) and x.use_multiprocessing:
        return x  # its batches come from other processes, which no function of ours can reach
    if isinstance(x, (Iterator, keras.utils.PyDataset)):

        def check(index, batch):
            check_batch(*(*batch, None, None)[:3], limits)
            return batch

        return each_batch(x, check)
    if hasattr(x, "element_spec") and hasattr(x, "map"):
        return _checked_dataset(x, limits)
    check_batch(x, y, sample_weight, limits)
    return x


def filled_batches(x, batch_size: int | None) -> tuple[object, int | None]:
    """Arrays whose last batch is filled up with the last row, and how many rows are theirs; anything else with None.

    A shorter last batch of `predict` is traced by itself, which takes as long as the first one did.
    """
    arrays = list(x.values()) if isinstance(x, Mapping) else [x]
    if not arrays or not all(isinstance(array, np.ndarray) and array.ndim for array in arrays):
        return x, None
    rows, size = len(arrays[0]), batch_size or 32  # Keras' own
    missing = -rows % size
    if rows < size or not missing or any(len(array) != rows for array in arrays):
        return x, None

    def filled(array):
        return np.concatenate([array, np.repeat(array[-1:], missing, axis=0)])

    return ({name: filled(array) for name, array in x.items()} if isinstance(x, Mapping) else filled(x)), rows


def each_batch(x, function, changing=False):
    """A generator or PyDataset whose batches, tuples of up to three, are what `function(index, batch)` returns.

    With `changing` the indices of a PyDataset go on from epoch to epoch, as those of a generator do.
    """
    if isinstance(x, keras.utils.PyDataset):
        return EachBatch(x, function, changing)
    return (function(index, batch) for index, batch in enumerate(x))


class EachBatch(keras.utils.PyDataset):
    """A PyDataset through a function."""

    def __init__(self, dataset, function, changing):
        super().__init__(
            workers=dataset.workers,
            use_multiprocessing=dataset.use_multiprocessing,
            max_queue_size=dataset.max_queue_size,
        )
        self._dataset, self._function = dataset, function
        self._changing, self._done = changing, 0  # batches of the epochs before

    @property
    def num_batches(self):
        return self._dataset.num_batches

    def __getitem__(self, index):
        batch = self._dataset[index]
        return self._function(self._done + index, tuple(batch) if isinstance(batch, (tuple, list)) else (batch,))

    def on_epoch_begin(self):
        self._dataset.on_epoch_begin()

    def on_epoch_end(self):
        self._dataset.on_epoch_end()
        self._done += (self.num_batches or 0) if self._changing else 0

    @property
    def fingerprint(self):
        """The dataset's own, where it has one."""
        return getattr(self._dataset, "fingerprint", None)

    @property
    def kind(self) -> str:
        """The name of the dataset's own class."""
        return type(self._dataset).__name__


def _checked_dataset(dataset, limits: Limits):
    """A dataset whose pipeline refuses a batch before it reaches a step."""
    import tensorflow as tf

    def refuse_unless(right, what: str, array):
        words = [f"{REFUSED}{what}; the smallest and largest value are", tf.reduce_min(array), tf.reduce_max(array)]
        return tf.debugging.Assert(right, words)

    def check(*batch):
        checks = []
        check_length(batch[0], limits)
        for name, limit, array in named_arrays(*(*batch, None, None)[:3], limits):
            if not isinstance(array, tf.Tensor) or not (array.dtype.is_integer or array.dtype.is_floating):
                continue
            if array.dtype.is_floating:
                checks.append(refuse_unless(tf.reduce_all(tf.math.is_finite(array)), f"{name} is not finite", array))
            if limit is None:
                continue
            if not array.dtype.is_floating and array.dtype.size < 4:
                array = tf.cast(array, "int32")  # a table may be larger than such an id
            right = array >= limit.low
            if limit.high is not None:
                right &= array <= limit.high
            if array.dtype.is_floating:
                right &= array == tf.floor(array)
            if limit.also is not None:
                right |= array == limit.also
            checks.append(refuse_unless(tf.reduce_all(right), f"{name}: {limit}", array))
        with tf.control_dependencies(checks):
            whole = tf.nest.map_structure(tf.identity, batch)
        return whole if isinstance(dataset.element_spec, tuple) else whole[0]

    return dataset.map(check)


def of_sparse_losses(limits, loss):
    """The limits of targets whose loss takes ids; None for others: losses of the user's, scores.

    Args:
        limits: a Limit, a dict of them by output, or None.
        loss: as `compile` was given it.
    """
    if isinstance(limits, dict):
        return {
            name: of_sparse_losses(limit, loss.get(name) if isinstance(loss, dict) else loss)
            for name, limit in limits.items()
        }
    if isinstance(loss, LogitsLoss):  # whatever Keras' loss inside takes, ids are made it
        return limits
    name = loss if isinstance(loss, str) else getattr(loss, "name", None) or getattr(loss, "__name__", "")
    return limits if "sparse" in name or "span" in name else None


@contextlib.contextmanager
def refusals():
    """What a checked dataset refuses, as a ValueError.

    Raises:
        ValueError: instead of TensorFlow's error, whose text is that of a graph.
    """
    try:
        yield
    except Exception as error:
        text = str(error)
        if REFUSED not in text:
            raise
        told = text[text.index(REFUSED) + len(REFUSED) :].split("\n")[0].split("[[")[0]
        raise ValueError(" ".join(told.replace("[", " ").replace("]", " ").split())) from error
