"""A data file as a task wants it: its targets, the labels in it, and which columns they were read from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from tfxformer.data.evaluation import task_name
from tfxformer.data.files import rows as files


def task_arguments(
    rows: files.Rows, task: str, problem_type: str | None, labels: list[str] | None = None
) -> tuple[list | None, dict]:
    """The targets of a data file, and what `Task.from_pretrained` is told of them.

    Args:
        rows: of the file.
        task: str, name of the task.
        problem_type: of text classification; other tasks have none, whatever is given.
        labels: names in the order of the logits; None for those in the file, sorted.

    Returns:
        Targets as `files.task_targets` gives them, and {"labels": ..., "problem_type": ...} where the task has them.

    Raises:
        ValueError: for a label that is not among `labels`.
    """
    problem_type = problem_type if task == "text-classification" else None
    targets, arguments = files.task_targets(rows, task, problem_type), {}
    if problem_type == "regression":
        arguments["labels"] = labels or ["score"]
    elif task in ("text-classification", "token-classification"):
        arguments["labels"] = labels or files.label_names(targets)
        files.check_labels(rows, targets, arguments["labels"])
    if problem_type is not None:
        arguments["problem_type"] = problem_type
    return targets, arguments


def labelled(model, data: Path, columns: dict, say: Callable) -> tuple[files.Rows, list]:
    """The rows of a data file and the targets that a model wants, its labels checked.

    Args:
        model: a task, or a LiteRT file.
        data: what `files.read_rows` reads.
        columns: their names by role, None for the usual ones.
        say: is told which columns were read.

    Raises:
        ValueError: for a label that the model does not have, and what `files.read_rows` refuses.
    """
    task, labels = task_name(model), getattr(model, "labels", None)
    rows = files.read_rows(data, task, given=columns)
    problem_type = getattr(model, "problem_type", None)
    targets = files.task_targets(rows, task, problem_type)
    if labels and problem_type != "regression":
        files.check_labels(rows, targets, labels)
    tell_columns(rows, say)
    return rows, targets


def tell_columns(rows: files.Rows, say: Callable) -> None:
    """Says which columns were read, by which name, and which were not; nothing where there is no doubt."""
    roles = {role: name for role, name in asdict(rows.columns).items() if name is not None}
    left = [name for name in rows.table.columns if name not in roles.values()]
    if left or not set(roles.values()) <= {"text", "text_pair", "label", "source", "target"}:
        read = ", ".join(f"{role} from {name!r}" for role, name in roles.items())
        unread = f"; not read: {', '.join(map(repr, left))}" if left else ""
        say(f"{rows.table.source}: {len(rows.texts):,} rows, {read}{unread}")
