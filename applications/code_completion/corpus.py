"""The Python standard library as texts, and lines of it to complete."""

from __future__ import annotations

import random
import sysconfig
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tfxformer.text import Tokenizer

# Folders of tests, of other people's packages, and of tables that no one would complete.
LEFT_OUT = {"test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__", "encodings", "pydoc_data"}
SHORTEST = 12  # characters of a line that is to be completed
LONGEST = 24  # tokens of the half that is to be guessed


def modules(root: Path | None = None) -> dict[str, list[str]]:
    """The sources by top-level module, sorted: {"abc.py": [text], "asyncio": [text, ...], ...}."""
    root = root or Path(sysconfig.get_paths()["stdlib"])
    found: dict[str, list[str]] = {}
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).parts
        if not LEFT_OUT & set(parts):
            text = path.read_text(encoding="utf-8", errors="replace")
            found.setdefault(parts[0], []).extend([text] if text.strip() else [])
    return {name: texts for name, texts in sorted(found.items()) if texts}


def split(found: dict[str, list[str]], share: float, seed: int) -> tuple[list[str], list[str], list[str]]:
    """(texts to learn, held-out texts, names of the held-out modules): whole modules, about `share` of them."""
    held = set(random.Random(seed).sample(sorted(found), max(1, round(share * len(found)))))
    learned = [text for name, texts in found.items() if name not in held for text in texts]
    return learned, [text for name, texts in found.items() if name in held for text in texts], sorted(held)


def joined(texts: list[str], tokenizer: Tokenizer) -> np.ndarray:
    """Texts as the ids of one, the end token behind each: int32 [tokens]."""
    rows = tokenizer.ids(texts, special_tokens=False)
    return np.concatenate([np.array([*row, tokenizer.eos_id], "int32") for row in rows])


@dataclass(frozen=True)
class Half:
    """A line that breaks off: the ids before, and the text that comes."""

    ids: list[int]
    rest: str


def halves(texts: list[str], tokenizer: Tokenizer, count: int, seed: int, before: int) -> list[Half]:
    """Lines, each broken off after half of its tokens, with at most `before` tokens before that.

    Lines of code alone: none that are comments, and none of fewer than `SHORTEST` characters.
    """
    places = [
        (text, index)
        for text, lines in enumerate(one.splitlines() for one in texts)
        for index, line in enumerate(lines)
        if len(line.strip()) >= SHORTEST and not line.lstrip().startswith("#")
    ]
    found = []
    for text, index in random.Random(seed).sample(places, len(places)):
        lines = texts[text].splitlines()
        context = "\n".join([*lines[max(0, index - before) : index], ""])  # a line has a token at least
        line = tokenizer.ids([context + lines[index]], special_tokens=False)[0]
        first = len(tokenizer.ids([context + indentation(lines[index])], special_tokens=False)[0])
        cut = (first + len(line) + 1) // 2
        rest = tokenizer.decode([line[cut:]])[0]
        if first < cut < len(line) <= cut + LONGEST and "\n" not in rest:
            found.append(Half(line[max(0, cut - before) : cut], rest))
        if len(found) == count:
            break
    return found


def indentation(line: str) -> str:
    return line[: len(line) - len(line.lstrip())]
