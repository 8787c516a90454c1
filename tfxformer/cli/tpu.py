"""The commands tpu-check and fit-estimate: a task's steps compiled for what is not there. See `actions`."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

GENERATED_ROWS = 1  # texts that the generate steps continue at once


def tpu_check(
    model,
    task,
    topology,
    sequence_length,
    batch_size,
    dtype,
    gradient_accumulation_steps,
    gradient_checkpointing,
    search_seconds,
) -> dict:
    """What `training.tpu_check` found for a task: its report as a dict."""
    sizes = None if batch_size is None else _sizes(batch_size)
    opened = open_for_training(model, task, sequence_length, dtype, gradient_checkpointing)
    training = _compile(opened, gradient_accumulation_steps)
    with _shown() as progress:
        report = training.tpu_check(
            opened,
            batch_spec(opened, sequence_length),
            topology=topology,
            batch_size=sizes,
            further_steps=generate_steps(opened, sequence_length),
            search_seconds=search_seconds,
            progress=progress,
        )
    result = {
        "model": model,
        "task": opened.task_name,
        "sequence_length": sequence_length,
        "dtype": opened.dtype_policy.name,
        "gradient_accumulation_steps": gradient_accumulation_steps,
        "gradient_checkpointing": gradient_checkpointing,
        **report.to_dict(),
        "text": str(report),
    }
    failed = [step for step in report.steps if not step.fits]
    return {**result, "failure": failed[0].refusal()} if failed else result


def fit_estimate(
    model,
    task,
    sequence_length,
    batch_size,
    dtype,
    gradient_accumulation_steps,
    gradient_checkpointing,
    memory_gib,
) -> dict:
    """What `training.fit_estimate` says of a task's train step, as a dict."""
    opened = open_for_training(model, task, sequence_length, dtype, gradient_checkpointing)
    training = _compile(opened, gradient_accumulation_steps)
    with _shown() as progress:
        found = training.fit_estimate(opened, batch_spec(opened, sequence_length), batch_size, progress=progress)
    result = {"model": model, "task": opened.task_name, "dtype": opened.dtype_policy.name, **found.to_dict()}
    if memory_gib is None:
        return {**result, "text": str(found)}
    fits = found.fits(memory_gib * 2**30)
    answer = {True: "It fits", False: "It does not fit", None: "It may fit"}[fits] + f" into {memory_gib:g} GiB."
    result = {**result, "memory_gib": memory_gib, "fits": fits, "text": f"{found}\n{answer}"}
    return {**result, "failure": answer} if fits is False else result


def _compile(task, gradient_accumulation_steps: int):
    """Compiles with the task's defaults; returns `tfxformer.training`."""
    from tfxformer import training

    if gradient_accumulation_steps == 1:
        task.compile()
        return training
    optimizer = training.adamw(total_steps=1)  # the default one, which `compile` makes too
    optimizer.gradient_accumulation_steps = gradient_accumulation_steps
    task.compile(optimizer)
    return training


def open_for_training(model: str, task: str | None, sequence_length: int, dtype: str | None, gradient_checkpointing):
    """A task on a preset's architecture with new weights, or on a checkpoint.

    Raises:
        ValueError: for an unknown name, a preset without a task, a length that the model does not have.
    """
    from tfxformer.recipes.models import load_tasks, open_task, task_class

    load_tasks()
    from tfxformer import models

    whole = model.endswith(".keras")
    dtype = dtype or (None if whole else "mixed_bfloat16")
    if model not in models.PRESETS:
        if "/" not in model and "." not in model and not Path(model).exists():
            models.preset(model)  # an unknown name: says which there are
        return open_task(
            model,
            task,
            sequence_length=None if whole else sequence_length,
            dtype=dtype,
            gradient_checkpointing=gradient_checkpointing or None,
        )
    if task is None:
        raise ValueError(f"{model} is a preset, an architecture without a task: give --task, such as masked-lm.")
    kind, config = task_class(task), models.preset(model)
    own = "causal-lm" if "decoder" in config.stacks else "masked-lm"
    if task in ("masked-lm", "causal-lm") and task != own:
        raise ValueError(f"The preset {model!r} is no model for {task}, but for {own}.")
    config = config.replace(heads__pooler=bool(kind.wants_pooler(config)))
    backbone = models.build(config, gradient_checkpointing=gradient_checkpointing, dtype=dtype)
    labelled = task in ("text-classification", "token-classification")
    return kind(backbone, sequence_length=sequence_length, **({"labels": ["0", "1"]} if labelled else {}))


