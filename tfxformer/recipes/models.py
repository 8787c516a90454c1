"""Opens what the command line calls a model: a folder, a hub id, a .keras file or a LiteRT file."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

from tfxformer.export import LiteRTGenerator, LiteRTModel
from tfxformer.runtime.generation import decoding
from tfxformer.runtime.model_file import open_file
from tfxformer.runtime.quiet import quiet

NOT_IN_TABLES = ("bert-pretraining", "multi-task")  # their examples are documents, and sets of several tasks


def load_tasks() -> ModuleType:
    """`tfxformer.tasks`, imported only for Keras models: a .tflite file must not wait for TensorFlow."""
    with quiet():  # TensorFlow announces itself from C++, where no log level reaches
        return importlib.import_module("tfxformer.tasks")


def task_class(name: str) -> type:
    """The class of a task by its name.

    Raises:
        ValueError: if there is none.
    """
    tasks = load_tasks()
    offered = [getattr(tasks, public) for public in tasks.__all__ if public != tasks.Task.__name__]
    # A subclass of the same name trains otherwise, and is saved as its parent.
    classes = {one.task_name: one for one in offered if one.task_name != getattr(one.__base__, "task_name", None)}
    for absent in NOT_IN_TABLES:
        classes.pop(absent)
    if name not in classes:
        raise ValueError(f"Unknown task {name!r}; known: {', '.join(classes)}.")
    return classes[name]


def stated_task(folder: Path) -> str:
    """The task of a checkpoint (a folder or a GGUF file) by the head that it names; a bare encoder embeds texts."""
    from tfxformer.checkpoints.families import family_of
    from tfxformer.checkpoints.pretrained import open_checkpoint

    reference, _ = open_checkpoint(folder)
    heads = family_of(reference.get("model_type")).heads
    names = {head.architecture: task for task, head in heads.items()}
    stated = reference.get("architectures") or []
    return next((names[name] for name in stated if name in names), "text-embedding")


def with_revision(model: str) -> tuple[str, str | None]:
    """A folder or hub id and the revision behind it: "owner/name@v1.0" pins a branch, tag or commit of the hub."""
    name, at, revision = model.partition("@")
    return (name, revision) if at and revision and not Path(model).expanduser().exists() else (model, None)


def is_litert(model: str) -> bool:
    """Whether a model is a file that LiteRT runs: a .tflite file, or a .litertlm bundle with one inside."""
    return model.lower().endswith((".tflite", ".litertlm"))


def open_task(model: str, task: str | None = None, **arguments):
    """A Keras task (`tasks.Task`) from a folder, a hub id or a .keras file.

    Args:
        model: which one.
        task: its name; None for what the checkpoint says.
        arguments: of `Task.from_pretrained` (labels, dtype, ...); a .keras file has them inside.

    Raises:
        ValueError, OSError, CheckpointError: for what cannot be opened.
    """
    if is_litert(model):
        raise ValueError(f"{model} is a LiteRT file: it can be run, but not trained, exported or pruned.")
    tasks = load_tasks()
    from tfxformer.checkpoints.files.hub import resolve

    given = {name: value for name, value in arguments.items() if value is not None}
    if not model.endswith(".keras"):
        folder = resolve(*with_revision(model))
        return task_class(task or stated_task(folder)).from_pretrained(folder, **given)
    if not Path(model).is_file():
        raise FileNotFoundError(f"There is no file {model}.")
    import keras

    opened = keras.saving.load_model(model)
    if not isinstance(opened, tasks.Task):
        raise ValueError(f"{model} holds a {type(opened).__name__}, not a task of tfxformer.")
    if task not in (None, opened.task_name):
        raise ValueError(f"{model} is a model for {opened.task_name}, not for {task}.")
    for name, value in given.items():
        if value != getattr(opened, name, None):
            raise ValueError(f"{model} is whole: its {name} cannot change; begin from a checkpoint folder.")
    return opened


def open_model(model: str):
    """A Keras task, or the `export.LiteRTModel` of a LiteRT file, its `LiteRTGenerator` where it reads sources."""
    if not is_litert(model):
        return open_task(model)
    return LiteRTGenerator(model) if reads_sources(model) else LiteRTModel(model)


def reads_sources(file) -> bool:
    """Whether a LiteRT file has an encoder, whose `LiteRTGenerator` writes targets."""
    return any(name.startswith(decoding.ENCODE) for name in open_file(file).signatures)
