"""What a plain value is: the checks that arguments of all rooms share."""

from __future__ import annotations

import math
from numbers import Integral, Real


def is_finite_number(value) -> bool:
    """Whether a value is a number, neither a bool nor NaN nor infinite."""
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


def is_whole_number(value) -> bool:
    """Whether a value is an integer, numpy's too, and no bool."""
    return isinstance(value, Integral) and not isinstance(value, bool)
