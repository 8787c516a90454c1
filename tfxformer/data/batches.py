"""What users pass to `fit`, `evaluate` and `predict`, made lists of examples and batches of arrays."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from tfxformer.text import Encoding
from tfxformer.text.inputs import as_list, as_texts, as_words


class Examples(NamedTuple):
    """Texts (or lists of words), second texts where examples are pairs, and labels as the user wrote them."""

    texts: list
    pairs: list[str] | None
    labels: list | None


def read_examples(inputs: Iterable, labels: Iterable | None = None, *, words: bool = False) -> Examples:
    """Examples from a list, tuple, numpy array or pandas column of str, or of (str, str) pairs.

    With `words`, each example is a list of words. Raises ValueError for none at all, or another number of
    labels; TypeError for what is no text.
    """
    inputs = as_list(inputs, "texts")
    if not inputs:
        raise ValueError("The dataset is empty: no text was given.")
    pairs = None
    if words:
        texts = as_words(inputs)
    elif all(isinstance(example, (list, tuple)) and len(example) == 2 for example in inputs):
        texts = as_texts([first for first, _ in inputs])
        pairs = as_texts([second for _, second in inputs], "pairs")
    else:
        texts = as_texts(inputs)
    if labels is not None:
        labels = as_list(labels, "labels")
        if len(labels) != len(texts):
            raise ValueError(f"{len(texts)} texts but {len(labels)} labels: give each text its label.")
    return Examples(texts, pairs, labels)


def is_dataset(inputs: Any) -> bool:
    """Whether this is a `tf.data.Dataset` (told without importing TensorFlow)."""
    return hasattr(inputs, "element_spec") and hasattr(inputs, "as_numpy_iterator")


def is_text_dataset(dataset: Any) -> bool:
    """Whether a dataset holds texts, told by its element_spec; False means ready batches of arrays.

    Raises TypeError for elements that are neither.
    """
    first = first_of(dataset.element_spec)
    specs = list(first.values()) if isinstance(first, dict) else [first]
    if isinstance(first, dict) and not any(map(_is_string, specs)):
        return False  # what it has beside or in place of token_ids, the model says
    if isinstance(first, tuple):
        specs = list(first)
    if specs and len(specs) <= 2 and all(_is_string(spec) for spec in specs) and not isinstance(first, dict):
        return True
    raise TypeError(
        f"A dataset must give texts, (text, label), ((text, second text), label) or batches of dicts with "
        f"token_ids and padding_mask; its elements are {dataset.element_spec}."
    )


def read_dataset(dataset: Any) -> Examples:
    """The examples of a finite dataset of texts, (text, label) or ((text, second text), label).

    Elements may be single examples or batches of them.
    """
    if int(dataset.cardinality()) == -1:
        raise ValueError("The dataset never ends (repeat()?): texts are tokenized once, so it must be finite.")
    labelled = isinstance(dataset.element_spec, tuple) and len(dataset.element_spec) >= 2
    if isinstance(dataset.element_spec, tuple) and len(dataset.element_spec) > 2:
        raise ValueError(f"Elements of {len(dataset.element_spec)} parts; wanted a text, or a text and a label.")
    inputs, labels = [], []
    for element in dataset.as_numpy_iterator():
        first, label = element if labelled else (first_of(element), None)
        columns = [_decoded(part) for part in (first if isinstance(first, tuple) else (first,))]
        batched = isinstance(columns[0], list)
        rows = list(zip(*columns, strict=True)) if batched else [tuple(columns)]
        inputs += [row if len(row) == 2 else row[0] for row in rows]
        if labelled:
            labels += list(_decoded(label)) if batched else [_decoded(label)]
    return read_examples(inputs, labels if labelled else None)


def to_batch(encoding: Encoding, segment_ids: bool, warn: bool = True) -> dict[str, np.ndarray]:
    """The batch keys of an encoding, int32 [B,S]; says once how many texts were truncated."""
    if warn and encoding.truncated:
        length = encoding.token_ids.shape[1]
        warnings.warn(
            f"{encoding.truncated} of {len(encoding.token_ids)} texts were longer than {length} tokens and "
            "lost their end: give a longer sequence_length to keep it, truncation=False to make it an error.",
            stacklevel=2,
        )
    batch = {"token_ids": encoding.token_ids, "padding_mask": encoding.padding_mask}
    return batch | {"segment_ids": encoding.segment_ids} if segment_ids else batch


def first_of(element: Any) -> Any:
    """The inputs of a dataset element: the first of (inputs, labels), or of a tuple of one."""
    return element[0] if isinstance(element, tuple) else element


def _is_string(spec: Any) -> bool:
    return getattr(getattr(spec, "dtype", None), "name", None) == "string"


def _decoded(value: Any) -> Any:
    """A numpy value of a dataset as Python values, its bytes as str."""
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, list):
        return [_decoded(part) for part in value]
    if isinstance(value, bytes):
        return value.decode("utf-8")
    return value.item() if isinstance(value, np.generic) else value
