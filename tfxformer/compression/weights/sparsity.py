"""How many weights of a model are exactly zero."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import keras

from tfxformer.compression.weights.matrices import choose_kernels


@dataclass(frozen=True)
class WeightCount:
    """A weight, or a sum of several (then of shape None), and its zeros."""

    path: str
    shape: tuple[int, ...] | None
    parameters: int
    zeros: int

    @property
    def sparsity(self) -> float:
        """The fraction of zeros, 0 to 1."""
        return self.zeros / self.parameters if self.parameters else 0.0

    def to_dict(self) -> dict:
        """For JSON."""
        counts = {"parameters": self.parameters, "zeros": self.zeros, "sparsity": self.sparsity}
        if self.shape is None:
            return counts
        return {"path": self.path, "shape": list(self.shape), **counts}


@dataclass(frozen=True)
class SparsityReport:
    """The kernels that can be pruned, one by one and together, and all weights of the model."""

    rows: tuple[WeightCount, ...]
    kernels: WeightCount
    weights: WeightCount

    def to_dict(self) -> dict:
        """For JSON: {"kernels": totals, "weights": totals, "rows": [...]}."""
        return {
            "kernels": self.kernels.to_dict(),
            "weights": self.weights.to_dict(),
            "rows": [row.to_dict() for row in self.rows],
        }

    def __str__(self) -> str:
        lines = [("kernel", "shape", "parameters", "zeros", "sparsity")]
        for row in (*self.rows, self.kernels, self.weights):
            shape = "" if row.shape is None else " x ".join(map(str, row.shape))
            lines.append((row.path, shape, f"{row.parameters:,}", f"{row.zeros:,}", f"{row.sparsity:.2%}"))
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        table = [
            "  ".join(
                cell.ljust(width) if column < 2 else cell.rjust(width)
                for column, (cell, width) in enumerate(zip(line, widths, strict=True))
            )
            for line in lines
        ]
        rule = "-" * len(table[0])
        return "\n".join([table[0], rule, *table[1:-2], rule, *table[-2:]])


def sparsity_report(model: keras.Model, layers: Callable[[keras.layers.Layer], bool] | None = None) -> SparsityReport:
    """Counts the zeros of a built model.

    Args:
        model: any Keras 3 model.
        layers: which layers' kernels get a row, as in `Prune`; None is all but the output layer. Frozen
            kernels are counted too.

    Raises ValueError for a model that is not built.
    """
    if not model.built:
        raise ValueError(f"{model.name} has no weights yet: build it, or call it on a batch, first.")
    rows = [_count(kernel.variable) for kernel in choose_kernels(model, layers)]
    return SparsityReport(
        rows=tuple(rows),
        kernels=_total("kernels that can be pruned", rows),
        weights=_total("all weights", [_count(variable) for variable in model.weights]),
    )


def count_zeros(variable: keras.Variable) -> int:
    """The number of weights that are exactly zero, -0.0 among them."""
    return math.prod(variable.shape) - int(keras.ops.count_nonzero(variable))


def _count(variable: keras.Variable) -> WeightCount:
    return WeightCount(variable.path, tuple(variable.shape), math.prod(variable.shape), count_zeros(variable))


def _total(name: str, rows: list[WeightCount]) -> WeightCount:
    return WeightCount(name, None, sum(row.parameters for row in rows), sum(row.zeros for row in rows))
