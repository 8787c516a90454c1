"""Telling raw examples from ready batches, and counting the steps of an epoch."""

from __future__ import annotations

import math
from collections.abc import Mapping

from tfxformer.data.batches import is_dataset, is_text_dataset


def is_raw(x) -> bool:
    """Whether `x` holds texts (or words, or pairs of texts) rather than arrays of ids or batches of them."""
    if is_dataset(x):
        return is_text_dataset(x)
    if isinstance(x, Mapping) or hasattr(x, "num_batches"):  # a dict of arrays, a keras.utils.PyDataset
        return False
    dtype = getattr(x, "dtype", None)  # of a numpy array, a tensor or a pandas column
    return dtype is None or dtype.name.startswith(("str", "object", "bytes"))


def steps_per_epoch(x, batch_size: int | None, validation_split: float = 0.0) -> int:
    """The batches of one epoch, as Keras counts them.

    Raises:
        ValueError: where a dataset does not know its length.
    """
    if is_dataset(x):
        steps = int(x.cardinality())
        if steps < 1:
            raise ValueError(
                "The dataset does not know its length (or is empty), and the default learning rate falls over the "
                "steps of the fit: pass steps_per_epoch, apply tf.data.experimental.assert_cardinality(n), or "
                "compile with an optimizer of your own."
            )
        return steps
    if hasattr(x, "num_batches"):
        return int(x.num_batches)
    rows = len(next(iter(x.values()))) if isinstance(x, Mapping) else len(x)
    return max(1, math.ceil(math.floor(rows * (1.0 - validation_split)) / (batch_size or 32)))
