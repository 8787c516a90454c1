"""One fine-tuning with its dials, as `tfxformer finetune` runs it and as each trial of a search does."""

from __future__ import annotations

import keras

from tfxformer.recipes import pipeline

LOSS = "val_loss"
# What an epoch's validation can be judged by -> whether more is better.
MONITORS = {LOSS: False, "val_accuracy": True, "val_span_accuracy": True, "val_mean_absolute_error": False}
OF_OPTIMIZER = ("warmup", "weight_decay")


def fit(task, texts, targets, *, early_stopping: int | None = None, monitor: str = LOSS, **given) -> tuple[dict, int]:
    """Fits a task by `pipeline.fit`; with early stopping the best epoch's weights stay.

    Args:
        task, texts, targets: as its `fit` takes them.
        early_stopping: int, epochs without a better `monitor` after which training ends; None trains all epochs and
            keeps the last one's weights.
        monitor: a key of `MONITORS`.
        given: epochs, batch_size, learning_rate, warmup, weight_decay (None for the task's own), and what else
            `pipeline.fit` takes; with early stopping validation_data.

    Returns:
        The history as numbers by name, and which epoch's weights the task has, counted from 0.

    Raises:
        ValueError: for early stopping without validation data, and a monitor that the task does not measure.
    """
    given["optimizer"] = {name: value for name in OF_OPTIMIZER if (value := given.pop(name, None)) is not None}
    callbacks = list(given.pop("callbacks", ()))
    if early_stopping is not None:
        if given.get("validation_data") is None:
            raise ValueError("Early stopping needs validation data: --validation FILE, or a share such as 0.1.")
        mode = "max" if MONITORS[monitor] else "min"
        check_monitor(task, monitor)
        options = {"patience": early_stopping, "mode": mode, "restore_best_weights": True}
        callbacks.append(keras.callbacks.EarlyStopping(monitor, **options))
    numbers = pipeline.fit(task, texts, targets, callbacks=callbacks, **given)
    values = numbers[monitor] if early_stopping is not None else numbers["loss"]
    return numbers, len(values) - 1 if early_stopping is None else best_epoch(values, monitor)


def best_epoch(values: list[float], monitor: str) -> int:
    """The first epoch with the best value, counted from 0; not-a-number is never the best."""
    sign = -1.0 if MONITORS[monitor] else 1.0
    return min(range(len(values)), key=lambda i: sign * values[i] if values[i] == values[i] else float("inf"))


def check_monitor(task, monitor: str) -> None:
    """Refuses a metric that the task does not compute: Keras would only warn, epoch after epoch."""
    measured = [*(task.default_metrics() or ()), *(task.default_weighted_metrics() or ())]
    known = [LOSS, *(f"val_{getattr(one, 'name', None) or one.__name__}" for one in measured)]
    if monitor not in known:
        raise ValueError(f"{monitor!r} is not measured by {task.task_name} here; wanted one of {', '.join(known)}.")
