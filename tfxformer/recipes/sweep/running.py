"""Goes through the points of a sweep: what is done is kept in files, so that a sweep goes on where it stopped."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
import time
import warnings
import zipfile
from collections.abc import Callable
from datetime import date
from pathlib import Path

import keras
import numpy as np

from tfxformer.data.evaluation import main_score, predict, scores
from tfxformer.export import ExportError, export_litert
from tfxformer.files import recover, replacing_folder
from tfxformer.json_files import read_json
from tfxformer.recipes import pipeline, report
from tfxformer.recipes.file_costs import file_costs
from tfxformer.recipes.models import open_model as open_file
from tfxformer.recipes.sweep import results as tables
from tfxformer.recipes.sweep.inputs import model_opener, read_split
from tfxformer.recipes.sweep.reading import read_recipe
from tfxformer.recipes.sweep.recipe import AXES, OF_TARGETS, Point, Recipe
from tfxformer.recipes.sweep.stages import STAGES, Context, prune
from tfxformer.samples import Split

MODEL_AXES = AXES[:-1]  # those that change the model; the last says how its file is written
REPRESENTATIVE = 200  # texts that calibrate static quantization


def run_recipe(path, output, verbose="auto", progress=print) -> dict:
    """Reads the recipe of a YAML file, opens what it names, and goes through its points; see `run`.

    Raises:
        ValueError: for what is wrong in the recipe, its data or its model.
    """
    recipe = read_recipe(path)
    split = read_split(recipe)
    return run(recipe, split, model_opener(recipe, split), output, verbose, progress)


def run(recipe: Recipe, split: Split, open_model: Callable, output, verbose="auto", progress=print) -> dict:
    """Makes, exports and measures every point of a recipe, and exports the chosen one.

    Each model and each file is kept under `output`, named by the settings, the data and the seed it came of: a sweep
    that was interrupted, or whose recipe has grown, makes only what is missing.

    Args:
        recipe: Recipe.
        split: `samples.Split`, the data; a share of its training texts is held out for the choice.
        open_model: () -> the task on its pretrained checkpoint with a new head.
        output: folder; gets stages/ and points/, and, when all is measured, results.json, RESULTS.md, two plots, and
            the chosen model as NAME.tflite and NAME.keras.
        verbose: Keras' progress of `fit`.
        progress: called with a line before each step.

    Returns:
        dict ready for JSON: "points" in the order of the recipe, the baseline first, "chosen" (its place among them,
        None if no point is within the limit), the recipe, data, machine, date and seconds.

    Raises:
        ValueError: for data that cannot be split; what the stages raise for settings that the model does not allow.
    """
    output, start = Path(output), time.perf_counter()
    sweep = Sweep(recipe, split, open_model, output, verbose, progress)
    with warnings.catch_warnings():
        if recipe.writes:  # a file refuses longer sources, which is said before anything is trained
            sources, length = [*sweep.held_out[0], *sweep.test[0]], recipe.sequence_length
            open_model().encode(sources, sequence_length=length, truncation=False)
        # That texts are longer than `sequence_length` is meant here: the recipe says so.
        warnings.filterwarnings("ignore", message=r".*texts (were|are) longer than")
        measured = [sweep.measure(point) for point in recipe.points]
    sweep.measure_latencies(measured)
    found = {
        "name": recipe.name,
        "date": date.today().isoformat(),
        "recipe": recipe.to_dict(),
        "data": {"train_texts": len(sweep.train[0]), "validation_texts": len(sweep.held_out[0])}
        | {"test_texts": len(sweep.test[0])},
        "machine": pipeline.machine(),
        "seconds": time.perf_counter() - start,
        "seconds_of_stages": sweep.seconds_of_stages(),
        "main_score": measured[0]["main_score"],
        "points": tables.compared(measured),
    }
    found["chosen"] = tables.choose(found["points"], recipe.choose)
    _write(found, sweep, output)
    return {**found, "folder": str(output)}


def _write(found: dict, sweep: Sweep, output: Path) -> None:
    """The results, and the chosen model under the recipe's name."""
    with replacing_folder(output) as folder:
        if found["chosen"] is not None:
            point = sweep.recipe.points[found["chosen"]]
            shutil.copyfile(sweep.file(point), folder / f"{found['name']}.tflite")
            shutil.copyfile(sweep.model_path(point), folder / f"{found['name']}.keras")
        report.write_json(folder / "results.json", found)
        report.write_text(folder / "RESULTS.md", tables.results_page(found))
        tables.plot(found, "bytes", folder / "score-over-size.png")
        tables.plot(found, "median_ms", folder / "score-over-latency.png")


