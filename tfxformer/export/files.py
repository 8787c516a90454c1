"""Writing a file whole or not at all."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def check_writable(path: Path) -> None:
    """Fails before the long work if the file cannot be written.

    Raises:
        OSError: naming the path and what is wrong with it.
    """
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder: name the .tflite file to write.")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}."):
            pass
    except OSError as error:
        raise type(error)(error.errno, f"Cannot write into the folder {path.parent}: {error.strerror}") from error


def write_file(path: Path, content: bytes) -> None:
    """Writes a file whole or not at all.

    Raises:
        OSError: if the disk is full or refuses; the temporary file is gone, an older file stays.
    """
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        Path(temporary).chmod(0o666 & ~umask)  # mkstemp makes private files
        Path(temporary).replace(path)
    except OSError as error:
        Path(temporary).unlink(missing_ok=True)
        raise type(error)(
            error.errno, f"{path} ({len(content):,} bytes) could not be written: {error.strerror}"
        ) from error
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
