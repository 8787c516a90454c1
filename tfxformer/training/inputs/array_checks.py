"""What arrays must hold before they reach a compiled step, which for an id out of range reads another row in silence.

One pass for the smallest and largest value of each array; nothing of it is in the step itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

NUMERIC = "biuf"  # kinds of dtypes, as numpy has them
_DIVERGED = (
    "Its weights hold NaN or values too large for its dtype (a training that has diverged, a damaged file): load "
    "weights that are whole."
)


class Limit(NamedTuple):
    """Whole numbers that an array may hold.

    Attributes:
        low, high: int, both allowed; `high` None for no bound.
        what: what lies within them, for messages.
        also: int or None, one more value, such as that of tokens without a label.
    """

    low: int
    high: int | None
    what: str
    also: int | None = None

    def __str__(self):
        upper = "on" if self.high is None else f"to {self.high}"
        return f"wanted {self.low} {upper}, {self.what}"


class Limits(NamedTuple):
    """Of a batch.

    Attributes:
        inputs: {input name: Limit}.
        targets: a Limit, a dict of them by output, or None for targets that must be finite only.
        length: int or None, tokens of the longest row of `token_ids` that the model has positions for.
    """

    inputs: Mapping[str, Limit]
    targets: Any = None
    length: int | None = None


def check_batch(x, y, sample_weight, limits: Limits) -> None:
    """Refuses ids and labels outside of their limits, and targets and weights that are not finite.

    Args:
        x: dict of arrays; others are left to Keras. y, sample_weight: arrays, nests of them by output, or None.

    Raises:
        ValueError: naming the array, the first wrong place, and what is allowed.
    """
    check_length(x, limits)
    for name, limit, array in named_arrays(x, y, sample_weight, limits):
        check_values(array, limit, name)


def check_length(x, limits: Limits) -> None:
    """Refuses rows longer than the model: past its table of positions XLA reads the last one in silence."""
    for name, ids in x.items() if isinstance(x, Mapping) else ():
        shape = getattr(ids, "shape", None) if str(name).endswith("token_ids") else None
        length = shape[-1] if shape is not None and len(shape) else None
        if limits.length is not None and length is not None and length > limits.length:
            raise ValueError(
                f"{name} have {length} tokens a row, the model has positions for {limits.length}: cut them, or give "
                "texts, which are cut to sequence_length."
            )


def named_arrays(x, y, sample_weight, limits: Limits) -> Iterator[tuple[str, Limit | None, Any]]:
    """(name, its limit, array) of each array of a batch; None is the limit of what must be finite only."""
    for name, array in x.items() if isinstance(x, Mapping) else ():
        if name in limits.inputs:
            yield name, limits.inputs[name], array
    for name, array in _leaves(y):
        limit = limits.targets.get(name) if isinstance(limits.targets, Mapping) else limits.targets
        yield f"y[{name!r}]" if name else "y", None if limit and _are_rows(array, limit) else limit, array
    for name, array in _leaves(sample_weight):
        yield f"sample_weight[{name!r}]" if name else "sample_weight", None, array


def _are_rows(targets, limit: Limit) -> bool:
    """Whether targets are rows of probabilities, a number for each id."""
    shape, dtype = getattr(targets, "shape", ()), str(getattr(targets, "dtype", ""))
    return len(shape) > 1 and "float" in dtype and limit.high is not None and shape[-1] == limit.high + 1


def _leaves(nest) -> Iterable[tuple[str, Any]]:
    if isinstance(nest, Mapping):
        return nest.items()
    return () if nest is None else (("", nest),)


def check_values(array, limit: Limit | None, name: str) -> None:
    """Refuses one array; what is no array of numbers is left to Keras.

    Raises:
        ValueError: see `check_batch`.
    """
    dtype = getattr(array, "dtype", None)
    if dtype is None or not hasattr(array, "__array__"):
        return
    array = np.asarray(array)
    if array.dtype.kind not in NUMERIC or not array.size:
        return
    low, high = array.min(), array.max()
    if not (np.isfinite(low) and np.isfinite(high)):
        raise ValueError(f"{_place(array, ~np.isfinite(array), name)}, which is not finite.")
    if limit is None:
        return
    if limit.also is not None and (low < limit.low or (limit.high is not None and high > limit.high)):
        array = np.where(array == limit.also, limit.low, array)
        low, high = array.min(), array.max()
    if array.dtype.kind == "f" and (array != np.floor(array)).any():
        raise ValueError(f"{_place(array, array != np.floor(array), name)}, no whole number: {limit}.")
    if low < limit.low or (limit.high is not None and high > limit.high):
        wrong = array < limit.low
        if limit.high is not None:
            wrong |= array > limit.high
        raise ValueError(f"{_place(array, wrong, name)}: {limit}.")


def _place(array: np.ndarray, wrong: np.ndarray, name: str) -> str:
    index = tuple(int(i) for i in np.argwhere(wrong)[0])
    return f"{name}[{', '.join(map(str, index))}] is {array[index]}"


def check_loss(results) -> None:
    """Refuses a loss that is not finite: of `evaluate`, a number, a list that it begins, or a dict.

    Raises:
        ValueError: naming what may be the cause.
    """
    loss = results.get("loss") if isinstance(results, Mapping) else results
    loss = loss[0] if isinstance(loss, (list, tuple)) else loss
    if loss is not None and not np.isfinite(loss):
        raise ValueError(f"The model's outputs are not finite: the loss is {loss}. {_DIVERGED}")


def check_outputs(outputs, name: str) -> None:
    """Refuses outputs (a nest of arrays) that are not finite.

    Raises:
        ValueError: naming the first row.
    """
    parts = outputs.values() if isinstance(outputs, Mapping) else outputs if isinstance(outputs, list) else [outputs]
    for array in parts:
        if isinstance(array, (Mapping, list)):
            check_outputs(array, name)
            continue
        array = np.asarray(array)
        if not array.size or (np.isfinite(array.min()) and np.isfinite(array.max())):
            continue
        row = int(np.argwhere(~np.isfinite(array))[0][0]) if array.ndim else 0
        raise ValueError(f"The model's outputs are not finite, first in row {row} ({name}). {_DIVERGED}")
