"""Plots of a road's results, drawn without a display."""

from __future__ import annotations

from pathlib import Path

from tfxformer.recipes.report import VARIANT_NAMES


def _figure(panels: int, size: tuple[float, float]):
    """A figure outside of pyplot, whose state belongs to the user."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(1, panels, squeeze=False)[0]


def training_curve(history: dict, path: Path) -> None:
    """Loss and scores by epoch, of all fits one after the other.

    Args:
        history: {name of the fit: {name of a number: list, one an epoch}}.
        path: the .png file.
    """
    figure, (left, right) = _figure(2, (9, 3.5))
    first = 1
    for fit, numbers in history.items():
        epochs = range(first, first + len(numbers["loss"]))
        first = epochs.stop
        for name, values in numbers.items():
            panel = left if name.endswith("loss") else right
            panel.plot(epochs, values, marker="o", label=f"{fit}: {name}".replace("_", " "))
    left.set(xlabel="epoch", ylabel="loss")
    right.set(xlabel="epoch", ylabel="score")
    for panel in (left, right):
        panel.xaxis.get_major_locator().set_params(integer=True)
        panel.grid(alpha=0.3)
        if panel.lines:
            panel.legend(fontsize="small")
    figure.savefig(path, dpi=120)


def size_latency_score(results: dict, path: Path) -> None:
    """Size, time of a text and score of each variant, as bars."""
    variants, score = results["variants"], results["main_score"]
    names = [VARIANT_NAMES.get(name, name) for name in variants]
    figure, (size, latency, quality) = _figure(3, (11, 0.6 * len(names) + 1.2))
    size.barh(names, [v["bytes"] / 1e6 for v in variants.values()], color="tab:blue", label="file")
    size.barh(
        names,
        [v["zipped_bytes"] / 1e6 for v in variants.values()],
        height=0.4,
        color="tab:cyan",
        label="zipped",
    )
    size.legend(fontsize="small")
    latency.barh(names, [v["latency"]["median_ms"] for v in variants.values()], color="tab:orange")
    values = [v["scores"][score] for v in variants.values()]
    bars = quality.barh(names, values, color="tab:green")
    quality.bar_label(bars, [f"{value:.3f}" for value in values], padding=-40, color="white")
    size.set(xlabel="size, MB")
    latency.set(xlabel="one text, ms")
    quality.set(xlabel=score.replace("_", " "))
    for panel in (size, latency, quality):
        panel.invert_yaxis()
    for panel in (latency, quality):
        panel.set_yticklabels([])
    figure.savefig(path, dpi=120)
