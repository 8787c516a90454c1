"""Plain values made into dataclasses: what is wrong is collected, each with its place and what is wanted there."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from dataclasses import fields

from tfxformer.arguments.keywords import nearest
from tfxformer.recipes.sweep.rules import broken_rule

WHOLE = "the recipe"  # the place of the outermost dataclass, whose keys stand alone
WRONG = object()  # stands for a value that was refused


def make(cls, content, place: str, errors: list[str]):
    """A dataclass of plain values, each of the kind that its field has; `WRONG` where it cannot be made."""
    if isinstance(content, cls) or content is WRONG:
        return content
    if not is_mapping(content, place, cls, errors):
        return WRONG
    kinds, inside = typing.get_type_hints(cls), "" if place == WHOLE else f"{place}."
    named = {one.name: one for one in fields(cls)}
    values = {
        name: value_of(kinds[name], content[name], f"{inside}{name}", errors, one)
        for name, one in named.items()
        if name in content
    }
    if missing := [name for name, one in named.items() if name not in values and _required(one)]:
        errors.append(f"{place}: lacks {missing}")
    if missing or any(value is WRONG for value in values.values()):
        return WRONG
    try:
        return cls(**values)
    except ValueError as error:
        errors.append(f"{place}: {error}")
        return WRONG


def value_of(kind, value, place: str, errors: list[str], rule: dataclasses.Field):
    """A value as its field wants it; YAML reads 1e-4 as a text, which is taken for the number it means."""
    if isinstance(kind, types.UnionType):
        if value is None and type(None) in kind.__args__:
            return None
        kinds = [one for one in kind.__args__ if one is not type(None)]
        kind = next((one for one in kinds if one in (str, dict) and isinstance(value, one)), kinds[0])
    if dataclasses.is_dataclass(kind):
        return make(kind, value, place, errors)
    if kind is float and isinstance(value, (int, str)) and not isinstance(value, bool):
        try:
            value = float(value)
        except (ValueError, OverflowError):
            errors.append(f"{place}: wanted a number, got {value!r:.80}")
            return WRONG
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        names = {float: "a number", int: "an integer", str: "a text", bool: "true or false"}
        errors.append(f"{place}: wanted {names.get(kind, kind.__name__)}, got {value!r:.80}")
        return WRONG
    if wrong := broken_rule(rule, value):
        errors.append(f"{place}{wrong}")
        return WRONG
    return value


def is_mapping(content, place: str, cls, errors: list[str]) -> bool:
    """Whether a value is a mapping, as a dataclass is made of; unknown keys are said, too."""
    names = [one.name for one in fields(cls)]
    if not isinstance(content, Mapping):
        errors.append(f"{place}: wanted a mapping of {', '.join(names)}, got {content!r:.80}")
        return False
    check_known(content, names, place, errors)
    return True


def check_known(content: Mapping, names, place: str, errors: list[str]) -> None:
    """Says which keys are not among the names, with the nearest one."""
    for name in content:
        if name not in names:
            near = nearest(str(name), names)
            hint = f" (did you mean {near}?)" if near else ""
            errors.append(f"{place}: unknown {name!r}{hint}; known: {', '.join(names)}")


def _required(one) -> bool:
    return one.default is dataclasses.MISSING and one.default_factory is dataclasses.MISSING
