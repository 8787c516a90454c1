"""Files that appear whole or not at all, and figures drawn without a display."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def replaced(path) -> Iterator[Path]:
    """Yields a temporary path beside `path`; when the block ends well, the file there becomes `path`.

    Raises:
        OSError: where it cannot be written, with the name of `path`; an older file stays.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        temporary.replace(path)
    except OSError as error:
        if error.errno is None:
            raise
        raise type(error)(error.errno, f"{path} could not be written: {error.strerror}") from error
    finally:
        if temporary.parent.is_dir():
            temporary.unlink(missing_ok=True)


def write_text(path, text: str) -> None:
    """Writes a text file whole or not at all."""
    with replaced(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path, content) -> None:
    """Writes indented JSON, whole or not at all."""
    write_text(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def figure(panels: int, size: tuple[float, float]):
    """A figure and its panels in a row, outside of pyplot, whose state belongs to the user.

    Args:
        panels: int.
        size: width and height in inches.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    drawn = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(drawn)
    return drawn, drawn.subplots(1, panels, squeeze=False)[0]


def save_figure(drawn, path) -> None:
    """Writes a figure as an image, of the kind that the name ends on (.png, .svg), whole or not at all."""
    with replaced(path) as temporary:
        drawn.savefig(temporary, dpi=120, format=Path(path).suffix[1:] or "png")
