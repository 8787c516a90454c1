"""Python functions as the JSON schemas by which chat templates show tools: names and types of arguments from the
signature, what they mean from the docstring.

Source: transformers 5.24, `get_json_schema`, whose schemas these equal.
"""

from __future__ import annotations

import enum
import inspect
import json
import re
import types
import typing
from collections.abc import Callable, Sequence
from typing import Any

_SCALARS = {int: "integer", float: "number", str: "string", bool: "boolean", type(None): "null"}
_TYPES = {**_SCALARS, list: "array", tuple: "array", dict: "object"}
_SECTION = re.compile(r"(Args|Returns|Raises|Yields|Examples?|Notes?):")
_ARGUMENT = re.compile(r"(\w+)\s*(?:\([^()]*\))?:\s*(.*)")
_CHOICES = re.compile(r"\(choices:\s*(.*?)\)\s*$", re.IGNORECASE)


def function_schema(function: Callable) -> dict[str, Any]:
    """The schema of a function with type hints and a docstring that says what each argument is ("Args:", as Google's).

    An argument's line may end in `(choices: ["tea", "coffee"])`.

    Raises:
        TypeError: for what is no function, or hints that are missing or have no JSON type.
        ValueError: for a docstring that is missing, or says nothing of an argument.
    """
    name = getattr(function, "__name__", None)
    if name is None or isinstance(function, type):
        raise _refusal(TypeError, repr(function), "it is no function")
    description, described, returned = _docstring(function, name)
    hints, parameters = _hints(function, name)
    properties = {}
    for argument in parameters:
        if argument not in described:
            raise _refusal(
                ValueError, f"{name}()", f'its docstring says nothing of the argument {argument!r} under "Args:"'
            )
        meaning, choices = described[argument], _CHOICES.search(described[argument])
        schema = _schema(hints[argument], f"{name}({argument})")
        if choices:
            schema["enum"], meaning = _listed(choices[1], name, argument), meaning[: choices.start()].strip()
        properties[argument] = {**schema, "description": meaning}
    needed = [argument for argument, parameter in parameters.items() if parameter.default is parameter.empty]
    wanted = {"type": "object", "properties": properties, **({"required": needed} if needed else {})}
    return {
        "type": "function",
        "function": {
            "name": name,
            "description": description,
            "parameters": wanted,
            **_returns(hints, returned, name),
        },
    }


def _docstring(function: Callable, name: str) -> tuple[str, dict[str, str], str | None]:
    """What a docstring says of a function, of each argument, and of what it returns."""
    text = inspect.getdoc(function)
    if not text or not text.strip():
        raise _refusal(ValueError, f"{name}()", "it has no docstring that says what it is for")
    sections: dict[str, list[str]] = {"": []}
    current = ""
    for line in text.strip().splitlines():
        header = _SECTION.fullmatch(line.rstrip())
        # What stands before the arguments is the description, notes and examples too.
        if header and (current or header[1] in ("Args", "Returns", "Raises")):
            current = header[1]
            sections[current] = []
        else:
            sections[current].append(line)
    returned = "\n".join(sections["Returns"]).strip() if "Returns" in sections else None
    return "\n".join(sections[""]).strip(), _arguments(sections.get("Args", ())), returned


def _arguments(lines: Sequence[str]) -> dict[str, str]:
    """What "Args:" says by names; lines that are indented deeper, or name nothing, go on with the one before."""
    found: dict[str, str] = {}
    name, depth = None, 0
    for line in filter(str.strip, lines):
        indent, said = len(line) - len(line.lstrip()), _ARGUMENT.match(line.strip())
        if said and (name is None or indent <= depth):
            name, depth = said[1], indent
            found[name] = said[2].strip()
        elif name is not None:
            found[name] = f"{found[name]} {line.strip()}".strip()
    return found


def _hints(function: Callable, name: str) -> tuple[dict[str, Any], dict[str, inspect.Parameter]]:
    """Type hints, and the parameters that a caller gives by their names."""
    try:
        hints = typing.get_type_hints(function)
    except NameError as error:
        raise _refusal(TypeError, f"{name}()", f"its type hints name what is not there: {error}") from error
    parameters = dict(inspect.signature(function).parameters)
    first = next(iter(parameters), None)
    if first in ("self", "cls") and first not in hints:
        parameters.pop(first)
    for argument, parameter in parameters.items():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY):
            raise _refusal(
                TypeError, f"{name}()", f"it takes {parameter}, and a model can give arguments by their names only"
            )
        if argument not in hints:
            raise _refusal(TypeError, f"{name}()", f"its argument {argument!r} has no type hint")
    return hints, parameters


def _returns(hints: dict[str, Any], said: str | None, name: str) -> dict[str, Any]:
    """What a function gives, where JSON has a type for it: no model writes it, so that nothing hangs on it."""
    if "return" not in hints:
        return {}
    try:
        schema = _schema(hints["return"], name)
    except TypeError:
        return {}
    return {"return": schema if said is None else {**schema, "description": said}}


def _schema(hint, where: str) -> dict[str, Any]:
    """The JSON schema of a type hint."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return {}
    if hint in _TYPES or (origin in _TYPES and not inner):  # list, and typing.List
        return {"type": _TYPES[origin or hint]}
    if origin in (typing.Union, types.UnionType):
        return _union([_schema(one, where) for one in inner if one is not type(None)], type(None) in inner)
    if origin is typing.Literal:
        return _enumerated(list(inner), where)
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return _enumerated([member.value for member in hint], where)
    if origin is list:
        return {"type": "array", "items": _schema(inner[0], where)}
    if origin is tuple and len(inner) > 1 and ... not in inner:
        return {"type": "array", "prefixItems": [_schema(one, where) for one in inner]}
    if origin is dict:
        return {"type": "object", "additionalProperties": _schema(inner[1], where)}
    raise _refusal(
        TypeError,
        where,
        f"JSON has no type for the hint {hint!r}: take int, float, str, bool, list, dict, tuple[int, str], Literal, an "
        "Enum, or unions of these",
    )


def _union(schemas: list[dict], with_none: bool) -> dict[str, Any]:
    if len(schemas) == 1:
        schema = schemas[0]
    elif all(one.keys() == {"type"} and isinstance(one["type"], str) for one in schemas):
        names = sorted({one["type"] for one in schemas})
        schema = {"type": names if len(names) > 1 else names[0]}
    else:
        schema = {"anyOf": schemas}
    return {**schema, "nullable": True} if with_none else schema


def _enumerated(values: list, where: str) -> dict[str, Any]:
    if not values or not all(type(value) in _SCALARS for value in values):
        raise _refusal(TypeError, where, f"its choices are {values!r:.80}; wanted numbers, strings, booleans or None")
    names = list(dict.fromkeys(_SCALARS[type(value)] for value in values))
    return {"type": names if len(names) > 1 else names[0], "enum": values}


def _listed(text: str, name: str, argument: str) -> list:
    try:
        choices = json.loads(text)
    except ValueError:
        choices = None
    if not isinstance(choices, list):
        raise _refusal(ValueError, f"{name}()", f"the choices of {argument!r} are {text!r:.80}, not a list of JSON")
    return [choice.strip() if isinstance(choice, str) else choice for choice in choices]


def _refusal(error: type[Exception], what: str, why: str) -> Exception:
    return error(f"{what} cannot be shown as a tool: {why}. Or give its JSON schema, a dict, in its place.")
