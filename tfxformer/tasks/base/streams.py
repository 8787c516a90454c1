"""What comes batch by batch: datasets, generators, PyDatasets. Texts in them are read as lists; ready batches stay."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from itertools import chain, islice
from typing import Any

import numpy as np

from tfxformer.data.batches import by_name_refusal, is_dataset, is_py_dataset, is_stream, is_text_dataset
from tfxformer.text.inputs import as_list, text_of
from tfxformer.training.inputs.given import Given, check_counts

DEFAULT_BATCH = 32  # Keras' own
_NAMES = ("texts", "labels", "sample_weight")  # of the parts of an element, in messages


def read_given(
    x,
    y=None,
    sample_weight=None,
    *,
    batch_size=None,
    steps=None,
    epochs=1,
    lists: bool = False,
    labelled: bool = True,
    default_batch: int = DEFAULT_BATCH,
) -> Given:
    """Reads a stream of texts as lists; everything else is given back.

    Elements of a stream are a text, (text, label), (text, label, weight), or batches of these; a text may be a pair of
    texts. Of `steps` (those of one epoch) only what they need is read, so that a stream may be endless; without, all.

    Args:
        x, y, sample_weight, batch_size: what a task's `fit` was given.
        steps: int or None.
        epochs: int.
        lists: whether one example is a list of str (words, sentences).
        labelled: False for `predict`, where (str, str) of a generator may be meant as a pair.
        default_batch: texts of a step where neither `batch_size` nor the stream says how many.

    Raises:
        ValueError: for labels, weights or a batch size beside a stream that has its own; for an endless one.
        TypeError: for elements that are neither texts nor batches.
    """
    check_counts(batch_size=batch_size, steps=steps)
    if not is_stream(x):
        return Given(x, y, sample_weight, batch_size)
    if y is not None or sample_weight is not None:
        raise ValueError(
            f"A {type(x).__name__} gives labels and weights itself, as (x, y) or (x, y, sample_weight): leave y and "
            "sample_weight out."
        )
    elements, first, x = _opened(x, lists)
    if elements is None:
        _refuse_batch_size(batch_size, x)
        return Given(x)
    batched = _is_batch(_parts(first)[0], lists)
    if not labelled and isinstance(x, Iterator):
        _refuse_doubtful(first)
    if batched:
        _refuse_batch_size(batch_size, x)
    in_order = batched or isinstance(x, Iterator)
    if in_order and is_dataset(x):
        in_order = not _reshuffles(x, first)
    count = None
    if steps is not None:
        count = steps * epochs * (1 if batched else batch_size or default_batch)
    elif _is_endless(x):
        raise ValueError(
            f"The {type(x).__name__} never ends (repeat()?), and its texts are tokenized once: pass steps_per_epoch "
            "(steps in evaluate and predict), or let it end."
        )
    texts, labels, weights, size = _collected(islice(elements, count), lists)
    own = size if batched else batch_size or (default_batch if steps else None)
    return Given(texts, labels, weights, own, in_order, None if steps is None else steps * epochs)


def split_given(given: Given, share: float) -> tuple[Given, Given]:
    """(training, validation) of lists of examples: the last `share` of them validates, as Keras has it.

    Raises:
        ValueError: where one part would be empty, and for a stream of which only some steps are read.
    """
    if given.steps is not None:
        raise ValueError("validation_split does not go with the steps of a stream: give validation_data of its own.")
    texts = as_list(given.x, "texts")
    kept = math.floor(len(texts) * (1.0 - share))
    if not 0 < share < 1 or not 0 < kept < len(texts):
        raise ValueError(
            f"validation_split={share} of {len(texts)} examples leaves {kept} to train on and {len(texts) - kept} to "
            "validate: wanted a share between 0 and 1 that leaves some of each."
        )
    others = []
    for values, name in ((given.y, "labels"), (given.sample_weight, "sample_weight")):
        values = None if values is None else as_list(values, name)
        if values is not None and len(values) != len(texts):
            raise ValueError(f"{len(texts)} texts but {len(values)} {name}: give each text its own.")
        others.append(values)
    first, second = (
        given._replace(x=texts[part], y=others[0] and others[0][part], sample_weight=others[1] and others[1][part])
        for part in (slice(kept), slice(kept, None))
    )
    return first, second


def _refuse_doubtful(first) -> None:
    if isinstance(first, tuple) and len(first) == 2 and all(isinstance(part, str) for part in first):
        raise ValueError(
            f"The generator gives {first!r:.80}, which may be a pair of texts or a text and its label: predict takes a "
            "list of pairs, or a generator of texts or of (pair,)."
        )


def _refuse_batch_size(batch_size, x) -> None:
    if batch_size is not None:
        raise ValueError(
            f"batch_size={batch_size} beside a {type(x).__name__} of batches, whose own size counts: leave batch_size "
            "out, or batch the data otherwise."
        )


def _opened(x, lists: bool) -> tuple[Iterator | None, Any, Any]:
    """(its elements as Python values, or None for ready batches; the first; the source to go on with)."""
    if is_dataset(x):
        if not is_text_dataset(x):
            return None, None, x
        elements = (_python(element) for element in x.as_numpy_iterator())
    elif is_py_dataset(x):
        elements = (x[index] for index in (range(x.num_batches) if x.num_batches is not None else _counting()))
    else:
        elements = iter(x)
    first = next(elements, None)
    if first is None:
        raise ValueError(f"The dataset is empty: the {type(x).__name__} gave nothing.")
    if not _holds_texts(_parts(first)[0], lists):
        return None, None, _again(first, elements) if isinstance(x, Iterator) else x
    return chain([first], elements), first, x


def _counting() -> Iterator[int]:
    index = 0
    while True:
        yield index
        index += 1


def _again(first, rest) -> Iterator:
    """A generator of ready batches with the first one back, each a tuple as Keras wants them."""
    for element in chain([first], rest):
        yield element if isinstance(element, tuple) else (element,)


def _parts(element) -> tuple:
    """(x, y, sample_weight) of an element."""
    if not isinstance(element, tuple):
        return element, None, None
    if not 1 <= len(element) <= 3:
        raise ValueError(f"Elements of {len(element)} parts; wanted x, (x, y) or (x, y, sample_weight).")
    return (*element, None, None)[:3]


def _holds_texts(x, lists: bool) -> bool:
    """Whether the x of an element is a text or texts; False for arrays.

    Raises:
        TypeError: for columns of text by name, and for what is neither.
    """
    if isinstance(x, Mapping):
        if any(_holds_texts(value, lists) for value in x.values()):
            raise TypeError(by_name_refusal(x))
        return False
    if isinstance(x, (str, bytes)):
        return True
    kind = getattr(getattr(x, "dtype", None), "kind", None)
    if kind is not None:
        return kind in "OSTU"
    if isinstance(x, (list, tuple)):
        return bool(x) and (isinstance(x[0], Mapping) or _holds_texts(x[0], lists))
    return getattr(getattr(x, "dtype", None), "name", "") == "string"


def _is_batch(x, lists: bool) -> bool:
    """Whether the x of an element, known to hold texts, holds those of several examples."""
    if isinstance(x, (str, bytes)):
        return False
    if isinstance(x, tuple):  # (text, second text), or a column of each
        return bool(x) and not isinstance(x[0], (str, bytes))
    x = as_list(x, "texts")
    if x and isinstance(x[0], Mapping):  # the messages of one conversation
        return False
    return not lists or (bool(x) and not isinstance(x[0], (str, bytes)))


def _collected(elements, lists: bool) -> tuple[list, list | None, list | None, int]:
    """(examples, labels, weights, examples of the first element)."""
    columns, size = ([], [], []), 0
    for number, element in enumerate(elements):
        parts = _parts(element)
        if not _is_batch(parts[0], lists):
            rows = [None if part is None else [_scalar(part)] for part in parts]
        else:
            rows = [None if part is None else _rows(part, name) for part, name in zip(parts, _NAMES, strict=True)]
        sizes = {len(part) for part in rows if part is not None}
        if len(sizes) > 1:
            raise ValueError(
                f"Element {number} has {len(rows[0])} texts and {len(rows[1] or rows[0])} labels: give each text its "
                "label (and weight)."
            )
        size = size or len(rows[0])
        for column, part in zip(columns, rows, strict=True):
            column += part or []
    texts, *others = columns
    if any(len(column) not in (0, len(texts)) for column in others):
        raise ValueError("Some elements have labels (or weights) and others none: give all or none.")
    return texts, *(column or None for column in others), size


def _rows(part, name: str) -> list:
    if isinstance(part, tuple) and part and not isinstance(part[0], (str, bytes)):
        return list(zip(*(as_list(column, name) for column in part), strict=True))  # columns of pairs
    return as_list(part, name)


def _scalar(value):
    """One label, its numpy values as Python's."""
    return value.tolist() if isinstance(value, (np.ndarray, np.generic)) else value


def _python(element):
    """An element of a `tf.data.Dataset` as Python values: its strings are bytes, read as UTF-8."""
    if isinstance(element, tuple):
        return tuple(_python(part) for part in element)
    return _decoded(element.to_list() if hasattr(element, "to_list") else element)


def _reshuffles(dataset, first) -> bool:
    """Whether a dataset comes in another order each time it is read: then rows are shuffled in its place."""
    again = next((_python(element) for element in dataset.as_numpy_iterator()), None)
    return again != first


def _is_endless(x) -> bool:
    if is_dataset(x):
        return int(x.cardinality()) == -1
    return is_py_dataset(x) and x.num_batches is None


def _decoded(value):
    """A numpy value of a dataset as Python values, its bytes as str."""
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, list):
        return [_decoded(part) for part in value]
    if isinstance(value, bytes):
        return text_of(value, "a string of the dataset")
    return value.item() if isinstance(value, np.generic) else value
