"""The command compress: a recipe's sweep. See `recipes.sweep`."""

from __future__ import annotations

import sys
from pathlib import Path

from tfxformer.cli import console, data_files


def compress(recipe, output) -> dict:
    """Runs a sweep: its results, and a table for people."""
    from tfxformer.recipes.sweep import read_recipe

    wanted = read_recipe(recipe)
    split = _split(wanted)
    from tfxformer.cli.models import open_task
    from tfxformer.recipes import sweep

    checkpoint = _checkpoint(wanted.model)
    arguments = {"sequence_length": wanted.sequence_length, "dtype": wanted.dtype}
    if split.labels:
        arguments["labels"] = split.labels

    def open_model():
        return open_task(checkpoint, wanted.task, **arguments)

    return sweep.run(wanted, split, open_model, output, console.verbose(), _say)


def _checkpoint(name: str) -> str:
    """A checkpoint of `samples` by its name, or what was given."""
    from tfxformer import samples

    return str(getattr(samples, name)()) if name in samples.CHECKPOINTS else name


def _split(recipe):
    """The data of a recipe: a sample, or two files.

    Raises:
        ValueError: for a name that is no sample, and for files that do not have what the task wants.
    """
    from tfxformer import samples

    if isinstance(recipe.data, str):
        if recipe.data not in samples.SPLITS:
            known = ", ".join(samples.SPLITS)
            raise ValueError(
                f"data: {recipe.data!r} is no labelled sample; known: {known}. Files are {{train: FILE, test: FILE}}."
            )
        return getattr(samples, recipe.data)()
    parts, labels = [], None
    for part in ("train", "test"):
        rows = data_files.read_rows(Path(recipe.data[part]), labelled=True)
        targets = data_files.task_targets(rows, recipe.task, "single_label_classification")
        labels = labels or data_files.label_names(targets)
        data_files.check_labels(rows, targets, labels)
        parts += [data_files.task_inputs(rows, recipe.task), targets]
    return samples.Split(*parts, labels)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
