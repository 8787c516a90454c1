"""Writes docs/equality.md: the largest weight difference of every cell to one device, each in processes of its own.

    python tests/training/equality_table.py [--only STRATEGY]

Ends with an error where a cell differs by more than 1e-5. Takes a quarter of an hour on two idle cores.
"""

import argparse
import itertools
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))  # `replicas`
sys.path.insert(0, str(Path(__file__).parent))

import distributed_cases as cases
from strategy_processes import run_cells

LIMIT = 1e-5
TARGET = Path(__file__).parent.parent.parent / "docs" / "equality.md"
STRATEGIES = {
    "none": "no strategy",
    "one": "OneDevice",
    "mirrored": "Mirrored, 2 replicas",
    "multiworker": "MultiWorker, 2 processes",
}
OPTIMIZERS = {"sgd": "SGD", "adamw": "AdamW"}
MATRIX = list(itertools.product(OPTIMIZERS, (False, True), (1, 4), (1, 5)))
OTHERS = {  # what the matrix does not vary, under each strategy
    "last batch of 1 sample": {"samples": 65},
    "token weights, last batch short": {"loss": "tokens", "samples": 77},
    "token weights, accumulation 4": {"loss": "tokens", "steps": 4},
    "sample weights": {"loss": "samples"},
    "two outputs with other divisors, regularizer": {"loss": "two", "samples": 77, "regularize": 0.1},
    "two outputs, accumulation 2": {"loss": "two", "samples": 77, "steps": 2},
    "loss with reduction=sum, accumulation 2": {"loss": "sum", "steps": 2, "optimizer": "adamw"},
    "samples compared with all others (contrastive)": {"loss": "compare"},
    "the same, last batch short, XLA, steps_per_execution 5": {
        "loss": "compare",
        "samples": 77,
        "jit": True,
        "steps_per_execution": 5,
    },
    "clipnorm": {"clip": {"clipnorm": 0.01}},
    "clipvalue": {"clip": {"clipvalue": 0.001}},
    "no clip": {"clip": {}, "optimizer": "adamw"},
    "tfxformer's AdamW": {"optimizer": "ours"},
    "EMA": {"ema": True, "optimizer": "adamw"},
    "run_eagerly": {"eager": True, "samples": 48},
    "train_on_batch": {"on_batch": True},
}

PAGE = """\
# Equal to one device

`python tests/training/equality_table.py` trains a small Transformer with `training.DistributedModel.fit` and compares
its weights with those of a loop on one device that shares nothing with the package: dense gradients of the mean over
all samples of an update, clipped with numpy, applied by the plain optimizer. Given is the largest absolute difference
of any weight after two epochs, float32; the largest here is {worst:.1e}, and all are to be at most {limit:.0e}. The
global norm is clipped to {clip}, which acts in every update.

{matrix}

Further options: SGD with the active clip, neither XLA nor accumulation, where nothing else is said:

{others}

What TensorFlow cannot do is refused with a message: synchronized BatchNormalization and a `train_step` of one's own
under a strategy with replicas, and ParameterServerStrategy. Nothing was run on a GPU or a TPU.
"""


def matrix_cell(optimizer, jit, steps, steps_per_execution):
    """A cell of the matrix; two epochs of 10 batches."""
    return cases.cell(
        optimizer=optimizer,
        jit=jit,
        steps=steps,
        steps_per_execution=steps_per_execution,
        samples=10 * cases.BATCH,
        fit_only=True,
    )


def difference(result, reference) -> float:
    """The largest of any weight; nan where the number of updates differs."""
    weights, updates = reference
    if int(result["updates"]) != updates:
        return float("nan")
    return float(max(np.abs(result[f"weight_{index}"] - weight).max() for index, weight in enumerate(weights)))


def table(titles, rows) -> list[str]:
    """Markdown lines."""
    lines = ["| " + " | ".join(titles) + " |", "|" + "---|" * len(titles)]
    return [*lines, *("| " + " | ".join(row) + " |" for row in rows)]


def text(found: dict) -> str:
    """The page."""
    names = [name for name in STRATEGIES if name in found]
    rows = []
    for index, (optimizer, jit, steps, execution) in enumerate(MATRIX):
        what = [OPTIMIZERS[optimizer], "yes" if jit else "no", str(steps), str(execution)]
        rows.append([*what, *(f"{found[name][index]:.1e}" for name in names)])
    others = [
        [label, *(f"{found[name][len(MATRIX) + index]:.1e}" for name in names)] for index, label in enumerate(OTHERS)
    ]
    heads = [STRATEGIES[name] for name in names]
    worst = max(max(values) for values in found.values())
    matrix = table(["optimizer", "jit_compile", "accumulation", "steps_per_execution", *heads], rows)
    return PAGE.format(
        worst=worst,
        limit=LIMIT,
        clip=cases.CLIP,
        matrix="\n".join(matrix),
        others="\n".join(table(["option", *heads], others)),
    )


def main():
    """Runs all cells, writes the page, and fails where a cell is too far off."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=STRATEGIES, help="print one strategy's figures, write nothing")
    only = parser.parse_args().only
    todo = [matrix_cell(*options) for options in MATRIX]
    todo += [cases.cell(**options, fit_only=True) for options in OTHERS.values()]
    references = [cases.reference(options) for options in todo]
    found = {}
    for name in [only] if only else STRATEGIES:
        start = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            results = run_cells(name, todo, folder)
        found[name] = [difference(result, truth) for result, truth in zip(results, references, strict=True)]
        print(f"{name}: largest {max(found[name]):.1e}, {time.perf_counter() - start:.0f} s", flush=True)
    if not only:
        TARGET.parent.mkdir(exist_ok=True)
        TARGET.write_text(text(found), encoding="utf-8")
    labels = [*map(str, MATRIX), *OTHERS]
    off = [
        f"{name}: {label}: {value}"
        for name, values in found.items()
        for label, value in zip(labels, values, strict=True)
        if not value <= LIMIT
    ]
    if off:
        sys.exit("not equal to one device:\n" + "\n".join(off))


if __name__ == "__main__":
    main()
