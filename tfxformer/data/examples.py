"""Telling raw examples from ready batches."""

from __future__ import annotations

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
