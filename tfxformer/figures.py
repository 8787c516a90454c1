"""Figures drawn without a display, and outside of pyplot, whose state belongs to the user."""

from __future__ import annotations

import textwrap
from pathlib import Path

from tfxformer.extras import needs
from tfxformer.files import replacing

# Colours that the colour-blind tell apart (Okabe and Ito, 2008), by what they stand for or in this order.
BLUE, VERMILION, GREEN, ORANGE, SKY, PURPLE, GREY = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#E69F00",
    "#56B4E9",
    "#CC79A7",
    "#595959",
)
COLOURS = (BLUE, VERMILION, GREEN, ORANGE, SKY, PURPLE, GREY)


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


def bars(panel, names, values, *, form=None, **looks) -> None:
    """Lying bars, the first one on top, each with its value behind it.

    Args:
        panel: an axes.
        names, values: str and float for each bar.
        form: a format such as "{:.3f}", or None for three digits, and all those before the point.
        looks: of `Axes.barh`.
    """
    drawn = panel.barh(list(names), list(values), **looks)
    panel.bar_label(
        drawn, [form.format(value) if form else _three_digits(value) for value in values], padding=3, fontsize="small"
    )
    if not panel.yaxis_inverted():
        panel.invert_yaxis()
    panel.margins(x=0.18)  # room for the values


def _three_digits(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:#.3g}"


def plain_log(axis) -> None:
    """Makes an axis (`panel.xaxis`) logarithmic, with numbers as people write them: 10, 20 and 50, not powers."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    scale = axis.axes.set_xscale if axis.axis_name == "x" else axis.axes.set_yscale
    scale("log")
    low, high = axis.get_view_interval()
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if high < 200 * low else (1.0,), numticks=12))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    axis.set_minor_formatter(NullFormatter())


def name_points(panel, places, names) -> None:
    """Writes each point's name beside it, where it covers no other name and no point; axes must have their limits.

    Args:
        panel: an axes.
        places: (x, y) for each point.
        names: str for each point; long ones are broken.
    """
    from matplotlib.transforms import Bbox

    renderer = panel.figure.canvas.get_renderer()
    panel.figure.draw_without_rendering()
    points = panel.transData.transform(places)
    taken = [Bbox.from_extents(x - 5, y - 5, x + 5, y + 5) for x, y in points]
    frame = panel.get_window_extent()
    for place, name in zip(places, names, strict=True):
        best = None
        for away in (8, 16, 28, 44, 64):
            for side, x, y in (("left", 1, 0), ("right", -1, 0), ("center", 0, 1), ("center", 0, -1),
                               ("left", 1, 1), ("left", 1, -1), ("right", -1, 1), ("right", -1, -1)):  # fmt: skip
                text = panel.annotate(
                    textwrap.fill(name, 30),
                    place,
                    xytext=(x * away, y * away),
                    textcoords="offset points",
                    fontsize=7,
                    bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.7, "pad": 0.5},
                    ha=side,
                    va={0: "center", 1: "bottom", -1: "top"}[y],
                    arrowprops={"arrowstyle": "-", "color": GREY, "lw": 0.5} if away > 8 else None,
                )
                box = text.get_window_extent(renderer)
                outside = sum(
                    max(0.0, by) for by in (frame.x0 - box.x0, box.x1 - frame.x1, frame.y0 - box.y0, box.y1 - frame.y1)
                )
                cost = outside + 50.0 * sum(box.overlaps(other) for other in taken)
                if best is None or cost < best[0]:
                    if best is not None:
                        best[1].remove()
                    best = cost, text, box
                else:
                    text.remove()
            if best[0] == 0:
                break
        taken.append(best[2])
