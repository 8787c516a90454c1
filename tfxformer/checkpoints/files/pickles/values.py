"""What a pickle of torch.save may name, and what each of it becomes: descriptions of tensors, and nothing that runs.

No name is imported. One that stands here is a row of a table, every other one is refused.
Source: torch 2.13, `torch/_utils.py` and `torch/serialization.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np

from tfxformer.checkpoints.files.pickles.errors import shown

_MOST_DIMENSIONS = 32  # numpy 1's limit
_MOST_NUMBERS = 1 << 48  # of a shape whose zeros are taken for ones: numpy refuses larger ones even where one side is 0

_STORAGES = {
    "DoubleStorage": np.dtype("<f8"),
    "FloatStorage": np.dtype("<f4"),
    "HalfStorage": np.dtype("<f2"),
    "BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
    "LongStorage": np.dtype("<i8"),
    "IntStorage": np.dtype("<i4"),
    "ShortStorage": np.dtype("<i2"),
    "CharStorage": np.dtype("i1"),
    "ByteStorage": np.dtype("u1"),
    "BoolStorage": np.dtype("?"),
}


class Unknown(ValueError):
    """Something in a pickle that is no part of a state dict; its text is a clause without a full stop."""


@dataclass(frozen=True)
class Storage:
    """A flat row of numbers, which lies in the file under a key."""

    key: str
    dtype: np.dtype
    numel: int


@dataclass(frozen=True)
class Tensor:
    """A view of a storage; offset and strides count numbers, not bytes."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


@dataclass(frozen=True)
class Name:
    """A name that stood in the pickle and is known.

    Attributes:
        text: "module.name".
        call: arguments -> value; None for what is no function.
        dtype: of the numbers of a storage class; None for others.
    """

    text: str
    call: Callable[..., Any] | None = None
    dtype: np.dtype | None = None


def is_size(value) -> bool:
    """Whether a value is a count: a whole number, neither negative nor larger than a file can be."""
    return type(value) is int and 0 <= value < 1 << 63


def _sizes(value, what: str) -> tuple[int, ...]:
    if type(value) is not tuple or len(value) > _MOST_DIMENSIONS:
        raise Unknown(f"the {what} of a tensor is {shown(value)}")
    for one in value:
        if not is_size(one):
            raise Unknown(f"the {what} of a tensor holds {shown(one)}")
    return value


def _tensor(storage, offset, shape, strides) -> Tensor:
    """A tensor whose every number lies in its storage.

    Expanded ones (stride 0) are read as long as they have no more numbers than the storage: what they would need in
    memory would not be bounded by the file otherwise.
    """
    if type(storage) is not Storage:
        raise Unknown(f"a tensor's storage is {shown(storage)}")
    shape, strides = _sizes(shape, "shape"), _sizes(strides, "strides")
    if not is_size(offset) or len(shape) != len(strides):
        raise Unknown(f"a tensor has the offset {shown(offset)}, {len(shape)} dimensions and {len(strides)} strides")
    numel = math.prod(shape)
    last = offset + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True)) if numel else 0
    if numel > storage.numel or last >= max(storage.numel, 1) or offset > storage.numel:
        raise Unknown(
            f"a tensor of shape {list(shape)}, strides {list(strides)} and offset {offset} does not fit the "
            f"{storage.numel} numbers of its storage"
        )
    if math.prod(max(size, 1) for size in shape) > _MOST_NUMBERS:
        raise Unknown(f"an empty tensor has the shape {list(shape)}")
    return Tensor(storage, offset, shape, strides)


def _tensor_v2(storage, offset, shape, strides, requires_grad, hooks, metadata=None) -> Tensor:
    if metadata:
        raise Unknown(f"a tensor has further properties ({shown(metadata)}), such as torch's lazy negation")
    return _tensor(storage, offset, shape, strides)


def _parameter(data, requires_grad, hooks) -> Tensor:
    if type(data) is not Tensor:
        raise Unknown(f"a parameter's data is {shown(data)}")
    return data


def _ordered_dict(*items) -> dict:
    if items:
        raise Unknown("an OrderedDict is made from arguments, as Python 2 did")
    return {}


def _size(sizes=()) -> tuple[int, ...]:
    return _sizes(sizes, "size")


NAMES = {
    name.text: name
    for name in (
        Name("collections.OrderedDict", _ordered_dict),
        Name("torch._utils._rebuild_tensor", _tensor),
        Name("torch._utils._rebuild_tensor_v2", _tensor_v2),
        Name("torch._utils._rebuild_parameter", _parameter),
        Name("torch.Size", _size),
        *(Name(f"torch.{name}", dtype=dtype) for name, dtype in _STORAGES.items()),
    )
}
# Names that honest files have, and what they say of them.
_KINDS = {
    "torch._utils._rebuild_qtensor": "a quantized tensor, whose numbers mean nothing without their scales",
    "torch._utils._rebuild_sparse_tensor": "a sparse tensor",
    "torch._utils._rebuild_sparse_csr_tensor": "a sparse tensor",
    "torch._utils._rebuild_nested_tensor": "a nested tensor",
    "torch._utils._rebuild_meta_tensor_no_storage": "a tensor without values",
    "torch.nn.": "a whole module pickled with its code, and not its state_dict()",
    "transformers.": "an object of transformers, and not its state_dict()",
}


def named(text: str) -> Name:
    """What a name stands for.

    Raises:
        Unknown: for one that is not in the table.
    """
    if text in NAMES:
        return NAMES[text]
    kind = next((said for start, said in _KINDS.items() if text.startswith(start)), "which may run any code")
    raise Unknown(f"its pickle names {shown(text)}, {kind}")


def called(name, arguments) -> Any:
    """What a known function makes of its arguments.

    Raises:
        Unknown: for what is no function of the table, or arguments that it does not have.
    """
    if type(name) is not Name or name.call is None or type(arguments) is not tuple:
        told = name.text if type(name) is Name else shown(name)
        raise Unknown(f"its pickle calls {told} with {shown(arguments)}")
    try:
        return name.call(*arguments)
    except TypeError as error:
        raise Unknown(f"its pickle calls {name.text} with {len(arguments)} arguments") from error


def stored(reference) -> Storage:
    """The storage that a persistent id names: ("storage", class, key, device, count), then None in older files.

    Raises:
        Unknown: for any other id, or storages of other kinds.
    """
    view = None
    if type(reference) is tuple and len(reference) == 6:
        *reference, view = reference
    if not isinstance(reference, (tuple, list)) or len(reference) != 5 or reference[0] != "storage":
        raise Unknown(f"its pickle refers to {shown(reference)}")
    _, kind, key, _, numel = reference
    if view is not None:
        raise Unknown("a storage is a view of another, as torch before 0.4 wrote them")
    if type(kind) is not Name or kind.dtype is None or type(key) is not str or not is_size(numel):
        raise Unknown(f"the storage {shown(key)} has the class {shown(kind)} and {shown(numel)} numbers")
    if numel * kind.dtype.itemsize >= 1 << 63:
        raise Unknown(f"the storage {shown(key)} has {numel} numbers, more than any file can hold")
    return Storage(key, kind.dtype, numel)
