"""Figures drawn without a display, and outside of pyplot, whose state belongs to the user."""

from __future__ import annotations

from pathlib import Path

from tfxformer.extras import needs
from tfxformer.files import replacing


def figure(panels: int, size: tuple[float, float]):
    """A figure and its panels in a row.

    Args:
        panels: int.
        size: width and height in inches.
    """
    needs("A figure", "matplotlib")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    drawn = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(drawn)
    return drawn, drawn.subplots(1, panels, squeeze=False)[0]


def save_figure(drawn, path) -> None:
    """Writes a figure as an image, of the kind that the name ends on (.png, .svg), whole or not at all."""
    with replacing(path) as part:
        drawn.savefig(part, dpi=120, format=Path(path).suffix[1:] or "png")
