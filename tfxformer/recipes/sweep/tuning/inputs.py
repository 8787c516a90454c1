"""What a fine-tuning begins from: the part of a data file that is trained on, and the part held out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tfxformer.data.files import rows as files
from tfxformer.data.files.labelled import labelled
from tfxformer.recipes import pipeline

SINGLE_LABEL = "single_label_classification"


def hold_out(task, texts: list, targets, validation: str | None, seed: int, columns: dict, say: Callable) -> tuple:
    """What is trained on and what is validated on.

    Args:
        task: an opened task.
        texts, targets: as its `fit` takes them.
        validation: a share of them such as "0.1", drawn by chance; a data file; or None.
        seed: of the draw.
        columns, say: as `labelled` takes them.

    Returns:
        (texts, targets, (texts, targets) held out or None).

    Raises:
        ValueError: for a share that leaves no text, and what `labelled` refuses.
    """
    if validation is None:
        return texts, targets, None
    try:
        share = float(validation)
    except ValueError:
        rows, others = labelled(task, Path(validation), columns, say)
        return texts, targets, (files.task_inputs(rows, task.task_name), others)
    kept, held_out = pipeline.hold_out(texts, targets, share, seed, "--validation")
    return *kept, held_out
