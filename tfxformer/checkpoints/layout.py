"""Where our variables lie in the reference's tensors, what is only a way of storing them.

As they are or transposed, whole or a part of a fused tensor.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

# Our variable's last name -> the reference's, and the names that files of TensorFlow origin have in its place.
LEAVES = {
    "kernel": ("weight",),
    "bias": ("bias",),
    "embeddings": ("weight",),
    "gamma": ("weight", "gamma"),
    "beta": ("bias", "beta"),
    "log_speed": ("A_log",),
    "fading_bias": ("dt_bias",),
}
THIRDS = (1, 1, 1)  # query, key and value, as wide as each other


@dataclass(frozen=True)
class Module:
    """A module of the reference that holds one of our layers.

    Attributes:
        name: its name, without the family's prefix.
        also: other names that files have for it.
        transposed: whether its kernel is [out, in] (torch's Linear); GPT-2's Conv1D has our own [in, out].
        part: None, or which of the layers that the module holds ours is: 0, 1, 2 of query, key and value.
        sizes: how wide the outputs of these layers are to each other, numbers, or "heads", "groups" (heads of keys and
            values) and "heads_per_group" for those of the stack: ("heads", "groups", "groups") in Phi-3, (1, 1) of
            gate and expand.
        by: None where each part is whole, one after another (GPT-2); "heads" where they alternate head by head, outputs
            being [heads, 3, head width] (GPT-NeoX, Bloom), "groups" by heads of keys and values (Falcon); a number of
            shares of the heads (CodeGen).
        neighbours: of queries and keys, whether a head's channels 2i and 2i + 1 turn together in the reference (GPT-J):
            ours are the same rows in the order in which i and i + R/2 do, which changes no product of the two.
        bias: the name of the bias's tensor, where it lies alone, beside the module (DeBERTa); None for a part of it.
        buffer: whether the name is that of a tensor [1, N] itself (BART's final_logits_bias).
        by_channel: whether its kernel is that of a convolution for each channel, [C, 1, K] (torch's Conv1d with
            groups); ours is [K, C].
        leaves: our variables' last names -> the reference's, where they are parameters with names of their own (XLNet).
        heads_apart: whether heads and their channels are two axes in the tensors, the last ones (XLNet).
    """

    name: str
    also: tuple[str, ...] = ()
    transposed: bool = True
    part: int | None = None
    sizes: tuple[int | str, ...] = THIRDS
    by: str | int | None = None
    neighbours: bool = False
    bias: str | None = None
    buffer: bool = False
    by_channel: bool = False
    leaves: Mapping[str, str] | None = None
    heads_apart: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """All names that files have for it, the reference's first."""
        return (self.name, *self.also)


@dataclass(frozen=True)
class Place:
    """Where one variable lies.

    Attributes:
        names: the names that its tensor may have, without the family's prefix, preferred first.
        transposed: whether the tensor is our variable transposed.
        part: None, or which part of the tensor's outputs is ours.
        sizes: how wide the parts are to each other.
        groups: into how many groups of all parts the outputs fall.
        axis: the tensor's axis of outputs.
        turned: None, or (H, R) where the first R of a head's H channels turn by neighbours in the tensor.
        row: whether the tensor is our variable as its one row.
        by_channel: whether the tensor has an axis of one in the middle, [C, 1, K].
        apart: None, or (N, H), into which the tensor's last axis falls.
    """

    names: tuple[str, ...]
    transposed: bool = False
    part: int | None = None
    sizes: tuple[int, ...] = THIRDS
    groups: int = 1
    axis: int = 0
    turned: tuple[int, int] | None = None
    row: bool = False
    by_channel: bool = False
    apart: tuple[int, int] | None = None

    def tensor_shape(self, shape) -> tuple[int, ...]:
        """The shape of the tensor of a variable of this shape."""
        shape = [1, *shape] if self.row else list(shape[::-1] if self.transposed else shape)
        if self.by_channel:
            shape.insert(1, 1)
        if self.part is not None:
            shape[self.axis] = shape[self.axis] * sum(self.sizes) // self.sizes[self.part]
        return tuple(shape if self.apart is None else [*shape[:-1], *self.apart])

    def read(self, array: np.ndarray) -> np.ndarray:
        """The variable's part of the tensor, not yet transposed; a view where numpy can make one."""
        if self.by_channel:
            return array[:, 0]
        if self.apart is not None:
            array = array.reshape(*array.shape[:-2], -1)
        if self.part is None:
            return self.reordered(array[0] if self.row else array)
        outer, inner = array.shape[: self.axis], array.shape[self.axis + 1 :]
        parts = array.reshape(*outer, self.groups, sum(self.sizes), -1, *inner)
        begin = sum(self.sizes[: self.part])
        ours = (slice(None),) * (self.axis + 1) + (slice(begin, begin + self.sizes[self.part]),)
        return self.reordered(parts[ours].reshape(*outer, -1, *inner))

    def reordered(self, array: np.ndarray, back: bool = False) -> np.ndarray:
        """A part's outputs, the channels of a head in our order; `back` in the tensor's."""
        if self.turned is None:
            return array
        width, turning = self.turned
        order = np.concatenate([np.arange(0, turning, 2), np.arange(1, turning, 2), np.arange(turning, width)])
        heads = array.reshape(*array.shape[: self.axis], -1, width, *array.shape[self.axis + 1 :])
        return np.take(heads, np.argsort(order) if back else order, axis=self.axis + 1).reshape(array.shape)

    def join(self, parts: list[np.ndarray]) -> np.ndarray:
        """The inverse of `read` for a fused tensor: one of all parts, each already transposed and reordered."""
        outer, inner = parts[0].shape[: self.axis], parts[0].shape[self.axis + 1 :]
        grouped = [
            part.reshape(*outer, self.groups, size, -1, *inner) for part, size in zip(parts, self.sizes, strict=True)
        ]
        return np.concatenate(grouped, axis=self.axis + 1).reshape(*outer, -1, *inner)


def place(module: Module, leaf: str, stack, aliases: Mapping[str, str]) -> Place:
    """The place of a variable.

    Args:
        module: the module of its layer.
        leaf: the variable's last name, a key of `LEAVES`.
        stack: StackConfig of the stack that the layer is part of; None where the module is no part of a fused one.
        aliases: other names of whole tensors -> the name they stand for.
    """
    if leaf == "bias" and module.bias is not None:
        return Place((module.bias,))
    ends = LEAVES[leaf] if module.leaves is None else (module.leaves[leaf],)
    names = [f"{name}.{end}" if name else end for name in module.names for end in ends]
    names = list(module.names) if module.buffer else names
    names += [alias for alias, name in aliases.items() if name in names]
    is_kernel = leaf == "kernel"
    return Place(
        tuple(names),
        transposed=is_kernel and module.transposed,
        part=module.part,
        sizes=tuple(_number(size, stack) for size in module.sizes),
        groups=1 if module.by is None else _number(module.by, stack),
        axis=1 if is_kernel and not module.transposed else 0,
        turned=_turned(stack) if module.neighbours else None,
        row=module.buffer,
        by_channel=module.by_channel,
        apart=(stack.heads, stack.head_width) if module.heads_apart else None,
    )


def _number(said: int | str, stack) -> int:
    """What a module's size says of a stack."""
    if isinstance(said, int):
        return said
    heads, groups = stack.heads, stack.key_value_heads
    return {"heads": heads, "groups": groups, "heads_per_group": heads // groups}[said]


def _turned(stack) -> tuple[int, int] | None:
    """(H, R) of a stack, None where nothing turns; kinds of its attention that turn at all turn as many channels."""
    width = stack.head_width
    turning = [one.rotary.width(width) for one in stack.attention.values() if one.rotary is not None]
    return (width, turning[0]) if turning else None


def variables_of_tensors(places: Mapping[str, Place]) -> dict[str, list[tuple[str, Place]]]:
    """The reference's name of a tensor -> the variables that are in it, by path, in the order of its parts."""
    found: dict[str, list[tuple[str, Place]]] = {}
    for path, where in places.items():
        found.setdefault(where.names[0], []).append((path, where))
    return {name: sorted(variables, key=lambda one: one[1].part or 0) for name, variables in found.items()}


def tensor_of(arrays: list[np.ndarray], places: list[Place]) -> np.ndarray:
    """The tensor that holds some variables: one alone, or all parts of a fused one in their order."""
    parts = []
    for array, where in zip(arrays, places, strict=True):
        array = array.T if where.transposed else array
        array = where.reordered(array[:, None] if where.by_channel else array, back=True)
        array = array if where.apart is None else array.reshape(*array.shape[:-1], *where.apart)
        parts.append(array[None] if where.row else array)
    return parts[0] if places[0].part is None else places[0].join(parts)


def tensors_of(arrays: Mapping[str, np.ndarray], places: Mapping[str, Place]) -> dict[str, np.ndarray]:
    """Our variables as the reference's tensors: name -> array.

    Args:
        arrays: variable path -> value.
        places: variable path -> `Place`; every part of a fused tensor must be there.
    """
    return {
        name: tensor_of([arrays[path] for path, _ in variables], [where for _, where in variables])
        for name, variables in variables_of_tensors(places).items()
    }
