"""What a recipe names, opened: its data, and its model with a new head."""

from __future__ import annotations

from collections.abc import Callable

from tfxformer import samples
from tfxformer.data.files import rows as files
from tfxformer.data.text_scores import check_names
from tfxformer.recipes.models import open_task
from tfxformer.recipes.sweep.recipe import OF_TARGETS, Recipe


def read_split(recipe: Recipe) -> samples.Split:
    """The data of a recipe: a sample, or two files.

    Raises:
        ValueError: for a name that is no sample, and for files that do not have what the task wants.
        ModuleNotFoundError: for targets, without what scores them.
    """
    if recipe.writes:
        check_names(None)  # said before anything is trained
    if isinstance(recipe.data, str):
        if recipe.data not in samples.SPLITS:
            known = ", ".join(samples.SPLITS)
            raise ValueError(
                f"data: {recipe.data!r} is no labelled sample; known: {known}. Files are {{train: FILE, test: FILE}}."
            )
        return getattr(samples, recipe.data)()
    parts, labels = [], None
    for part in ("train", "test"):
        rows = files.read_rows(recipe.data[part], recipe.task)
        targets = files.task_targets(rows, recipe.task, "single_label_classification")
        if not recipe.writes:
            labels = labels or files.label_names(targets)
            files.check_labels(rows, targets, labels)
        parts += [files.task_inputs(rows, recipe.task), targets]
    return samples.Split(*parts, labels or [])


def model_opener(recipe: Recipe, split: samples.Split) -> Callable:
    """A function that opens the recipe's model (a sample by its name, a folder or a hub id) as its task."""
    name = recipe.model
    checkpoint = str(getattr(samples, name)()) if name in samples.CHECKPOINTS else name
    arguments = {"sequence_length": recipe.sequence_length, "dtype": recipe.dtype, "labels": split.labels or None}
    arguments |= {name: getattr(recipe, name) for name in OF_TARGETS}
    return lambda: open_task(checkpoint, recipe.task, **arguments)