def batch_spec(task, sequence_length: int) -> tuple:
    """(x, y, sample_weight) that the task's `fit` makes of texts, as tensor specs."""
    import tensorflow as tf

    name, tokens = task.task_name, tf.TensorSpec((None, sequence_length), "int32")
    inputs = dict.fromkeys(task.input, tokens)
    if name == "text-embedding":  # pairs and their scores
        pairs = dict.fromkeys(task.input, tf.TensorSpec((None, 2, sequence_length), "int32"))
        return pairs, tf.TensorSpec((None,), "float32"), None
    if name == "question-answering":
        return inputs, tf.TensorSpec((None, 2), "int32"), None
    if name == "text-classification":
        if task.problem_type == "single_label_classification":
            return inputs, tf.TensorSpec((None,), "int32"), None
        return inputs, tf.TensorSpec((None, len(task.labels)), "float32"), None
    if name in ("masked-lm", "permutation-lm", "replaced-token-detection"):
        return _with_hidden_places(task, inputs, tokens)
    return inputs, tokens, tf.TensorSpec((None, sequence_length), "float32")


def _with_hidden_places(task, inputs: dict, tokens) -> tuple:
    """The same of a task that hides tokens: it computes the logits of the hidden places only."""
    import tensorflow as tf

    from tfxformer.data.targets.masking import most_positions

    shape = (None, most_positions(tokens.shape[1], task.masking_rate))
    places, weights = tf.TensorSpec(shape, "int32"), tf.TensorSpec(shape, "float32")
    inputs = {**inputs, "masked_positions": places}
    if task.task_name != "replaced-token-detection":
        return inputs, places, weights
    every = tf.TensorSpec(tokens.shape, "float32")
    return inputs, {"generator": places, "discriminator": tokens}, {"generator": weights, "discriminator": every}


def generate_steps(task, length: int) -> list:
    """Reading a prompt of `length` tokens, and one more token on a full cache, of a language model; else nothing."""
    if task.task_name != "causal-lm":
        return []
    import tensorflow as tf

    from tfxformer.training import Step

    def with_rows(tensor) -> tf.TensorSpec:
        return tf.TensorSpec((None, *tensor.shape[1:]), tensor.dtype)

    cache = tf.nest.map_structure(with_rows, task.new_cache(1, length))

    def step(token_ids, slots, cache):
        logits, cache = task.step({"token_ids": token_ids, "cache_positions": slots}, cache)
        return logits, cache

    def of(name, tokens):
        return Step(name, step, (tf.TensorSpec((None, tokens), "int32"), tf.TensorSpec((tokens,), "int32"), cache))

    return [(of("generate: prompt", length), GENERATED_ROWS), (of("generate: token", 1), GENERATED_ROWS)]


def _sizes(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError as error:
        raise ValueError(f"--batch-size {text!r}: wanted a number, or several by commas, such as 32,64.") from error


@contextlib.contextmanager
def _shown() -> Iterator:
    """Says what is being done: one changing line with its seconds on a terminal, a line each elsewhere."""
    if not sys.stderr.isatty():
        yield lambda line: print(line, file=sys.stderr, flush=True)
        return
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as shown:
        current = []

        def progress(line: str) -> None:
            for one in current:
                shown.update(one, total=1, completed=1)
            current[:] = [shown.add_task(line, total=None)]

        yield progress
        for one in current:
            shown.update(one, total=1, completed=1)
