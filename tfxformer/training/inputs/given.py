"""What a `fit`, `evaluate` or `predict` was given, between the caller and Keras."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np


class Given(NamedTuple):
    """What a `fit`, `evaluate` or `predict` was given.

    Attributes:
        x, y, sample_weight: lists of examples; or what the caller passed: arrays, or a source of ready batches.
        batch_size: int or None; of a source of batches of texts its own.
        in_order: whether rows are read as they come, because their source has an order of its own.
        steps: the updates that the texts of a stream were read for; None for anything else.
    """

    x: Any
    y: Any = None
    sample_weight: Any = None
    batch_size: int | None = None
    in_order: bool = False
    steps: int | None = None

    def of_arrays(self, x, y, sample_weight) -> Given:
        """The same with what its texts have become, whose rows (windows, blocks) may be another number."""
        size = self.batch_size
        if self.steps and isinstance(x, Mapping):
            rows = len(next(iter(x.values())))
            if rows != len(self.x):
                size = max(1, -(-rows // self.steps))
        return self._replace(x=x, y=y, sample_weight=sample_weight, batch_size=size)

    def with_arrays(self, x, y, sample_weight) -> Given:
        """The same with other arrays."""
        return self._replace(x=x, y=y, sample_weight=sample_weight)

    def for_keras(self):
        """As `validation_data`."""
        if self.y is None and self.sample_weight is None and not isinstance(self.x, (Mapping, np.ndarray)):
            return self.x
        return self.x, self.y, self.sample_weight


def check_counts(**counts) -> None:
    """Refuses numbers of rows, steps or epochs that Keras would read as another one, or fail with deep inside.

    Args:
        counts: by name; None is not given. Epochs may be 0, all others are 1 at least.

    Raises:
        ValueError: naming the argument.
    """
    for name, value in counts.items():
        least = 0 if name in ("epochs", "initial_epoch") else 1
        try:
            right = value is None or operator.index(value) >= least
        except TypeError:
            right = False
        if not right:
            raise ValueError(f"{name}={value!r}: wanted a whole number of {least} or more.")
