"""Which models there are to begin from: presets, families and the files that are trained here.

`zoo.json` beside is data: what a preset is for, where its weights come from and their licence is written by hand; sizes
and measured figures by `python docs/models.py`, which writes docs/models.md too.
"""

from __future__ import annotations

import json
from importlib import resources
from typing import Any


def zoo() -> dict[str, Any]:
    """All that is known: "presets", "families", "samples" and "saved", a list of dicts each."""
    return json.loads((resources.files("tfxformer.recipes") / "zoo.json").read_text(encoding="utf-8"))


def in_words(count: int) -> str:
    """A number of parameters: 4.4M, 125M, 7.2B."""
    for size, letter in ((1e9, "B"), (1e6, "M"), (1e3, "K")):
        if count >= size:
            return f"{count / size:.{1 if count < 10 * size else 0}f}{letter}"
    return str(count)
