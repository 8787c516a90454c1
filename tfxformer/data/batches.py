"""What users pass to `fit`, `evaluate` and `predict`, made lists of examples and batches of arrays."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from tfxformer.arguments import notices
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
    elif all(isinstance(example, str) for example in inputs):
        texts = inputs
    elif all(isinstance(example, (list, tuple)) and len(example) == 2 for example in inputs):
        texts = as_texts([first for first, _ in inputs])
        pairs = as_texts([second for _, second in inputs], "pairs")
    else:
        odd = next((i for i, example in enumerate(inputs) if isinstance(example, (list, tuple, Mapping))), None)
        if odd is not None:
            raise TypeError(
                f"texts[{odd}] is a {type(inputs[odd]).__name__} of {len(inputs[odd])}: an example is a text, or a "
                "pair of texts, (text, second text); of two columns zip(first, second) makes pairs."
            )
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
    if isinstance(first, dict) and any(_is_string(spec) for spec in specs):
        raise TypeError(by_name_refusal(first))
    raise TypeError(
        f"A dataset must give texts, (text, label), ((text, second text), label) or batches of dicts with "
        f"token_ids and padding_mask; its elements are {dataset.element_spec}."
    )


def by_name_refusal(columns: Iterable[str]) -> str:
    """What to say of elements that are dicts of columns of texts."""
    names = [str(name) for name in columns]
    text = next((name for name in names if "text" in name or "sentence" in name), names[0])
    label = next((name for name in names if "label" in name), None)
    wanted = f'row["{text}"]' if label is None else f'(row["{text}"], row["{label}"])'
    return (
        f"The elements are dicts of {', '.join(names)}; wanted texts, (text, label), batches of them, or dicts of "
        f"arrays with token_ids and padding_mask. Make them so: dataset.map(lambda row: {wanted})."
    )


def to_batch(encoding: Encoding, segment_ids: bool, warn: bool = True) -> dict[str, np.ndarray]:
    """The batch keys of an encoding, int32 [B,S]; says once how many texts were truncated."""
    if warn and encoding.truncated:
        length = encoding.token_ids.shape[1]
        notices.warn(
            f"{encoding.truncated} of {len(encoding.token_ids)} texts were longer than {length} tokens and "
            "lost their end: give a longer sequence_length to keep it, truncation=False to make it an error."
        )
    batch = {"token_ids": encoding.token_ids, "padding_mask": encoding.padding_mask}
    return batch | {"segment_ids": encoding.segment_ids} if segment_ids else batch


def first_of(element: Any) -> Any:
    """The inputs of a dataset element: the first of (inputs, labels), or of a tuple of one."""
    return element[0] if isinstance(element, tuple) else element


def _is_string(spec: Any) -> bool:
    return getattr(getattr(spec, "dtype", None), "name", None) == "string"


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
