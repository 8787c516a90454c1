"""The road of one task, in steps: fine-tune, prune, export, and measure each on the same test texts.

Every step is a function of its own; `run` goes all of them and returns what results.json holds.
"""

from __future__ import annotations

import importlib.metadata
import math
import time
import warnings
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path

import keras
import numpy as np

from tfxformer.compression import PolynomialDecay, Prune, sparsity_report
from tfxformer.data.evaluation import main_score, scores
from tfxformer.export import LiteRTModel, export_litert
from tfxformer.files import replacing_folder
from tfxformer.recipes import latency, plots, report
from tfxformer.tasks import Task
from tfxformer.training.callbacks.history import numbers as numbers

PACKAGES = ("tensorflow", "keras", "ai-edge-litert", "tensorflow-model-optimization")


@dataclass(frozen=True)
class Settings:
    """The dials of a road.

    Attributes:
        sequence_length: int S, tokens per text.
        epochs, prune_epochs: int, of fine-tuning and of pruning after it.
        learning_rate, prune_learning_rate: float, peaks; 10 % warmup, then linear to zero, clipped at norm 1.
        batch_size: int.
        sparsity: float, final share of zeros in the kernels.
        validation_split: float, share of the training texts held out for early stopping; 0 for none.
        quantizations: modes of the .tflite files.
        train_texts, test_texts: int, how many of them are used; None for all.
        latency_rounds: int, timed runs of one text.
        dtype: dtype policy of training; None for float32.
        seed: int, of the new head, the order and the dropout.
    """

    sequence_length: int
    epochs: int = 3
    prune_epochs: int = 2
    learning_rate: float = 5e-5
    prune_learning_rate: float = 5e-5
    batch_size: int = 32
    sparsity: float = 0.5
    validation_split: float = 0.0
    quantizations: tuple[str, ...] = ("float32", "dynamic_int8")
    train_texts: int | None = None
    test_texts: int | None = None
    latency_rounds: int = 50
    dtype: str | None = None
    seed: int = 0


def load(task_class: type[Task], checkpoint, labels: Sequence[str], settings: Settings) -> Task:
    """The task on a checkpoint; its new head comes out the same for the same seed."""
    keras.utils.set_random_seed(settings.seed)
    return task_class.from_pretrained(
        checkpoint, labels=labels, sequence_length=settings.sequence_length, dtype=settings.dtype
    )


def fine_tune(task: Task, texts, labels, settings: Settings, verbose="auto") -> dict:
    """Fits with the task's defaults; where texts are held out, stops early and takes the best epoch."""
    callbacks = []
    if settings.validation_split:
        callbacks.append(keras.callbacks.EarlyStopping("val_loss", patience=1, restore_best_weights=True))
    dials = {"epochs": settings.epochs, "batch_size": settings.batch_size, "learning_rate": settings.learning_rate}
    held = {"validation_split": settings.validation_split, "callbacks": callbacks}
    return fit(task, texts, labels, **dials, **held, verbose=verbose)


def prune(task: Task, texts, labels, settings: Settings, verbose="auto") -> dict:
    """Goes on fitting while the kernels lose weights, up to `sparsity`; the zeros stay."""
    rate, sparsity = settings.prune_learning_rate, settings.sparsity
    dials = {"epochs": settings.prune_epochs, "batch_size": settings.batch_size, "learning_rate": rate}
    return fit(task, texts, labels, **dials, sparsity=sparsity, verbose=verbose)


def fit(
    model,
    x,
    y,
    *,
    epochs,
    batch_size,
    learning_rate,
    optimizer=None,
    sparsity=None,
    examples=None,
    callbacks=(),
    **options,
) -> dict:
    """Fits a task, or a Distiller, with its defaults and a peak learning rate.

    Args:
        optimizer: dict, other arguments of the optimizer (warmup, weight_decay); None for the task's own.
        sparsity: float, the share of zeros that its kernels come to; None prunes nothing.
        examples: int, those that batches are made of; None for as many as `x` has.
        callbacks, options: of `fit`.

    Returns:
        The history, as numbers by name.
    """
    callbacks = list(callbacks)
    if sparsity is not None:
        steps = epochs * math.ceil((examples or len(x)) / batch_size)
        callbacks.append(Prune(pruning_schedule(sparsity, steps)))
    model.compile(learning_rate=learning_rate, **(optimizer or {}))
    return numbers(model.fit(x, y, batch_size=batch_size, epochs=epochs, callbacks=callbacks, **options))


