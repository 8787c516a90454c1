"""Results that appear whole: written into a temporary folder, moved into place when everything is there."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def complete_folder(folder) -> Iterator[Path]:
    """Yields a temporary folder beside `folder`; when the block ends well, its files move into `folder`.

    A new `folder` appears in one step. In an existing one each file replaces its namesake in one step, and
    files of another name stay. After an error or an interrupt `folder` is as it was, and nothing is left.

    Raises:
        NotADirectoryError: where `folder` is a file.
    """
    folder = Path(folder).expanduser().resolve()
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f"{folder} is a file: name a folder for the results.")
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}-"))
    try:
        yield temporary
        temporary.chmod(0o755)  # mkdtemp makes private folders
        if folder.exists():
            _move_files(temporary, folder)
        else:
            temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _move_files(source: Path, target: Path) -> None:
    for path in sorted(source.rglob("*")):
        place = target / path.relative_to(source)
        if path.is_dir():
            place.mkdir(exist_ok=True)
        else:
            path.replace(place)
