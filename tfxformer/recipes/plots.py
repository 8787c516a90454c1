"""Plots of a road's results, drawn without a display."""

from __future__ import annotations

from pathlib import Path

from tfxformer.figures import figure, save_figure
from tfxformer.recipes.report import VARIANT_NAMES
from tfxformer.training.callbacks.history import training_curve as training_curve


def size_latency_score(results: dict, path: Path) -> None:
    """Size, time of a text and score of each variant, as bars."""
    variants, score = results["variants"], results["main_score"]
    names = [VARIANT_NAMES.get(name, name) for name in variants]
    drawn, (size, latency, quality) = figure(3, (11, 0.6 * len(names) + 1.2))
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
    save_figure(drawn, path)
