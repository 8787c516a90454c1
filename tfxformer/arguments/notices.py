"""What the package warns of: with the line of the user's program that led there."""

from __future__ import annotations

import sys
import warnings

_PASSED = ("tfxformer", "keras")  # whose lines say nothing to a user


class TfxformerWarning(UserWarning):
    """A warning of this package."""


def warn(message: str) -> None:
    """Warns, pointing at the nearest caller outside of this package and Keras, however many lines are between."""
    frame, level = sys._getframe(1), 2
    while frame is not None and frame.f_globals.get("__name__", "").partition(".")[0] in _PASSED:
        frame, level = frame.f_back, level + 1
    warnings.warn(message, TfxformerWarning, stacklevel=level)
