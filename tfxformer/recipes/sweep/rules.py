"""What the values of a recipe must be: rules that stand beside the fields of its dataclasses."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import field, fields


def rule(default, holds, words: str):
    """A field and what holds of its values; `words` finish the sentence "NAME=VALUE must be ..."."""
    metadata = {"rule": (holds, words)}
    return field(metadata=metadata) if default is dataclasses.MISSING else field(default=default, metadata=metadata)


def least(default, least: int = 1):
    """A whole number from `least` on; None where that is the default."""
    return rule(default, lambda value: value is None or value >= least, f"{least} or more")


def number(default, zero: bool = False):
    """A finite number above 0, or with `zero` 0 too."""
    words = "a finite number of 0 or more" if zero else "a finite number above 0"
    return rule(default, lambda value: math.isfinite(value) and (value > 0 or (zero and value == 0)), words)


def share(default):
    """A share between 0 and 1; None where that is the default."""
    return rule(default, lambda value: value is None or 0 < value < 1, "a share between 0 and 1")


def one_of(default, known, none: bool = False):
    """One of the `known` values, or with `none` none."""
    return rule(default, lambda value: value in known or (none and value is None), f"one of {', '.join(known)}")


def broken_rule(one: dataclasses.Field, value) -> str | None:
    """What is wrong with a field's value, as the end of a sentence; None where nothing is."""
    holds, words = one.metadata.get("rule", (lambda value: True, ""))
    return None if holds(value) else f"={value!r} must be {words}"


class Checked:
    """A dataclass whose values are checked by the rules of its fields."""

    def __post_init__(self):
        broken = [f"{one.name}{wrong}" for one in fields(self) if (wrong := broken_rule(one, getattr(self, one.name)))]
        if broken:
            raise ValueError("; ".join(broken))
