"""How the weights of our layers lie on a mesh of devices, for Keras' distribution on JAX.

Of two products in a row the first is split by its outputs and the second by its inputs (Shoeybi et al., 2019,
arXiv:1909.08053), so that only the second's sum crosses devices; tables are split by rows.
"""

from __future__ import annotations

import math
import re
from typing import NamedTuple

import keras
import ml_dtypes  # noqa: F401  (numpy learns bfloat16)
import numpy as np

BATCH, MODEL = "batch", "model"  # the axes of a mesh
# The end of a variable's path -> its axes. Every other variable is whole on each device.
RULES = (
    (r"(^|/)(query|key|value|expand|gate)/kernel$", (None, MODEL)),
    (r"(^|/)(query|key|value|expand|gate)/bias$", (MODEL,)),
    (r"(attention|feed_forward)/output/kernel$", (MODEL, None)),
    (r"(^|/)token_embedding/embeddings$", (MODEL, None)),
)


class Row(NamedTuple):
    """How one variable lies.

    Attributes:
        path: the variable's.
        shape: the whole one's.
        axes: for each dimension the axis of the mesh that it is split over, or None.
        why_whole: of a variable that a rule would split, what keeps it whole; else "".
        bytes_each: of one device.
    """

    path: str
    shape: tuple[int, ...]
    axes: tuple[str | None, ...]
    why_whole: str
    bytes_each: int


class Layout(list):
    """The rows of a model's variables; printed as a table."""

    @property
    def bytes_each(self) -> int:
        """Of all variables on one device."""
        return sum(row.bytes_each for row in self)

    def __str__(self):
        width = max((len(row.path) for row in self), default=0)
        lines = [
            f"{row.path:{width}}  {'x'.join(map(str, row.shape)):>14}  "
            f"{', '.join(axis or '-' for axis in row.axes):16} {row.why_whole}".rstrip()
            for row in self
        ]
        return "\n".join([*lines, f"{self.bytes_each / 2**20:.1f} MiB on each device"])


def layout(model, mesh) -> Layout:
    """How a model's variables lie on a mesh, one row each: what no rule knows is whole on every device, visibly.

    Args:
        model: a built Keras model of our layers.
        mesh: (data, model) sizes, a `keras.distribution.DeviceMesh`, or a distribution that has one.

    Raises ValueError for what is no mesh.
    """
    sizes = _sizes(mesh)
    rows = []
    for variable in model.variables:
        axes, why = axes_of(variable.path, tuple(variable.shape), sizes.get(MODEL, 1))
        items = math.prod(variable.shape) // math.prod(sizes[axis] for axis in axes if axis)
        rows.append(Row(variable.path, tuple(variable.shape), axes, why, items * itemsize(variable.dtype)))
    return Layout(rows)


def axes_of(path: str, shape: tuple[int, ...], shards: int) -> tuple[tuple[str | None, ...], str]:
    """(axes of a variable, what keeps it whole though a rule would split it)."""
    for pattern, axes in RULES:
        if shards > 1 and len(axes) == len(shape) and re.search(pattern, path):
            size = shape[axes.index(MODEL)]
            if size % shards == 0:
                return axes, ""
            return (None,) * len(shape), f"whole: {size} does not divide by {shards}"
    return (None,) * len(shape), ""


def tensor_parallel(device_mesh) -> keras.distribution.ModelParallel:
    """`keras.distribution.ModelParallel` by `RULES`; what does not divide stays whole."""

    class TensorParallel(keras.distribution.ModelParallel):
        """The rules look at a variable's shape too, which a `LayoutMap` does not see."""

        def get_variable_layout(self, variable):
            if getattr(variable, "_layout", None) is not None:
                return variable._layout
            shards = _sizes(self.device_mesh)[MODEL]
            axes, _ = axes_of(variable.path, tuple(variable.shape), shards)
            return keras.distribution.TensorLayout(axes, self.device_mesh)

    layout_map = keras.distribution.LayoutMap(device_mesh)
    return TensorParallel(layout_map=layout_map, batch_dim_name=BATCH, auto_shard_dataset=False)


def parts_of_a_batch(mesh) -> int:
    """Over how many devices, or groups of them, a batch is shared."""
    return _sizes(mesh)[BATCH]


def _sizes(mesh) -> dict[str, int]:
    mesh = getattr(mesh, "device_mesh", mesh)
    if isinstance(mesh, keras.distribution.DeviceMesh):
        return dict(zip(mesh.axis_names, mesh.shape, strict=True))
    try:
        data, model = map(int, mesh)
    except (TypeError, ValueError):
        raise ValueError(f"A mesh is (data, model) sizes such as (2, 4), or a DeviceMesh, not {mesh!r}.") from None
    return {BATCH: data, MODEL: model}


def itemsize(dtype) -> int:
    """Bytes of one number of a dtype, such as "bfloat16"."""
    return np.dtype(keras.backend.standardize_dtype(dtype)).itemsize
