"""What a search found: the best setting, its command, a table, a page and the plot."""

from __future__ import annotations

import math
import shlex
from pathlib import Path

from tfxformer.figures import figure, save_figure
from tfxformer.recipes.report import markdown
from tfxformer.recipes.sweep.tuning.inputs import SINGLE_LABEL
from tfxformer.recipes.sweep.tuning.recipe import Recipe
from tfxformer.recipes.sweep.tuning.training import MONITORS

NAMES = {
    "val_loss": "loss",
    "val_accuracy": "accuracy",
    "val_span_accuracy": "share of right starts and ends",
    "val_mean_absolute_error": "mean absolute error",
}
AXES = {
    "learning_rate": "peak learning rate",
    "batch_size": "batch size, texts per step",
    "epochs": "epochs, passes over the texts",
    "warmup": "warmup, share of the steps",
    "weight_decay": "weight decay",
}
HELD_OUT, TRAINED_ON, BEST = "tab:blue", "tab:gray", "tab:orange"


def best(trials: list[dict], objective: str) -> int | None:
    """The place of the first trial with the best score; None where none has one."""
    sign = -1.0 if MONITORS[objective] else 1.0
    able = [i for i, trial in enumerate(trials) if "score" in trial and math.isfinite(trial["score"])]
    return min(able, key=lambda i: sign * trials[i]["score"], default=None)


def said(dials: dict) -> str:
    """A setting in one line."""
    return ", ".join(f"{name} {value:.4g}" for name, value in dials.items())


def command(recipe: Recipe, dials: dict, model: str, data: str, output: Path) -> str:
    """The line that trains a setting again, on the same texts and with the same seed.

    Args:
        recipe: of the search.
        dials: the setting; what it leaves out is the search's, or the command's own.
        model, data: what was trained, and on what.
        output: the folder that the line names.
    """
    search = recipe.search
    options = {
        "task": recipe.task,
        "problem_type": None if recipe.problem_type == SINGLE_LABEL else recipe.problem_type,
        "sequence_length": recipe.sequence_length,
        "dtype": recipe.dtype,
        "epochs": search.most_epochs,
        **dials,
        "validation": recipe.held_out,
        "early_stopping": search.early_stopping,
        "monitor": None if search.early_stopping is None else search.objective,
        "seed": search.seed,
        "output": output,
    }
    line = ["tfxformer", "finetune", model, data]
    for name, value in options.items():
        if value is not None:
            line += [f"--{name.replace('_', '-')}", repr(value) if isinstance(value, float) else str(value)]
    return shlex.join(line)


def table(found: dict) -> tuple[list[str], list[list[str]]]:
    """The trials as (header, rows) of strings, the best first and the failed ones last."""
    objective, trials = found["recipe"]["search"]["objective"], found["trials"]
    names = list(dict.fromkeys(name for trial in trials for name in trial["dials"]))
    sign = -1.0 if MONITORS[objective] else 1.0
    order = sorted(range(len(trials)), key=lambda i: sign * trials[i].get("score", sign * math.inf))
    called = NAMES[objective]
    header = ["trial", *(name.replace("_", " ") for name in names), f"{called}, held out"]
    header += [f"{called}, training", "epoch", "s"]
    rows = []
    for index in order:
        trial = trials[index]
        row = [f"{index + 1}{' (best)' if index == found['best'] else ''}"]
        row += [f"{trial['dials'][name]:.4g}" for name in names]
        if "failed" in trial:
            rows.append([*row, trial["failed"], "", "", ""])
            continue
        row += [f"{trial['score']:.4f}", f"{trial['training']:.4f}", str(trial["epoch"]), f"{trial['seconds']:.0f}"]
        rows.append(row)
    return header, rows


def conclusion(found: dict) -> str:
    """The best setting in a sentence, without its command."""
    trial, objective = found["trials"][found["best"]], found["recipe"]["search"]["objective"]
    return (
        f"Best of {len(found['trials'])} trials: {said(trial['dials'])}, with {NAMES[objective]} {trial['score']:.4f} "
        f"on the held-out texts after epoch {trial['epoch']}."
    )


