"""A story's training, run once: the model is kept in the story's folder, and beside it what it took.

A run that was ended goes on from its last checkpoint; one that is there for the same settings is not run again.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from pathlib import Path

from tfxformer import training
from tfxformer.files import write_json
from tfxformer.json_files import read_json
from tfxformer.recipes import pipeline

MODEL, CHECKPOINTS, TRAINED = "model", "checkpoints", "trained.json"


def kept(folder: Path, settings) -> dict | None:
    """What `fit` wrote for the same settings (a dataclass); None where the folder holds none of them."""
    if not (folder / TRAINED).is_file():
        return None
    found = read_json(folder / TRAINED)
    return found if found["settings"] == _in_json(settings) else None


def fit(model, *data, folder: Path, settings, save_every: int, facts: dict | None = None, **options) -> dict:
    """Fits a compiled task, keeps it, and writes how long that took.

    Args:
        model: a task of ours.
        data, options: of its `fit`.
        folder: holds the model, its checkpoints and what is returned.
        settings: dataclass, the dials of the story.
        save_every: int, steps between two checkpoints.
        facts: what else is told of the training.

    Returns:
        dict: settings, seconds, processor_seconds, resumed_from, history, parameters, and the facts.
    """
    resume = training.Resume(folder / CHECKPOINTS, save_freq=save_every)
    start, of_processor = time.perf_counter(), time.process_time()
    history = model.fit(*data, callbacks=[resume], **options)
    seconds, of_processor = time.perf_counter() - start, time.process_time() - of_processor
    model.save_pretrained(folder / MODEL)
    found = {
        "settings": _in_json(settings),
        "seconds": seconds,
        "processor_seconds": of_processor,
        "resumed_from": resume.resumed_from and resume.resumed_from.name,
        "history": pipeline.numbers(history),
        "parameters": model.count_params(),
        **(facts or {}),
    }
    write_json(folder / TRAINED, found)
    return found


def _in_json(settings) -> dict:
    """As a file has them, which has no tuples."""
    return json.loads(json.dumps(asdict(settings)))
