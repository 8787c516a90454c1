"""Packages that import a name when it is first used: importing one of their modules stays cheap."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping


def names_of(package: str, modules: Mapping[str, str]) -> Callable[[str], object]:
    """The `__getattr__` of a package.

    Args:
        package: its `__name__`.
        modules: {public name: the module inside the package that has it}.
    """

    def find(name: str):
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(importlib.import_module(f"{package}.{modules[name]}"), name)

    return find
