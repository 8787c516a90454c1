"""What setup.py says that each way to install the package brings."""

import functools
import importlib.metadata
import runpy
import sys
import types
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent


@functools.cache
def arguments() -> dict:
    """What setup.py calls `setup` with."""
    said = {}
    setuptools = types.SimpleNamespace(setup=lambda **given: said.update(given), find_packages=lambda **given: [])
    before = sys.modules.get("setuptools")
    sys.modules["setuptools"] = setuptools
    try:
        runpy.run_path(str(ROOT / "setup.py"))
    finally:
        del sys.modules["setuptools"]
        if before is not None:
            sys.modules["setuptools"] = before
    return said


def required(extra: str | None = None) -> set[str]:
    """The distributions that the base install, or what an extra adds to it, names itself."""
    named = arguments()["install_requires"] if extra is None else arguments()["extras_require"][extra]
    return {canonicalize_name(Requirement(line).name) for line in named}


def modules_brought(extra: str | None = None) -> set[str]:
    """The modules that pip brings with it here, in all: of what is named, and of what that requires."""
    waiting, brought = list(required(extra)), set()
    while waiting:
        name = waiting.pop()
        if name in brought:
            continue
        brought.add(name)
        try:
            lines = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:  # of another platform
            continue
        requirements = map(Requirement, lines)
        there = (one for one in requirements if one.marker is None or one.marker.evaluate({"extra": ""}))
        waiting += [canonicalize_name(one.name) for one in there]
    return {module for module, owners in _owners().items() if brought & owners}


def modules_installed() -> set[str]:
    """All modules of all distributions here."""
    return set(_owners())


@functools.cache
def _owners() -> dict[str, set[str]]:
    found = importlib.metadata.packages_distributions()
    return {module: set(map(canonicalize_name, names)) for module, names in found.items()}
