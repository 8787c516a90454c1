"""The inputs of a signature, checked on the host: LiteRT reshapes, clamps or reads what is wrong without a word."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from tfxformer.arguments import keywords
from tfxformer.runtime.format.flatbuffer import SignatureInfo, TensorInfo

_KINDS = "bool int8 int16 int32 int64 uint8 uint16 uint32 uint64 float16 float32 float64"
_NUMBERS = {name: np.dtype(name) for name in _KINDS.split()}
_INT32, _UNSIGNED = _NUMBERS["int32"], _NUMBERS["uint32"]


class InputChecks:
    """Makes batches the arrays that one signature takes.

    Args:
        signature: of the file.
        limits: {input name: the first integer that is too large}; 0 is the smallest there.
    """

    def __init__(self, signature: SignatureInfo, limits: Mapping[str, int]):
        self._name = signature.name
        self._wanted = {
            tensor.name: (tensor, _NUMBERS.get(tensor.dtype), limits.get(tensor.name)) for tensor in signature.inputs
        }

    def __call__(self, batch: Mapping) -> dict[str, np.ndarray]:
        """The arrays of a batch, {input name, ours or transformers': what numpy makes an array of}.

        Raises:
            ValueError: naming the input, what came and what was wanted.
        """
        if type(batch) is not dict or batch.keys() != self._wanted.keys():
            batch = keywords.our_inputs(batch)
            if batch.keys() != self._wanted.keys():
                raise ValueError(self._mismatch(batch))
        arrays = {}
        for name, (tensor, kind, limit) in self._wanted.items():
            # Ids and masks, of which each text has some, are mostly right, which is told here faster than by `_array`.
            value = batch[name]
            plain = limit is not None and type(value) is np.ndarray and value.dtype is _INT32 is kind
            plain = plain and value.shape == tensor.shape and value.size > 0 and value.flags.c_contiguous
            # Read as unsigned, a negative number is a large one; argmax, as max takes twice as long to begin.
            if not plain or (unsigned := value.view(_UNSIGNED)).item(unsigned.argmax()) >= limit:
                value = _array(tensor, kind, limit, value)
            arrays[name] = value
        return arrays

    def _mismatch(self, batch: Mapping) -> str:
        missing = [name for name in self._wanted if name not in batch]
        extra = [str(name) for name in batch if name not in self._wanted]
        problem = f"wants {missing[0]!r}" if missing else f"has no input {extra[0]!r}"
        return (
            f"Signature {self._name!r} {problem}: its inputs are {', '.join(self._wanted)}; the batch has "
            f"{', '.join(map(str, batch)) or 'nothing'}."
        )


def _array(tensor: TensorInfo, kind: np.dtype | None, limit: int | None, value) -> np.ndarray:
    array = np.asarray(value)
    if array.shape != tensor.shape and not _fits(tensor.shape, array.shape):
        raise ValueError(
            f"{tensor.name!r} has the shape {list(array.shape)}, the signature takes {list(tensor.shape)} (-1 is "
            "free): one row at a time, padded or cut to its length."
        )
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
    if limit is None and array.dtype == kind:
        return
    low, high = (0, limit - 1) if limit is not None else (0, 1) if kind.kind == "b" else _bounds(kind)
    found = int(array.min()), int(array.max())
    if found[0] < low or found[1] > high:
        wrong = found[0] if found[0] < low else found[1]
        raise ValueError(f"{tensor.name!r} holds {wrong}; the model takes {low} to {high}.")


def _bounds(kind: np.dtype) -> tuple[int, int]:
    return int(np.iinfo(kind).min), int(np.iinfo(kind).max)
