"""How many parameters are trained, and what training them holds in memory."""

from __future__ import annotations

import math
from dataclasses import dataclass

import keras
import ml_dtypes  # noqa: F401  (numpy learns bfloat16)
import numpy as np


@dataclass(frozen=True)
class TrainableRow:
    """A part of a model, or all of it.

    Attributes:
        name: of its layer.
        parameters, trainable: int, numbers.
        weight_bytes, gradient_bytes, optimizer_bytes: int, of the weights; of the gradients and the optimizer's moments
            of those that are trained.
    """

    name: str
    parameters: int
    trainable: int
    weight_bytes: int
    gradient_bytes: int
    optimizer_bytes: int

    @property
    def share(self) -> float:
        """The fraction that is trained, 0 to 1."""
        return self.trainable / self.parameters if self.parameters else 0.0

    @property
    def bytes(self) -> int:
        """All three together."""
        return self.weight_bytes + self.gradient_bytes + self.optimizer_bytes


@dataclass(frozen=True)
class TrainableTable:
    """The parts of a model, and their sum; `str` of it is the table."""

    rows: tuple[TrainableRow, ...]
    total: TrainableRow

    def to_dict(self) -> dict:
        """For JSON: {"total": ..., "rows": [...]}."""

        def described(row):
            return {**row.__dict__, "share": row.share, "bytes": row.bytes}

        return {"total": described(self.total), "rows": [described(row) for row in self.rows]}

    def __str__(self) -> str:
        header = ("part", "parameters", "trainable", "share", "weights MB", "gradients MB", "optimizer MB")
        lines = [header]
        for row in (*self.rows, self.total):
            sizes = (row.weight_bytes, row.gradient_bytes, row.optimizer_bytes)
            megabytes = (f"{size / 1e6:.2f}" for size in sizes)
            lines.append((row.name, f"{row.parameters:,}", f"{row.trainable:,}", f"{row.share:.2%}", *megabytes))
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        table = [
            "  ".join(
                cell.rjust(width) if column else cell.ljust(width)
                for column, (cell, width) in enumerate(zip(line, widths, strict=True))
            )
            for line in lines
        ]
        rule = "-" * len(table[0])
        return "\n".join([table[0], rule, *table[1:-1], rule, table[-1]])


def trainable_table(model: keras.Model, moments: int = 2) -> TrainableTable:
    """Counts a built model's parameters, and the memory that training takes beside activations.

    Args:
        model: any Keras 3 model.
        moments: int, what the optimizer keeps for each trained parameter: 2 for Adam, 1 for momentum, 0 for SGD.

    Raises:
        ValueError: for a model that has no weights yet.
    """
    if not model.built:
        raise ValueError(f"{model.name} has no weights yet: build it, or call it on a batch, first.")
    parts: dict[str, list[keras.Variable]] = {}
    for variable in model.weights:
        parts.setdefault(variable.path.split("/")[0], []).append(variable)
    return TrainableTable(
        tuple(_row(name, variables, moments) for name, variables in parts.items()),
        _row("all", model.weights, moments),
    )


def _row(name: str, variables: list[keras.Variable], moments: int) -> TrainableRow:
    trained = [variable for variable in variables if variable.trainable]
    gradients = sum(map(_bytes, trained))
    return TrainableRow(
        name=name,
        parameters=sum(math.prod(variable.shape) for variable in variables),
        trainable=sum(math.prod(variable.shape) for variable in trained),
        weight_bytes=sum(map(_bytes, variables)),
        gradient_bytes=gradients,
        optimizer_bytes=moments * gradients,
    )


def _bytes(variable: keras.Variable) -> int:
    return math.prod(variable.shape) * np.dtype(keras.backend.standardize_dtype(variable.dtype)).itemsize
