"""Telling raw examples from ready batches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from tfxformer.data.batches import is_dataset, is_text_dataset


def is_py_dataset(x) -> bool:
    """Whether this is a `keras.utils.PyDataset` (told without importing Keras)."""
    return hasattr(x, "num_batches") and hasattr(x, "__getitem__")


def is_stream(x) -> bool:
    """Whether `x` gives its batches one by one, with their labels."""
    loader = hasattr(x, "batch_sampler") and hasattr(x, "dataset")  # PyTorch's
    return is_dataset(x) or is_py_dataset(x) or isinstance(x, Iterator) or loader


def is_raw(x) -> bool:
    """Whether `x` holds texts (or words, or pairs of texts) rather than arrays of ids or batches of them.

    Of streams datasets alone say so; others are read first (`tasks.streams.read_given`).
    """
    if is_dataset(x):
        return is_text_dataset(x)
    if x is None or isinstance(x, Mapping) or is_stream(x) or hasattr(x, "num_batches"):  # the last: training.Epochs
        return False
    dtype = getattr(x, "dtype", None)  # of a numpy array, a tensor or a pandas column
    kind = getattr(dtype, "kind", None)  # "T" of numpy's StringDType
    if dtype is None or kind is not None:
        return dtype is None or kind in "OSTU"
    return str(getattr(dtype, "name", dtype)).lower().startswith(("str", "object", "bytes", "utf8", "categorical"))
