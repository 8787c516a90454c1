"""Three layers of MiniLM-L6, learning movie reviews from the six-layer model, and from the labels alone.

    python benchmarks/distillation.py

The VADER movie snippets, 48 tokens, mixed bfloat16. Labels are few and sentences many, where a teacher is worth most:
of 7,336 training sentences the first 2,000 have labels. The six-layer teacher is fine-tuned on these (3 epochs, batch
32, AdamW at 1e-4); `compression.student_from(teacher, keep=3)` makes one student, from which two fits of about as
many steps begin: on the labels alone (6 epochs), and in a `Distiller` on all sentences without labels (2 epochs), from
the teacher's logits (T=2; Hinton et al., 2015, arXiv:1503.02531) and hidden states (Jiao et al., 2020,
arXiv:1909.10351). Seeds 0, 1 and 2. A seed is a process, and a file of its own under --runs: a run that finds its file
is not repeated.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path

import harness
import numpy as np
import quality

LENGTH, DTYPE, RATE = 48, "mixed_bfloat16", 1e-4
LAYERS, TEMPERATURE, LABELLED = 3, 2.0, 2000
EPOCHS = {"teacher": 3, "alone": 6, "distilled": 2}
PACKAGES = ["tensorflow", "keras"]
KEPT = 0.97  # of the teacher's accuracy


def run_seed(seed, labelled) -> dict:
    """Under "models": the teacher and both students, each with its right answers and the seconds of its fit."""
    import keras

    from tfxformer import compression, samples, tasks

    split = samples.vader_movies()
    few = split.train_texts[:labelled], split.train_labels[:labelled]
    wanted = [split.labels.index(label) for label in split.test_labels]
    keras.utils.set_random_seed(seed)
    teacher = tasks.TextClassifier.from_pretrained(
        samples.minilm(), labels=split.labels, sequence_length=LENGTH, dtype=DTYPE
    )
    found = {}

    def measure(name, model, trained, *examples):
        start = time.perf_counter(), time.process_time()
        trained.compile(learning_rate=RATE)
        trained.fit(*examples, batch_size=quality.BATCH, epochs=EPOCHS[name], verbose=2)
        seconds = quality.since(start)
        right = quality.right(model.predict(split.test_texts, batch_size=128, verbose=0).argmax(axis=1), wanted)
        found[name] = {**seconds, "right": right, "parameters": model.count_params()}
        print(f"seed {seed} {name}: {quality.accuracy(right):.4f}", file=sys.stderr, flush=True)

    measure("teacher", teacher, teacher, *few)
    student = compression.student_from(teacher, keep=LAYERS)
    measure("alone", student, student, *few)
    student = compression.student_from(teacher, keep=LAYERS)
    losses = [compression.LogitsLoss(TEMPERATURE), compression.HiddenStateLoss()]
    distiller = compression.Distiller(student, teacher, losses, label_weight=0)
    measure("distilled", student, distiller, split.train_texts)
    return {"models": found}


def run(seed, labelled, folder) -> dict:
    """One seed in a fresh process, or its file where it is there already."""
    return harness.kept(Path(folder) / f"seed{seed}-{labelled}.json", PACKAGES, run_seed, seed, labelled)


def summarize(runs: dict) -> dict:
    """Accuracies by seed, what the students keep of their teacher's, and what they should."""
    models = {
        name: [quality.accuracy(result["models"][name]["right"]) for result in runs.values()]
        for name in ("teacher", "alone", "distilled")
    }
    first = next(iter(runs.values()))["models"]
    kept = {name: statistics.mean(models[name]) / statistics.mean(models["teacher"]) for name in ("alone", "distilled")}
    gains, errors = [], []
    for result in runs.values():
        pair = [np.array(list(result["models"][name]["right"])).astype(int) for name in ("distilled", "alone")]
        difference = 100.0 * (pair[0] - pair[1])
        gains.append(float(difference.mean()))
        errors.append(float(difference.std() / len(difference) ** 0.5))
    return {
        "test_sentences": len(first["teacher"]["right"]),
        "accuracy_by_seed": models,
        "kept_of_the_teacher": kept,
        "points_won_by_distillation": {
            "mean": statistics.mean(gains),
            "by_seed": gains,
            "standard_error_by_seed": errors,
        },
        "parameters": {name: one["parameters"] for name, one in first.items()},
        "seconds_by_seed": {name: [result["models"][name]["seconds"] for result in runs.values()] for name in first},
        "targets": {
            "distilled_keeps": {"found": kept["distilled"], "at_least": KEPT},
            "points_won_by_distillation": {"found": statistics.mean(gains), "above": 0.0},
        },
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", nargs="+", type=int, default=list(quality.SEEDS))
    parser.add_argument("--labelled", type=int, default=LABELLED, help="sentences with labels (default: %(default)s)")
    parser.add_argument("--runs", default=harness.RESULTS / "distillation-runs", help="folder of the single runs")
    options = parser.parse_args()

    runs = {seed: run(seed, options.labelled, options.runs) for seed in options.seeds}
    results = {
        "what": "3 layers of MiniLM-L6 on VADER movies: by labels alone, and by a teacher's answers to all sentences",
        "command": harness.command(),
        "seeds": options.seeds,
        "labelled_texts": options.labelled,
        "machine": next(iter(runs.values()))["machine"],
        **summarize(runs),
    }
    for name, values in results["accuracy_by_seed"].items():
        print(f"{name:10s} {statistics.mean(values):.4f}   seeds {' '.join(f'{value:.4f}' for value in values)}")
    for name, target in results["targets"].items():
        limit = f"at least {target['at_least']}" if "at_least" in target else f"above {target['above']}"
        print(f"{name}: {target['found']:.3f}, wanted {limit}")
    print(harness.write("distillation", results))


if __name__ == "__main__":
    main()
