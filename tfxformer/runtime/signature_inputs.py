"""The inputs of a signature, checked on the host: LiteRT reshapes, clamps or reads what is wrong without a word."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from tfxformer.runtime.format.flatbuffer import SignatureInfo, TensorInfo

_KINDS = "bool int8 int16 int32 int64 uint8 uint16 uint32 uint64 float16 float32 float64"
_NUMBERS = {name: np.dtype(name) for name in _KINDS.split()}


def checked_inputs(signature: SignatureInfo, batch: Mapping, limits: Mapping[str, int]) -> dict[str, np.ndarray]:
    """A batch as the arrays that a signature takes.

    Args:
        signature: of the file.
        batch: {input name: what numpy makes an array of}.
        limits: {input name: the first integer that is too large}; 0 is the smallest there.

    Raises:
        ValueError: naming the input, what came and what was wanted.
    """
    if not isinstance(batch, Mapping):
        raise ValueError(f"A batch is a dict of arrays by input name, not {type(batch).__name__}.")
    wanted = {tensor.name: tensor for tensor in signature.inputs}
    if batch.keys() != wanted.keys():
        missing = [name for name in wanted if name not in batch]
        extra = [str(name) for name in batch if name not in wanted]
        problem = f"wants {missing[0]!r}" if missing else f"has no input {extra[0]!r}"
        raise ValueError(
            f"Signature {signature.name!r} {problem}: its inputs are {', '.join(wanted)}; the batch has "
            f"{', '.join(map(str, batch)) or 'nothing'}."
        )
    return {name: _array(tensor, batch[name], limits.get(name)) for name, tensor in wanted.items()}


def _array(tensor: TensorInfo, value, limit: int | None) -> np.ndarray:
    array = np.asarray(value)
    if not _fits(tensor.shape, array.shape):
        raise ValueError(
            f"{tensor.name!r} has the shape {list(array.shape)}, the signature takes {list(tensor.shape)} (-1 is "
            "free): one row at a time, padded or cut to its length."
        )
    kind = _NUMBERS.get(tensor.dtype)
    if kind is None:  # texts, complex numbers: LiteRT says what it takes
        return np.ascontiguousarray(array)
    if array.dtype.kind not in ("biuf" if kind.kind == "f" else "biu"):
        example = f", such as {array.ravel()[0]}," if array.size and array.dtype.kind == "f" else ""
        raise ValueError(f"{tensor.name!r} is {array.dtype}{example} the signature takes {tensor.dtype}.")
    if kind.kind == "f":
        return _floats(tensor, array, kind)
    _check_range(tensor, array, kind, limit)
    return np.ascontiguousarray(array, kind)


def _fits(wanted: tuple, shape: tuple) -> bool:
    if shape == wanted:
        return True
    return len(shape) == len(wanted) and all(a in (-1, b) for a, b in zip(wanted, shape, strict=True))


def _floats(tensor: TensorInfo, array: np.ndarray, kind: np.dtype) -> np.ndarray:
    with np.errstate(over="ignore"):
        converted = np.ascontiguousarray(array, kind)
    if np.isnan(converted).any():
        raise ValueError(f"{tensor.name!r} holds NaN.")
    if array.dtype != kind and np.isinf(converted).any() and np.isfinite(array).all():
        raise ValueError(f"{tensor.name!r} holds {np.abs(array).max():g}, too large for {tensor.dtype}.")
    return converted


def _check_range(tensor: TensorInfo, array: np.ndarray, kind: np.dtype, limit: int | None) -> None:
    if not array.size:
        return
    if limit is not None and array.dtype == np.int32:
        # Read as unsigned, a negative number is a large one: one pass, since this runs for every text.
        if np.maximum.reduce(array.view(np.uint32), axis=None) < limit:
            return
    elif array.dtype == kind:
        return
    low, high = (0, limit - 1) if limit is not None else (0, 1) if kind.kind == "b" else _bounds(kind)
    found = int(array.min()), int(array.max())
    if found[0] < low or found[1] > high:
        wrong = found[0] if found[0] < low else found[1]
        raise ValueError(f"{tensor.name!r} holds {wrong}; the model takes {low} to {high}.")


def _bounds(kind: np.dtype) -> tuple[int, int]:
    return int(np.iinfo(kind).min), int(np.iinfo(kind).max)
