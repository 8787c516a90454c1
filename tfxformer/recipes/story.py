"""A whole story as a value: data, checkpoint, dials and words; `run` tells it, `main` makes it a script."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tfxformer.files import replacing_folder
from tfxformer.recipes import pipeline, plots, report


@dataclass(frozen=True)
class Story:
    """What a road needs, and what its model card says.

    Attributes:
        name: str, of the files and of the folder in saved_models.
        title: str, what the model does.
        task: class of `tfxformer.tasks`.
        checkpoint: gives the folder of the pretrained model, such as `samples.minilm`.
        split: gives the data, such as `samples.bbc_topics`.
        full, quick: pipeline.Settings of the whole story and of a short one.
        data, limits: str, sentences of the card.
        base_model, licence: str, hub id and licence of the checkpoint.
    """

    name: str
    title: str
    task: type
    checkpoint: Callable
    split: Callable
    full: pipeline.Settings
    quick: pipeline.Settings
    data: str
    limits: str
    base_model: str = "sentence-transformers/all-MiniLM-L6-v2"
    licence: str = "apache-2.0"


def run(story: Story, output: Path, quick: bool = False, verbose="auto", progress=print) -> dict:
    """Goes the whole road and writes `output`: models, results.json, model card and two plots.

    An older result in `output` stays until the new one is complete. Returns what `pipeline.run` does, and
    "folder".
    """
    settings = story.quick if quick else story.full
    split = story.split()
    task = pipeline.load(story.task, story.checkpoint(), split.labels, settings)
    with replacing_folder(output) as folder:
        results = pipeline.run(task, split, settings, folder, story.name, verbose, progress)
        report.write_json(folder / "results.json", results)
        card = report.model_card(
            results,
            title=story.title,
            base_model=story.base_model,
            licence=story.licence,
            data=story.data,
            limits=story.limits,
        )
        report.write_text(folder / "README.md", card)
        plots.training_curve(results["history"], folder / "training-curve.png")
        plots.size_latency_score(results, folder / "size-latency-accuracy.png")
    return {**results, "folder": str(output)}


def main(story: Story, home: Path, arguments: list[str] | None = None) -> dict:
    """The command of an application: prints the table; a full run renews results.json and README in `home`."""
    parser = argparse.ArgumentParser(description=story.title)
    parser.add_argument("--quick", action="store_true", help="fewer texts: to see it run, not to measure it")
    parser.add_argument("--output", type=Path, default=Path("saved_models") / story.name)
    options = parser.parse_args(arguments)
    verbose = 1 if sys.stdout.isatty() else 2  # a bar for people, a line an epoch for logs
    results = run(story, options.output, options.quick, verbose)
    print(report.section(results))
    if not options.quick:
        report.write_json(home / "results.json", {k: v for k, v in results.items() if k != "folder"})
        report.update_section(home / "README.md", report.section(results))
    return results
