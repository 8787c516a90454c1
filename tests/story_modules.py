"""The modules of a story in applications/, imported as its command does, and forgotten again."""

import contextlib
import importlib
import sys
from pathlib import Path

APPLICATIONS = Path(__file__).parents[1] / "applications"


@contextlib.contextmanager
def imported(story: str, *names: str):
    """{name: module} of a story's folder; other stories have modules of the same names."""
    folder = str(APPLICATIONS / story)
    sys.path.insert(0, folder)
    try:
        yield {name: importlib.import_module(name) for name in names}
    finally:
        sys.path.remove(folder)
        for name in names:
            sys.modules.pop(name, None)