def hold_out(texts: list, labels: list | None, share: float, seed: int, said: str) -> tuple[tuple, tuple]:
    """((texts, labels) to train on, (texts, labels) held out), drawn by chance: files may be sorted.

    Raises:
        ValueError: for a share that leaves one of them empty; `said` is its name.
    """
    count = round(share * len(texts))
    if not 0 < count < len(texts):
        raise ValueError(f"{said} {share} of {len(texts)} texts leaves {count} to validate on.")
    order = np.random.default_rng(seed).permutation(len(texts))
    return tuple(
        ([texts[i] for i in rows], None if labels is None else [labels[i] for i in rows])
        for rows in (sorted(order[count:]), sorted(order[:count]))
    )


def pruning_schedule(sparsity: float, steps: int) -> PolynomialDecay:
    """Sparsity that rises over the first two thirds of `steps`, in some 5 moves; the rest is for healing.

    Every move sorts all weights, which takes as long as a step or two: few moves are fast, and do as well.

    Raises:
        ValueError: for fewer than 2 steps.
    """
    if steps < 2:
        raise ValueError(f"Pruning needs at least 2 training steps, got {steps}: more texts or epochs.")
    rise = max(1, steps * 2 // 3)
    frequency = max(1, rise // 5)
    end = rise // frequency * frequency
    return PolynomialDecay(0.0, sparsity, begin_step=0, end_step=end, frequency=frequency)


def save_keras(task: Task, path: Path) -> None:
    """Saves a task as `.keras` with a fresh optimizer: a fitted one's moments would treble the file."""
    task.compile()
    task.save(path)


def write_fit(task: Task, output, result: dict, numbers: dict) -> dict:
    """Writes what a fit has made: a Hugging Face folder, model.keras, results.json and the training curve.

    Args:
        output: the folder; it is written whole or not at all.
        result: what goes into results.json.
        numbers: the history, from `numbers`.

    Returns:
        `result` with the folder's name.
    """
    with replacing_folder(output) as folder:
        task.save_pretrained(folder)
        save_keras(task, folder / "model.keras")
        report.write_json(folder / "results.json", {**result, "history": numbers, "machine": machine()})
        plots.training_curve({"fit": numbers}, folder / "training-curve.png")
    return {**result, "folder": str(output)}


def measure_keras(task: Task, path: Path, test_texts, test_labels, settings: Settings, predict=None) -> dict:
    """Saves a task as `.keras`, and scores it.

    Args:
        predict: the `predict_function` of a task of the same layers, seconds of tracing that `compile` forgets.
    """
    save_keras(task, path)
    task.predict_function = predict
    content = path.read_bytes()
    with ThreadPoolExecutor(1) as aside:  # while the task is traced, on one core
        zipped = aside.submit(lambda: len(zlib.compress(content, 6)))
        found = scores(task, test_texts, test_labels, settings.batch_size)
        return {
            "file": path.name,
            "bytes": len(content),
            "zipped_bytes": zipped.result(),
            "sparsity": sparsity_report(task).kernels.sparsity,
            "scores": found,
        }


def measure_litert(task: Task, path: Path, quantization: str, test_texts, test_labels, samples) -> dict:
    """Exports a task, then scores the file itself, text by text through LiteRT.

    The sparsity is the model's; rounding to int8 adds zeros and takes none.
    """
    report = export_litert(task, path, quantization, sequence_length=task.sequence_length, samples=samples)
    return {
        "file": path.name,
        "bytes": report.bytes,
        "zipped_bytes": report.zipped_bytes,
        "sparsity": sparsity_report(task).kernels.sparsity,
        "quantization": quantization,
        "relative_error": report.error,
        "mediapipe": report.mediapipe,
        "scores": scores(LiteRTModel(path), test_texts, test_labels),
    }


def measure_latencies(task: Task, folder: Path, variants: dict, text, rounds: int) -> None:
    """Adds the time of one text to each variant; dense and pruned Keras share a graph, and so a figure."""
    inputs, _, _ = task.prepare(task.read([text]))
    batch = {name: array[:1] for name, array in inputs.items()}
    calls = {"keras": latency.keras_call(task, batch)}
    for name, variant in variants.items():
        if "quantization" in variant:
            calls[name] = latency.litert_call(LiteRTModel(folder / variant["file"]), batch)
    measured = latency.race(calls, rounds)
    for name, variant in variants.items():
        variant["latency"] = measured.get(name, measured["keras"])


def run(task: Task, split, settings: Settings, folder: Path, name: str, verbose="auto", progress=print) -> dict:
    """Fine-tunes, prunes, exports and measures; writes the models into `folder`.

    Args:
        task: as `load` gives it.
        split: `samples.Split`, or anything with its train_texts, train_labels, test_texts, test_labels.
        settings: Settings.
        folder: pathlib.Path that exists; gets a Hugging Face checkpoint, `{name}.keras` and .tflite files.
        name: str, of the files.
        verbose: Keras' progress of `fit`.
        progress: called with a line before each stage.

    Returns:
        dict ready for JSON: "variants" by name ("keras", "keras-pruned", "litert-float32", ...), each with
        its file, sizes in bytes, sparsity, scores and latency; "history"; "settings"; data, machine, seconds.
    """
    start = time.perf_counter()
    train, test = (
        (texts[:count], labels[:count])
        for texts, labels, count in (
            (split.train_texts, split.train_labels, settings.train_texts),
            (split.test_texts, split.test_labels, settings.test_texts),
        )
    )
    with warnings.catch_warnings():
        # That texts are longer than `sequence_length` is meant here: the settings say so.
        warnings.filterwarnings("ignore", message=r".*texts (were|are) longer than")
        variants, history = _go(task, train, test, settings, folder, name, verbose, progress)
    return {
        "name": name,
        "task": task.task_name,
        "labels": task.labels,
        "main_score": main_score(task),
        "date": date.today().isoformat(),
        "seconds": time.perf_counter() - start,
        "settings": asdict(settings),
        "data": {"train_texts": len(train[0]), "test_texts": len(test[0])},
        "machine": machine(),
        "variants": variants,
        "history": history,
    }


def _go(task, train, test, settings, folder, name, verbose, progress) -> tuple[dict, dict]:
    """The stages of `run` one after the other: (variants, history)."""
    variants, history = {}, {}
    progress(f"Fine-tuning on {len(train[0])} texts, {settings.sequence_length} tokens each")
    history["fine_tune"] = fine_tune(task, *train, settings, verbose)
    path = folder / f"{name}.keras"
    progress(f"Scoring on {len(test[0])} test texts")
    variants["keras"] = {
        **measure_keras(task, path, *test, settings),
        "file": None,
    }  # the pruned one replaces it
    progress(f"Pruning {settings.sparsity:.0%} of the kernels' weights")
    predict = task.predict_function
    history["prune"] = prune(task, *train, settings, verbose)
    variants["keras-pruned"] = measure_keras(task, path, *test, settings, predict)
    task.save_pretrained(folder)
    for mode in settings.quantizations:
        progress(f"Exporting {mode} and running the file on the test texts")
        file = folder / f"{name}-{mode.removeprefix('dynamic_')}.tflite"
        variants[f"litert-{mode}"] = measure_litert(task, file, mode, *test, train[0][:8])
    measure_latencies(task, folder, variants, train[0][0], settings.latency_rounds)
    return variants, history


def machine() -> dict:
    """The processor, the cores in use, and the versions of what computes."""
    return {
        "processor": latency.processor_name(),
        "cores": latency.cores(),
        "packages": {package: importlib.metadata.version(package) for package in PACKAGES},
    }