class Sweep:
    """The state of a sweep: its data, and the files of what is done already."""

    def __init__(self, recipe: Recipe, split: Split, open_model: Callable, output: Path, verbose, progress):
        self.recipe, self.output, self.verbose, self.progress = recipe, output, verbose, progress
        self._open_model = open_model
        self.train, self.held_out, self.test = _parts(recipe, split)
        # What all stages depend on: other texts or another seed make other models.
        names = ("model", "task", "sequence_length", *OF_TARGETS, "batch_size", "dtype")
        general = {name: getattr(recipe, name) for name in names}
        self._identity = {**general, "seed": recipe.seed, "data": _digest([self.train, self.held_out, self.test])}

    # ---- models -----------------------------------------------------------------------------------------------

    def model_path(self, point: Point) -> Path:
        """The .keras file of a point."""
        return self._stage_folder(point, MODEL_AXES[-1]) / "model.keras"

    def _stage_folder(self, point: Point, axis: str) -> Path:
        settings = point.until(axis)
        return self.output / "stages" / f"{list(settings)[-1]}-{_digest([self._identity, settings])}"

    def make(self, point: Point, axis: str) -> Path:
        """The .keras file of the point's model after `axis`: an older run's, or made now."""
        folder, settings = self._stage_folder(point, axis), point.until(axis)
        recover(folder)
        path, last = folder / "model.keras", list(settings)[-1]
        if path.exists():
            _read(folder / "stage.json")
            _check_kept(path, zipfile.is_zipfile(path))
            return path
        before = None if last == MODEL_AXES[0] else self.make(point, MODEL_AXES[MODEL_AXES.index(last) - 1])
        teacher = self.make(point, "vocabulary") if last in ("distil", "prune") else None
        self.progress(f"{last}: {getattr(point, last)}")
        start = time.perf_counter()
        keras.utils.set_random_seed(self.recipe.seed)
        context = Context(self.recipe, *self.train, self._open_model, lambda: _load(teacher), self.verbose)
        arguments = [before and _load(before), getattr(point, last), context]
        model = prune(*arguments, teaching=point.distil) if last == "prune" else STAGES[last](*arguments)
        with replacing_folder(folder) as temporary:
            pipeline.save_keras(model, temporary / "model.keras")
            facts = {"settings": settings, "seconds": time.perf_counter() - start, "parameters": model.count_params()}
            report.write_json(temporary / "stage.json", facts)
        keras.backend.clear_session()
        return path

    def seconds_of_stages(self) -> float:
        """What all stages took that the points stand on, whenever they were made."""
        folders = {self._stage_folder(point, axis) for point in self.recipe.points for axis in MODEL_AXES}
        return sum(_read(folder / "stage.json")["seconds"] for folder in folders)

    # ---- files ------------------------------------------------------------------------------------------------

    def file(self, point: Point) -> Path:
        """The .tflite file of a point."""
        return self._point_folder(point) / "model.tflite"

    def _point_folder(self, point: Point) -> Path:
        return self.output / "points" / _digest([self._identity, point.until(AXES[-1])])

    def measure(self, point: Point) -> dict:
        """Exports a point and scores the file itself, text by text through LiteRT; or what an older run measured."""
        folder = self._point_folder(point)
        recover(folder)
        if (folder / "point.json").exists():
            found, file = _read(folder / "point.json"), self.file(point)
            _check_kept(file, "refused" in found or (file.is_file() and file.stat().st_size == found.get("bytes")))
            return found
        path = self.make(point, MODEL_AXES[-1])
        self.progress(f"exporting and measuring: {point}")
        model = _load(path)
        found = {"name": str(point), "settings": dataclasses.asdict(point), "parameters": model.count_params()}
        found["main_score"] = main_score(model)
        with replacing_folder(folder) as temporary:
            try:
                found |= self._exported(model, temporary / "model.tflite", point)
            except ExportError as error:  # an answer like any: this model is not for this mode
                found["refused"] = str(error)
            report.write_json(temporary / "point.json", found)
        keras.backend.clear_session()
        return found

    def _exported(self, model, path: Path, point: Point) -> dict:
        texts, calibrated = self.train[0], point.quantize in ("int8", "int16x8")
        representative = texts[:REPRESENTATIVE] if calibrated else None
        length = self.recipe.sequence_length
        written = export_litert(
            model,
            path,
            point.quantize,
            sequence_length=length,
            samples=texts[:8],
            representative=representative,
        )
        file, score = open_file(str(path)), main_score(model)
        found = {
            "bytes": written.bytes,
            "zipped_bytes": written.zipped_bytes,
            "relative_error": written.error,
            "validation": scores(file, *self.held_out)[score],
            "test": scores(file, *self.test)[score],
        }
        if score == "accuracy":
            found["right"] = {"validation": _right(file, *self.held_out), "test": _right(file, *self.test)}
        return found

    def measure_latencies(self, measured: list[dict]) -> None:
        """Adds the time of one text to each point that has a file; they are timed in turn."""
        points = zip(self.recipe.points, measured, strict=True)
        files = {str(i): self.file(point) for i, (point, found) in enumerate(points) if "refused" not in found}
        self.progress(f"timing {len(files)} files in turn")
        for row in file_costs(files, rounds=self.recipe.latency_rounds).rows:
            quartiles = {"low_quartile_ms": row.low_quartile_ms, "high_quartile_ms": row.high_quartile_ms}
            measured[int(row.name)]["latency"] = {"median_ms": row.median_ms, **quartiles}


def _load(path: Path):
    return keras.saving.load_model(path, compile=False)


def _read(path: Path) -> dict:
    try:
        return read_json(path)
    except (ValueError, FileNotFoundError) as error:
        raise ValueError(f"{error} Remove the folder {path.parent}, and the sweep makes it again.") from error


def _check_kept(path: Path, whole: bool) -> None:
    """Refuses what a run before has left and something has damaged since."""
    if not whole:
        raise ValueError(
            f"{path} is not whole, or not there: remove the folder {path.parent}, and the sweep makes it again."
        )


def _digest(values) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True, default=str).encode()).hexdigest()[:12]


def _right(file, texts, labels) -> str:
    """ "1" for each text whose likeliest label is its own, else "0"."""
    wanted = np.array([file.labels.index(label) for label in labels])
    return "".join(map(str, (np.asarray(predict(file, texts)).argmax(axis=-1) == wanted).astype(int)))


def _parts(recipe: Recipe, split: Split) -> tuple:
    """(training, held-out, test), each (texts, labels); the held-out ones are drawn by chance: files may be sorted."""
    texts, labels = split.train_texts[: recipe.train_texts], split.train_labels[: recipe.train_texts]
    parts = pipeline.hold_out(texts, labels, recipe.validation, recipe.seed, "validation")
    return *parts, (split.test_texts[: recipe.test_texts], split.test_labels[: recipe.test_texts])
