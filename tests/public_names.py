"""The table of public names, docs/public_names.md: `python tests/public_names.py --write` renews it."""

import argparse
import ast
import importlib
import inspect
import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "public_names.md"
ROOMS = (
    *("tfxformer", "tfxformer.text", "tfxformer.layers", "tfxformer.data", "tfxformer.models", "tfxformer.runtime"),
    *("tfxformer.training", "tfxformer.generation", "tfxformer.checkpoints", "tfxformer.compression"),
    *("tfxformer.tasks", "tfxformer.export", "tfxformer.recipes.sweep", "tfxformer.samples"),
)
HEAD = """# Public names

What may be imported, by module: `from tfxformer.tasks import TextClassifier`. Names that are not in this table may
change without notice. Written by `python tests/public_names.py --write`; a test holds that it is current, and that each
name is explained and used.
"""


def public_names():
    """(room, name, object) of all public names, in the order of the table."""
    for room in ROOMS:
        module = importlib.import_module(room)
        for name in sorted(module.__all__, key=lambda name: (name.lower(), name)):
            yield room, name, getattr(module, name)


def kind(value) -> str:
    """What a public name is."""
    if inspect.ismodule(value):
        return "module"
    if inspect.isclass(value):
        return "exception" if issubclass(value, Exception) else "class"
    return "function" if callable(value) else "constant"


def signature(value) -> inspect.Signature | None:
    """What a function or a class is called with; None for what is not called."""
    if kind(value) == "class":
        if issubclass(value, tuple):
            return inspect.signature(value)
        # Not what Keras puts in when a class makes its first functional model.
        ours = (vars(one) for one in value.__mro__ if one.__module__.startswith("tfxformer"))
        ours = (own["__init__"] for own in ours if "__init__" in own)
        found = inspect.signature(next(ours, lambda self, *args, **kwargs: None))
        return found.replace(parameters=list(found.parameters.values())[1:])
    return inspect.signature(value) if kind(value) == "function" else None


def arguments(value) -> str:
    """Their names, with the defaults that are plain values."""
    parts, after_star = [], False
    found = signature(value)
    for one in found.parameters.values() if found else ():
        if one.kind is one.KEYWORD_ONLY and not after_star:
            parts.append("*")
        after_star = after_star or one.kind in (one.KEYWORD_ONLY, one.VAR_POSITIONAL)
        name = {one.VAR_POSITIONAL: "*", one.VAR_KEYWORD: "**"}.get(one.kind, "") + one.name
        plain = one.default is None or isinstance(one.default, (bool, int, float, str, tuple))
        parts.append(name if one.default is one.empty else f"{name}={repr(one.default) if plain else '...'}")
    return ", ".join(parts)


def explanation(room: str, name: str, value) -> str:
    """The docstring of a name; of a constant the comment beside or above it."""
    if kind(value) != "constant":
        return inspect.cleandoc(value.__doc__ or "")
    source = Path(inspect.getsourcefile(importlib.import_module(room)))
    for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):  # what is imported when used is told in an if
        if isinstance(node, ast.ImportFrom) and name in [alias.name for alias in node.names]:
            return explanation(node.module, name, value)
    lines = source.read_text(encoding="utf-8").splitlines()
    (line,) = (index for index, text in enumerate(lines) if re.match(rf"{name}(: [^=]+)? = ", text))
    if "  # " in lines[line]:
        return lines[line].partition("  # ")[2]
    first = line
    while lines[first - 1].startswith("# "):
        first -= 1
    return " ".join(text.removeprefix("# ") for text in lines[first:line])


def summary(text: str) -> str:
    """The first line of a docstring; a comment whole."""
    return text.partition("\n")[0].replace("|", "\\|")


def page() -> str:
    """The table."""
    parts, last = [HEAD], None
    for room, name, value in public_names():
        if room != last:
            parts.append(f"\n## {room}\n{summary(importlib.import_module(room).__doc__)}\n")
            parts.append("| name | kind | arguments | what |\n| --- | --- | --- | --- |")
            last = room
        given = f"`{arguments(value)}`" if arguments(value) else ""
        said = summary(explanation(room, name, value))
        parts.append(f"| `{name}` | {kind(value)} | {given.replace('|', chr(92) + '|')} | {said} |")
    return "\n".join(parts) + "\n"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="renew docs/public_names.md")
    if parser.parse_args().write:
        PAGE.write_text(page(), encoding="utf-8")
    else:
        print(page())
