"""The commands tpu-check and fit-estimate: a task's steps compiled for what is not there. See `actions`."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

GENERATED_ROWS = 1  # texts that the generate steps continue at once
ESTIMATED_BATCH = 32  # where there is no memory to search a batch for


def tpu_check(
    model,
    task,
    topology,
    mesh,
    sequence_length,
    batch_size,
    dtype,
    gradient_accumulation_steps,
    gradient_checkpointing,
    search_seconds,
) -> dict:
    """What `training.tpu_check` found for a task: its report as a dict."""
    mesh = _mesh(mesh)
    sizes = None if batch_size is None else _sizes(batch_size)
    opened = open_for_training(model, task, sequence_length, dtype, gradient_checkpointing)
    training = _compile(opened, gradient_accumulation_steps)
    with _shown() as progress:
        report = training.tpu_check(
            opened,
            batch_spec(opened, sequence_length),
            topology=topology,
            mesh=mesh,
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
    mesh,
    memory_gib,
    gpu,
) -> dict:
    """What `training.fit_estimate` says of a task's train step, as a dict."""
    mesh, memory_bytes = _mesh(mesh), _memory_bytes(memory_gib, gpu)
    if batch_size is None and memory_bytes is None:
        batch_size = ESTIMATED_BATCH
    opened = open_for_training(model, task, sequence_length, dtype, gradient_checkpointing)
    training = _compile(opened, gradient_accumulation_steps)
    with _shown() as progress:
        found = training.fit_estimate(
            opened,
            batch_spec(opened, sequence_length),
            batch_size,
            memory_bytes=memory_bytes,
            mesh=mesh,
            progress=progress,
        )
    result = {"model": model, "task": opened.task_name, "dtype": opened.dtype_policy.name, **found.to_dict()}
    if memory_bytes is None:
        return {**result, "text": str(found)}
    fits = found.fits(memory_bytes)
    answer = {True: "It fits", False: "It does not fit", None: "It may fit"}[fits]
    answer += f" into {memory_bytes / 2**30:g} GiB."
    result = {**result, "fits": fits, "text": f"{found}\n{answer}"}
    return {**result, "failure": answer} if fits is False else result


def _mesh(text: str | None) -> tuple[int, int] | None:
    """(data, model) of "1x8"."""
    if text is None:
        return None
    try:
        data, model = map(int, text.split("x"))
    except ValueError as error:
        raise ValueError(f"--mesh {text!r}: wanted (data)x(model) sizes, such as 1x8 or 8x1.") from error
    return data, model


def _memory_bytes(memory_gib: float | None, gpu: str | None) -> int | None:
    if gpu is None:
        return None if memory_gib is None else round(memory_gib * 2**30)
    if memory_gib is not None:
        raise ValueError("--gpu and --memory-gib say the same: give one.")
    from tfxformer.training import gpu_memory

    return gpu_memory(gpu)


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
    """A task on a preset's architecture with new weights (on JAX without any), or on a checkpoint.

    Raises:
        ValueError: for an unknown name, a preset without a task, a length that the model does not have.
    """
    from tfxformer.recipes.models import load_tasks, open_task, task_class

    load_tasks()
    from tfxformer import models, training
    from tfxformer.backend import on_jax

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
    labelled = task in ("text-classification", "token-classification")
    with training.shapes_only() if on_jax() else contextlib.nullcontext():
        backbone = models.build(config, gradient_checkpointing=gradient_checkpointing, dtype=dtype)
        return kind(backbone, sequence_length=sequence_length, **({"labels": ["0", "1"]} if labelled else {}))


def batch_spec(task, sequence_length: int) -> tuple:
    """(x, y, sample_weight) that the task's `fit` makes of texts, as Keras tensors."""
    import keras

    name, tokens = task.task_name, keras.KerasTensor((None, sequence_length), "int32")
    inputs = dict.fromkeys(task.input, tokens)
    if name == "text-embedding":  # pairs and their scores
        pairs = dict.fromkeys(task.input, keras.KerasTensor((None, 2, sequence_length), "int32"))
        return pairs, keras.KerasTensor((None,), "float32"), None
    if name == "question-answering":
        return inputs, keras.KerasTensor((None, 2), "int32"), None
    if name == "text-classification":
        if task.problem_type == "single_label_classification":
            return inputs, keras.KerasTensor((None,), "int32"), None
        return inputs, keras.KerasTensor((None, len(task.labels)), "float32"), None
    if name in ("masked-lm", "permutation-lm", "replaced-token-detection"):
        return _with_hidden_places(task, inputs, tokens)
    return inputs, tokens, keras.KerasTensor((None, sequence_length), "float32")


def _with_hidden_places(task, inputs: dict, tokens) -> tuple:
    """The same of a task that hides tokens: it computes the logits of the hidden places only."""
    import keras

    from tfxformer.data.targets.masking import most_positions

    shape = (None, most_positions(tokens.shape[1], task.masking_rate))
    places, weights = keras.KerasTensor(shape, "int32"), keras.KerasTensor(shape, "float32")
    inputs = {**inputs, "masked_positions": places}
    if task.task_name != "replaced-token-detection":
        return inputs, places, weights
    every = keras.KerasTensor(tokens.shape, "float32")
    return inputs, {"generator": places, "discriminator": tokens}, {"generator": weights, "discriminator": every}


def generate_steps(task, length: int) -> list:
    """Reading a prompt of `length` tokens, and one more token on a full cache, of a language model; else nothing."""
    if task.task_name != "causal-lm":
        return []
    import keras

    from tfxformer.training import Step

    def with_rows(tensor) -> keras.KerasTensor:
        return keras.KerasTensor((None, *tensor.shape[1:]), keras.backend.standardize_dtype(tensor.dtype))

    cache = keras.tree.map_structure(with_rows, task.new_cache(1, length))

    def step(token_ids, slots, cache):
        logits, cache = task.step({"token_ids": token_ids, "cache_positions": slots}, cache)
        return logits, cache

    def of(name, tokens):
        return Step(
            name, step, (keras.KerasTensor((None, tokens), "int32"), keras.KerasTensor((tokens,), "int32"), cache)
        )

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
