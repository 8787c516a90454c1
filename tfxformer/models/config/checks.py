"""How configs are checked, made of dicts, and changed."""

from __future__ import annotations

import dataclasses
import math

from tfxformer.arguments.keywords import nearest
from tfxformer.arguments.plain_values import is_finite_number, is_whole_number


def require(condition: bool, message: str) -> None:
    """Raises ValueError with the message unless the condition holds."""
    if not condition:
        raise ValueError(message)


def require_number(value, name: str) -> None:
    """Refuses what is no finite number of at least 0."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    require(number and 0 <= value < math.inf, f"{name} must be a finite number of at least 0, not {value!r}.")


def require_positive(config, *names: str) -> None:
    """Refuses fields that are neither positive nor None."""
    for name in names:
        value = getattr(config, name)
        require(value is None or value > 0, f"{name} must be positive or None, not {value!r}.")


def require_sizes(config, *names: str) -> None:
    """Refuses fields that are no positive int."""
    for name in names:
        value = getattr(config, name)
        require(type(value) is int and value > 0, f"{name} must be a positive int, not {value!r}.")


def check_rate(name: str, value) -> None:
    """Refuses what is no rate of dropout."""
    require(0 <= value < 1, f"{name} must be in [0, 1), not {value!r}.")


def check_choice(name: str, value, known) -> None:
    """Refuses a value that is not among the known ones."""
    require(value in known, f"Unknown {name} {value!r}; known: {', '.join(map(str, known))}.")


# What a field of these annotations holds, in words. Booleans are no numbers here: JSON tells them apart.
_KINDS = {
    "int": (is_whole_number, "an int"),
    "float": (
        is_finite_number,
        "a number",
    ),
    "bool": (lambda value: isinstance(value, bool), "True or False"),
    "str": (lambda value: isinstance(value, str), "a text"),
}


def check_kinds(config) -> None:
    """Refuses, by name, values that are not of the kind that their fields are annotated with."""
    for one in dataclasses.fields(config):
        kind, _, none = one.type.partition(" | ")
        value = getattr(config, one.name)
        if kind in _KINDS and not (none == "None" and value is None):
            holds, words = _KINDS[kind]
            require(holds(value), f"{one.name} must be {words}{' or None' if none else ''}, not {value!r}.")


def put(config, **values) -> None:
    """Sets fields of a frozen config while it is made."""
    for name, value in values.items():
        object.__setattr__(config, name, value)


def names(cls) -> list[str]:
    """The fields of a config's class."""
    return [one.name for one in dataclasses.fields(cls)]


def construct(cls, values: dict):
    """A config from a dict; an unknown name is an error."""
    known = set(names(cls))
    unknown = sorted(set(values) - known)
    if unknown:
        near = "".join(f" ({name}: did you mean {ours}?)" for name in unknown if (ours := nearest(name, known)))
        raise ValueError(f"{cls.__name__} has no {', '.join(unknown)}{near}; it has: {', '.join(sorted(known))}.")
    return cls(**values)


# ---- changes by path -----------------------------------------------------------------------------------------------


def paths(config, prefix: str = "") -> list[str]:
    """Every path that `replaced` takes: "encoder__attention__heads", of all kinds, and one's, "..__local__window"."""
    found = []
    for name in names(config):
        value = getattr(config, name)
        found.append(prefix + name)
        if dataclasses.is_dataclass(value):
            found += paths(value, f"{prefix}{name}__")
        elif isinstance(value, dict):  # kinds of attention
            inner = {kind: paths(one, f"{prefix}{name}__{kind}__") for kind, one in value.items()}
            found += paths(next(iter(value.values())), f"{prefix}{name}__")
            found += [path for kind, several in inner.items() for path in (f"{prefix}{name}__{kind}", *several)]
    return found


def replaced(config, changes: dict):
    """A copy with other values, nested ones by path; of kinds of attention a field's name changes all."""
    flat, nested = {}, {}
    for name, value in changes.items():
        outer, _, inner = name.partition("__")
        if inner:
            nested.setdefault(outer, {})[inner] = value
        else:
            _check_whole(config, name, value)
            flat[name] = _derived_kinds(getattr(config, name), value)
    for outer, values in nested.items():
        part = flat.get(outer, getattr(config, outer))
        flat[outer] = _replaced_kinds(part, values) if isinstance(part, dict) else replaced(part, values)
    return dataclasses.replace(config, **flat)


def _replaced_kinds(kinds: dict, changes: dict) -> dict:
    shared = {name: value for name, value in changes.items() if name.partition("__")[0] not in kinds}
    kinds = {kind: replaced(one, shared) for kind, one in kinds.items()}
    for name, value in changes.items():
        kind, _, inner = name.partition("__")
        if kind in kinds:
            kinds[kind] = replaced(kinds[kind], {inner: value}) if inner else value
    return kinds


def _derived_kinds(part, value):
    """Kinds of attention that say what they have otherwise than the present one."""
    if not isinstance(part, dict) or not isinstance(value, dict):
        return value
    base = next(iter(part.values()))
    return {kind: replaced(base, one) if isinstance(one, dict) else one for kind, one in value.items()}


def _check_whole(config, name: str, value) -> None:
    """Refuses a short word for a part, which would put all else of the part back to its defaults."""
    part = getattr(config, name, None)
    if (dataclasses.is_dataclass(part) or isinstance(part, dict)) and isinstance(value, (int, str)):
        raise ValueError(
            f"{name}={value!r} would replace all of {part!r:.200}: name the switch by its path, {name}__..."
        )
