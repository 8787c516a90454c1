"""Where our variables lie in the reference's tensors: as they are or transposed, whole or a third of a fused one."""

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
}
FUSED = 3  # query, key and value in one tensor


@dataclass(frozen=True)
class Module:
    """A module of the reference that holds one of our layers.

    Attributes:
        name: its name, without the family's prefix.
        also: other names that files have for it.
        transposed: whether its kernel is [out, in] (torch's Linear); GPT-2's Conv1D has our own [in, out].
        part: None, or which of query, key and value (0, 1, 2) our layer is, where the module projects to all three.
        by_head: whether the three alternate head by head, outputs being [heads, 3, head width] (GPT-NeoX, Bloom);
            else each is whole, one after another (GPT-2).
    """

    name: str
    also: tuple[str, ...] = ()
    transposed: bool = True
    part: int | None = None
    by_head: bool = False

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
        part: None, or which third of the tensor's outputs is ours.
        groups: into how many groups of three the outputs fall.
        axis: the tensor's axis of outputs.
    """

    names: tuple[str, ...]
    transposed: bool = False
    part: int | None = None
    groups: int = 1
    axis: int = 0

    def tensor_shape(self, shape) -> tuple[int, ...]:
        """The shape of the tensor of a variable of this shape."""
        shape = list(shape[::-1] if self.transposed else shape)
        if self.part is not None:
            shape[self.axis] *= FUSED
        return tuple(shape)

    def read(self, array: np.ndarray) -> np.ndarray:
        """The variable's part of the tensor, not yet transposed; a view where numpy can make one."""
        if self.part is None:
            return array
        outer, inner = array.shape[: self.axis], array.shape[self.axis + 1 :]
        parts = array.reshape(*outer, self.groups, FUSED, -1, *inner)
        ours = (slice(None),) * (self.axis + 1) + (self.part,)
        return parts[ours].reshape(*outer, -1, *inner)

    def join(self, parts: list[np.ndarray]) -> np.ndarray:
        """The inverse of `read`: one tensor of all three parts, each already transposed where it must be."""
        outer, inner = parts[0].shape[: self.axis], parts[0].shape[self.axis + 1 :]
        groups = [part.reshape(*outer, self.groups, -1, *inner) for part in parts]
        return np.stack(groups, axis=self.axis + 1).reshape(*outer, -1, *inner)


def place(module: Module, leaf: str, heads: int, aliases: Mapping[str, str]) -> Place:
    """The place of a variable.

    Args:
        module: the module of its layer.
        leaf: the variable's last name, a key of `LEAVES`.
        heads: int N, query heads of the stack.
        aliases: other names of whole tensors -> the name they stand for.
    """
    names = [f"{name}.{end}" for name in module.names for end in LEAVES[leaf]]
    names += [alias for alias, name in aliases.items() if name in names]
    is_kernel = leaf == "kernel"
    return Place(
        tuple(names),
        transposed=is_kernel and module.transposed,
        part=module.part,
        groups=heads if module.by_head else 1,
        axis=1 if is_kernel and not module.transposed else 0,
    )


def tensors_of(arrays: Mapping[str, np.ndarray], places: Mapping[str, Place]) -> dict[str, np.ndarray]:
    """Our variables as the reference's tensors: name -> array.

    Args:
        arrays: variable path -> value.
        places: variable path -> `Place`; every part of a fused tensor must be there.
    """
    parts: dict[str, dict[int | None, np.ndarray]] = {}
    for path, where in places.items():
        array = arrays[path].T if where.transposed else arrays[path]
        parts.setdefault(where.names[0], {})[where.part] = array
    joiners = {where.names[0]: where for where in places.values()}
    return {
        name: found[None] if None in found else joiners[name].join([found[part] for part in range(FUSED)])
        for name, found in parts.items()
    }