def conditions(found: dict) -> str:
    """How the figures came about, in one paragraph."""
    recipe, counts, machine = found["recipe"], found["data"], found["machine"]
    search, stopping = recipe["search"], recipe["search"]["early_stopping"]
    split = f"{counts['training_texts']:,} texts to train on, {counts['validation_texts']:,} held out; "
    epochs = "an epoch" if stopping == 1 else f"{stopping} epochs"
    ends = "all epochs trained" if stopping is None else f"stopped after {epochs} without a better score"
    return (
        f"{split}search: {search['method']}, seed {search['seed']}, {ends}; {recipe['dtype'] or 'float32'}. All trials "
        f"share the seed and the held-out texts, which also chose the epoch: the best score is a little too good for "
        f"new texts. The trials took {found['seconds']:.0f} s on {machine['cores']} cores of {machine['processor']}, "
        f"{found['date']}."
    )


def page(found: dict) -> str:
    """RESULTS.md: the best setting and its command, the table, the plot, the conditions."""
    line = f"```bash\n{found['command']}\n```"
    parts = ["# Search", conclusion(found), line, markdown(*table(found)), "![score by setting](search.png)"]
    return "\n\n".join([*parts, conditions(found)]) + "\n"


def plot(found: dict, path: Path) -> None:
    """The held-out score by trial, with that of training beside it, and by each dial; the best is a star."""
    objective, trials = found["recipe"]["search"]["objective"], found["trials"]
    able = [index for index, trial in enumerate(trials) if "score" in trial]
    names = list(dict.fromkeys(name for trial in trials for name in trial["dials"]))
    drawn, panels = figure(1 + len(names), (4.2 * (1 + len(names)), 3.8))
    scores = [trials[index]["score"] for index in able]
    better, so_far = (max if MONITORS[objective] else min), []
    for score in scores:
        so_far.append(better([*so_far[-1:], score]))
    first = panels[0]
    first.plot(
        [i + 1 for i in able], [trials[i]["training"] for i in able], "x", color=TRAINED_ON, label="training texts"
    )
    first.plot([i + 1 for i in able], scores, "o", color=HELD_OUT, label="held-out texts")
    first.step([i + 1 for i in able], so_far, where="post", color=HELD_OUT, linewidth=1, label="best so far")
    first.set(xlabel="trial", title=f"{len(able)} of {len(trials)} trials gave a score")
    first.xaxis.get_major_locator().set_params(integer=True)
    for panel, name in zip(panels[1:], names, strict=True):
        panel.plot([trials[i]["dials"][name] for i in able], scores, "o", color=HELD_OUT)
        panel.set(xlabel=AXES[name], title=f"held-out score by {name.replace('_', ' ')}")
        _plain_numbers(panel, found["recipe"]["space"].get(name))
    chosen = trials[found["best"]]
    for panel, place in zip(panels, [found["best"] + 1, *(chosen["dials"][name] for name in names)], strict=True):
        panel.plot(place, chosen["score"], "*", color=BEST, markersize=14, label="best")
        panel.set_ylabel(NAMES[objective] if panel is first else f"{NAMES[objective]}, held out")
    first.legend(fontsize="small")
    save_figure(drawn, path)


def _plain_numbers(panel, dial: dict | None) -> None:
    """The values of a list as ticks; logarithms where they were drawn, in plain numbers."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    if dial is None:  # Hyperband's epochs
        panel.xaxis.get_major_locator().set_params(integer=True)
        return
    if dial["log"]:
        panel.set_xscale("log")
        panel.xaxis.set_major_locator(LogLocator(subs=(1.0, 3.0)))
        panel.xaxis.set_minor_formatter(NullFormatter())
    if dial["values"]:
        panel.set_xticks(dial["values"])
    panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
