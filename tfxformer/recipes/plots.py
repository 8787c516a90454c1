"""Plots of a road's results, drawn without a display."""

from __future__ import annotations

from pathlib import Path

from tfxformer.figures import BLUE, GREEN, ORANGE, SKY, bars, figure, save_figure
from tfxformer.recipes.report import VARIANT_NAMES
from tfxformer.training.callbacks.history import training_curve as training_curve


def size_latency_score(results: dict, path: Path) -> None:
    """Size, time of a text and score of each variant, as bars with their values."""
    variants, score = results["variants"], results["main_score"]
    names = [VARIANT_NAMES.get(name, name) for name in variants]
    drawn, (size, latency, quality) = figure(3, (12, 0.75 * len(names) + 1.8))
    drawn.suptitle(f"{results['name']}: what each file costs, and what it scores on the test texts")
    bars(size, names, [v["bytes"] / 1e6 for v in variants.values()], color=SKY, align="edge", height=-0.4, label="file")
    zipped = [v["zipped_bytes"] / 1e6 for v in variants.values()]
    bars(size, names, zipped, color=BLUE, align="edge", height=0.4, label="zipped, as an app store ships it")
    size.legend(fontsize="small", loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=2)
    bars(latency, names, [v["latency"]["median_ms"] for v in variants.values()], color=ORANGE)
    bars(quality, names, [v["scores"][score] for v in variants.values()], form="{:.3f}", color=GREEN)
    size.set(title="size (less is better)", xlabel="MB")
    latency.set(title="one text (less is better)", xlabel="milliseconds, median")
    quality.set(
        title=f"{score.replace('_', ' ')} (more is better)", xlabel=f"{score.replace('_', ' ')} on the test texts"
    )
    for panel in (latency, quality):
        panel.set_yticklabels([])
    save_figure(drawn, path)
