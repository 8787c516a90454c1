"""Runs a search: KerasTuner says which setting is next and keeps what is done; each trial is a fine-tuning."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import time
import warnings
from datetime import date
from pathlib import Path

import keras

from tfxformer import samples
from tfxformer.data.files import rows as files
from tfxformer.data.files.labelled import task_arguments, tell_columns
from tfxformer.extras import needs
from tfxformer.files import check_writable, write_json, write_text
from tfxformer.recipes import pipeline
from tfxformer.recipes.models import open_task
from tfxformer.recipes.sweep.tuning import results, training
from tfxformer.recipes.sweep.tuning.inputs import hold_out
from tfxformer.recipes.sweep.tuning.reading import read_recipe
from tfxformer.recipes.sweep.tuning.recipe import BAYESIAN, DIALS, HALVING, HYPERBAND, MOST_TRIALS, RANDOM, Dial, Recipe

DEFAULTS = {"learning_rate": 5e-5, "batch_size": 32}  # of `tfxformer finetune`
KERAS_TUNER_EPOCHS = "tuner/epochs"  # under which Hyperband gives its epochs
FACTS = ("epoch", "seconds", "training")  # of a trial, beside its score


def run_recipe(path, output, verbose="auto", progress=print) -> dict:
    """Reads the recipe of a YAML file and runs its search; see `run`."""
    return run(read_recipe(path), output, verbose, progress)


def run(recipe: Recipe, output, verbose="auto", progress=print) -> dict:
    """Tries the settings of a recipe, each from the same checkpoint, seed and held-out texts, and names the best.

    What is done is kept under `output` in KerasTuner's project folder, named by all that a score depends on: a search
    that was stopped goes on, and one whose `trials` have grown tries only the new ones. A trial that was running then
    is trained again. Settings that give no finite score, or need more memory than there is, are failed trials.

    Args:
        recipe: Recipe.
        output: folder; gets results.json, RESULTS.md and search.png, and train.jsonl where the data is a sample.
        verbose: Keras' progress of `fit`.
        progress: called with a line for each trial.

    Returns:
        A dict ready for JSON. "trials", each with its dials, score and epoch; "best", the place of the best of them;
        "command", the line that trains the best setting again; the recipe, data, machine, date and seconds.

    Raises:
        ValueError: for data that the task cannot read, an objective that it does not measure, or no finite score.
        ModuleNotFoundError: without the extra [tune].
    """
    needs("tfxformer tune", "keras_tuner", *(("scipy", "sklearn") if recipe.search.method == BAYESIAN else ()))
    output = Path(output).expanduser()
    check_writable(output / "results.json")
    trainer = Trainer(recipe, output, verbose, progress)
    trials = _search(trainer, output)
    found = {
        "date": date.today().isoformat(),
        "recipe": recipe.to_dict(),
        "data": trainer.counts,
        "machine": _machine(),
        "seconds": sum(trial.get("seconds", 0.0) for trial in trials),
        "trials": trials,
        "best": results.best(trials, recipe.search.objective),
    }
    if found["best"] is None:
        raise ValueError(f"None of the {len(trials)} trials gave a finite {recipe.search.objective}: widen the space.")
    setting = trials[found["best"]]["dials"]
    found["command"] = results.command(recipe, setting, trainer.model, trainer.data, output / "best")
    write_json(output / "results.json", found)
    write_text(output / "RESULTS.md", results.page(found))
    results.plot(found, output / "search.png")
    return {**found, "folder": str(output)}


class Trainer:
    """The data and the model of a search, read once; each call is a trial.

    Args:
        recipe: Recipe.
        output: folder that gets train.jsonl where the data is a sample.
        verbose, progress: as `run` takes them.

    `model` and `data` are what `tfxformer finetune` is given; `counts` says how many texts there are.
    """

    def __init__(self, recipe: Recipe, output: Path, verbose, progress):
        self.recipe, self.verbose, self.progress = recipe, verbose, progress
        self.model = str(getattr(samples, recipe.model)()) if recipe.model in samples.CHECKPOINTS else recipe.model
        self.data = str(_training_file(recipe, output))
        rows = files.read_rows(self.data, recipe.task)
        self._targets, self._arguments = task_arguments(rows, recipe.task, recipe.problem_type)
        self._texts = files.task_inputs(rows, recipe.task)
        tell_columns(rows, progress)
        count = len(self._texts)
        if isinstance(recipe.data, dict) and "validation" in recipe.data:
            others = files.read_rows(recipe.held_out, recipe.task)
            self._held_out = [others.texts, others.pairs, others.labels]
            self.counts = {"training_texts": count, "validation_texts": len(others.texts)}
        else:
            held_out = round(float(recipe.held_out) * count)
            self._held_out = []
            self.counts = {"training_texts": count - held_out, "validation_texts": held_out}
        self._trials = 0

    def __call__(self, dials: dict) -> dict:
        """Trains one setting.

        Args:
            dials: value of each of `DIALS` that is set; the others are those of `tfxformer finetune`.

        Returns:
            "score", the objective on the held-out texts, "training", the same on those trained on, "epoch", after which
            these were, counted from 1, and "seconds".
        """
        search, recipe = self.recipe.search, self.recipe
        keras.utils.set_random_seed(search.seed)
        start = time.perf_counter()
        with warnings.catch_warnings():
            if self._trials:  # the first has said it all: the head is new, texts are cut
                warnings.simplefilter("ignore")
            self._trials += 1
            size = {"sequence_length": recipe.sequence_length, "dtype": recipe.dtype}
            task = open_task(self.model, recipe.task, **self._arguments, **size)
            given = (task, self._texts, self._targets, recipe.held_out, search.seed, None, _silent)
            texts, targets, held_out = hold_out(*given)
            training.check_monitor(task, search.objective)
            stopping = {"early_stopping": search.early_stopping, "monitor": search.objective}
            settings = {"epochs": search.most_epochs, **DEFAULTS, **dials, **stopping}
            fitted = {"validation_data": held_out, "verbose": self.verbose}
            numbers, kept = training.fit(task, texts, targets, **settings, **fitted)
        keras.backend.clear_session()
        score, learned = (numbers[name][kept] for name in (search.objective, search.objective.removeprefix("val_")))
        return {"score": score, "training": learned, "epoch": kept + 1, "seconds": time.perf_counter() - start}

    @property
    def identity(self) -> str:
        """A name for all that a score depends on; more trials of the same go on where they were."""
        recipe = self.recipe.to_dict()
        del recipe["search"]["trials"]
        recipe["data"] = [self._texts, self._targets, *self._held_out]
        return hashlib.sha256(json.dumps(recipe, sort_keys=True, default=str).encode()).hexdigest()[:12]


def _silent(line: str) -> None:
    """Says nothing."""


def _training_file(recipe: Recipe, output: Path) -> Path:
    """The file to train on; a sample's texts are written to one."""
    if isinstance(recipe.data, dict):
        return Path(recipe.data["train"])
    split = getattr(samples, recipe.data)()
    pairs = zip(split.train_texts[: recipe.train_texts], split.train_labels[: recipe.train_texts], strict=True)
    rows = [
        {"text": text, "label": label} if isinstance(text, str) else {"tokens": list(text), "ner_tags": list(label)}
        for text, label in pairs
    ]
    write_text(output / "train.jsonl", "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return output / "train.jsonl"


# ---- KerasTuner --------------------------------------------------------------------------------------------------


def _search(trainer: Trainer, output: Path) -> list[dict]:
    """All trials, those of earlier runs among them, in the order in which they began."""
    import keras_tuner

    search = trainer.recipe.search
    folder = output / f"search-{trainer.identity}"
    oracle = _oracle(trainer.recipe)
    try:
        tuner = _tuner_class(trainer)(oracle=oracle, directory=str(output), project_name=folder.name)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise ValueError(f"The search in {folder} cannot be read ({error}): remove it, and it begins anew.") from error
    oracle.verbose = 0
    if oracle.end_order:
        trainer.progress(f"{folder}: {len(oracle.end_order)} trials are done")
    try:
        tuner.search()
    except keras_tuner.errors.FatalError as error:
        raise error.__cause__ or error from None
    return [_described(oracle.trials[name], search.objective) for name in oracle.start_order]


def _tuner_class(trainer: Trainer) -> type:
    import keras_tuner

    objective = trainer.recipe.search.objective

    class Tuner(keras_tuner.engine.base_tuner.BaseTuner):
        """Trains what the oracle names, from the checkpoint each time: a learning rate's fall ends with its epochs."""

        def run_trial(self, trial):
            dials = _dials(trial)
            number = f"Trial {len(self.oracle.end_order) + 1}: {results.said(dials)}"
            try:
                found = trainer(dials)
            except Exception as error:
                if "RESOURCE_EXHAUSTED" in str(error) or type(error).__name__ == "ResourceExhaustedError":
                    trainer.progress(f"{number}: not enough memory")
                    raise keras_tuner.errors.FailedTrialError("not enough memory") from error
                raise keras_tuner.errors.FatalError(str(error)) from error
            score = found.pop("score")
            said = f"{objective} {score:.4f} after epoch {found['epoch']}, {found['seconds']:.0f} s"
            trainer.progress(f"{number}: {said}")
            return {objective: score, **found}

    return Tuner


def _oracle(recipe: Recipe):
    """KerasTuner's way to choose the next setting."""
    import keras_tuner

    search, oracles = recipe.search, keras_tuner.oracles
    space = keras_tuner.HyperParameters()
    for name, dial in recipe.space.items():
        _declare(space, name, dial)
    common = {
        "objective": keras_tuner.Objective(search.objective, "max" if training.MONITORS[search.objective] else "min"),
        "hyperparameters": space,
        "seed": search.seed + 1,  # 0 would be none to KerasTuner
        "allow_new_entries": False,
        "tune_new_entries": False,
        "max_consecutive_failed_trials": MOST_TRIALS + 1,  # what fails is told, and ends nothing
    }
    if search.method == HYPERBAND:
        return oracles.HyperbandOracle(max_epochs=search.most_epochs, factor=HALVING, **common)
    if search.method == RANDOM:
        return oracles.RandomSearchOracle(max_trials=search.most_trials, **common)
    # KerasTuner's default draws three for each dial by chance first, which may be all there are.
    first = max(2, min(3 * len(recipe.space), search.most_trials // 2))
    return oracles.BayesianOptimizationOracle(max_trials=search.most_trials, num_initial_points=first, **common)


def _declare(space, name: str, dial: Dial) -> None:
    if dial.values is not None:
        space.Choice(name, list(dial.values))
        return
    declare = space.Int if DIALS[name].whole else space.Float
    declare(name, dial.low, dial.high, sampling="log" if dial.log else "linear")


def _dials(trial) -> dict:
    """The setting of a trial, rounded as people write numbers: what is shown is what is trained."""
    values = trial.hyperparameters.values
    dials = {name: values[name] for name in DIALS if name in values}
    if KERAS_TUNER_EPOCHS in values:
        dials["epochs"] = values[KERAS_TUNER_EPOCHS]
    return {name: float(f"{value:.3g}") if isinstance(value, float) else value for name, value in dials.items()}


def _described(trial, objective: str) -> dict:
    """A trial as JSON values; without a score where it has failed."""
    described = {"dials": _dials(trial)}
    if trial.status != "COMPLETED":
        reason = "not enough memory" if "not enough memory" in (trial.message or "") else f"{objective} is not finite"
        return {**described, "failed": reason}
    facts = {name: trial.metrics.get_last_value(name) for name in FACTS}
    return {**described, "score": trial.score, **facts, "epoch": int(facts["epoch"])}


def _machine() -> dict:
    machine = pipeline.machine()
    versions = {"keras-tuner": importlib.metadata.version("keras-tuner")}
    return {**machine, "packages": {**machine["packages"], **versions}}
