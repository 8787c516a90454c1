"""MiniLM-L6 on movie reviews as full-integer int8 files: after training, with other calibrations, and trained for it.

    python benchmarks/quantization.py

The VADER movie snippets, 48 tokens. One float model is fine-tuned (2 epochs, batch 32, AdamW at 1e-4, mixed bfloat16)
and kept. Of each seed, 200 training sentences calibrate its int8 files: by each calibration, and with the most
sensitive block in float32. Then it is trained on with `compression.QuantizationAware` on the same 200 (100 steps of
16, AdamW at 2e-5, float32, seed by seed in another order), and exported alike. Accuracies are those of the files, run
by LiteRT on all test sentences; beside them the int8 dynamic-range file of the float model.

Each part and seed is a process and a file of its own under --runs: a run that finds its file is not repeated.
"""

from __future__ import annotations

import argparse
import functools
import statistics
import sys
import tempfile
import time
from pathlib import Path

import harness
import numpy as np
import quality

LENGTH, EPOCHS, BATCH, RATE = 48, 2, 32, 1e-4
STEPS, AWARE_BATCH, AWARE_RATE, REPRESENTATIVE, FLOAT_LAYERS = 100, 16, 2e-5, 200, 1
PACKAGES = ["tensorflow", "keras", "ai-edge-litert"]
TOLERANCE = 0.6  # what these files lose is what is measured here
STATIC = {
    "min_max": {},
    "percentile": {"calibration": "percentile"},
    "mse": {"calibration": "mse"},
    "mixed": {"float_layers": FLOAT_LAYERS},
}


def sentences(count):
    """The split, or its first `count` training sentences (and a quarter as many to test) for a short try."""
    return quality.sentences(count)


def model_folder(count, folder) -> Path:
    """Where the float model is kept."""
    return Path(folder) / f"model-{count or 'all'}"


def representative(split, seed) -> list:
    """The sentences that calibrate the files of a seed."""
    chosen = np.random.default_rng(seed).permutation(len(split.train_texts))[:REPRESENTATIVE]
    return [split.train_texts[i] for i in chosen]


def judged(model, split, files: dict) -> dict:
    """Right answers, bytes and error against Keras of each file."""
    from tfxformer import export

    wanted, found = [split.labels.index(label) for label in split.test_labels], {}
    for name, options in files.items():
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.tflite"
            report = export.export_litert(model, path, sequence_length=LENGTH, **options)
            predicted = export.LiteRTModel(path).predict(split.test_texts).argmax(axis=1)
        right = quality.right(predicted, wanted)
        found[name] = {"right": right, "bytes": report.bytes, "error": report.error}
        found[name] |= {"float_layers": list(report.float_layers)} if report.float_layers else {}
        print(f"{name}: {quality.accuracy(right):.4f}, error {report.error:.3f}", file=sys.stderr, flush=True)
    return found


def keras_model(model, split) -> dict:
    """Right answers of the Keras model, as "float32"."""
    wanted = [split.labels.index(label) for label in split.test_labels]
    answers = model.predict(split.test_texts, batch_size=128, verbose=0).argmax(axis=1)
    return {"float32": {"right": quality.right(answers, wanted)}}


def static(texts, options) -> dict:
    """The arguments of an int8 file."""
    return {"quantization": "int8", "representative": texts, "tolerance": TOLERANCE, **options}


def run_float(seed, count, folder) -> dict:
    """Fine-tunes the float model and keeps it."""
    import keras

    from tfxformer import samples, tasks

    split = sentences(count)
    keras.utils.set_random_seed(seed)
    arguments = {"labels": split.labels, "sequence_length": LENGTH, "dtype": "mixed_bfloat16"}
    model = tasks.TextClassifier.from_pretrained(samples.minilm(), **arguments)
    start = time.perf_counter(), time.process_time()
    model.compile(learning_rate=RATE)
    model.fit(split.train_texts, split.train_labels, batch_size=BATCH, epochs=EPOCHS, verbose=2)
    seconds = quality.since(start)
    model.save_pretrained(model_folder(count, folder))
    model = tasks.TextClassifier.from_pretrained(model_folder(count, folder))
    files = judged(model, split, {"dynamic_int8": {"quantization": "dynamic_int8"}})
    return seconds | {"files": keras_model(model, split) | files}


def run_static(choice, seed, count, folder) -> dict:
    """The float model's int8 file by one choice."""
    from tfxformer import tasks

    split = sentences(count)
    model, texts = tasks.TextClassifier.from_pretrained(model_folder(count, folder)), representative(split, seed)
    return {"files": judged(model, split, {choice: static(texts, STATIC[choice])})}


def run_aware(seed, count, folder) -> dict:
    """The same after some steps of quantization-aware training."""
    import keras

    from tfxformer import compression, tasks

    split = sentences(count)
    keras.utils.set_random_seed(seed)
    model, texts = tasks.TextClassifier.from_pretrained(model_folder(count, folder)), representative(split, seed)
    chosen = np.random.default_rng(seed + 100).permutation(len(split.train_texts))[: STEPS * AWARE_BATCH]
    start = time.perf_counter(), time.process_time()
    model.compile(learning_rate=AWARE_RATE)
    training = [split.train_texts[i] for i in chosen], [split.train_labels[i] for i in chosen]
    callback = compression.QuantizationAware(texts)
    model.fit(*training, batch_size=AWARE_BATCH, epochs=1, verbose=2, callbacks=[callback])
    seconds = quality.since(start)
    return seconds | {"files": judged(model, split, {"min_max": static(texts, STATIC["min_max"])})}


RUNS = {"float": run_float, **{name: functools.partial(run_static, name) for name in STATIC}, "aware": run_aware}


def run_file(part, seed, count, folder) -> Path:
    """Where a run is kept."""
    return Path(folder) / f"{part}-seed{seed}-{count or 'all'}.json"


def run(part, seed, count, folder) -> dict:
    """One run in a fresh process, or its file where it is there already."""
    print(f"{part}, seed {seed}", file=sys.stderr, flush=True)
    return harness.kept(run_file(part, seed, count, folder), PACKAGES, RUNS[part], seed, count, folder)


def summarize(base: dict, runs: dict) -> dict:
    """Accuracies by file and seed, and what quantization-aware training has to reach."""
    table = {"float32": [base["files"]["float32"]], "dynamic_int8": [base["files"]["dynamic_int8"]]}
    for part, by_seed in runs.items():
        for name in next(iter(by_seed.values()), {"files": {}})["files"]:
            table["aware" if part == "aware" else name] = [result["files"][name] for result in by_seed.values()]
    rows = {}
    for name, files in table.items():
        accuracies = [quality.accuracy(one["right"]) for one in files]
        rows[name] = {"accuracy": statistics.mean(accuracies), "accuracy_by_seed": accuracies}
        rows[name] |= {key: statistics.mean(one[key] for one in files) for key in ("bytes", "error") if key in files[0]}
        rows[name] |= (
            {"float_layers_by_seed": [one["float_layers"] for one in files]} if "float_layers" in files[0] else {}
        )
    targets = {}
    if runs.get("min_max") and runs.get("aware"):
        found, least = rows["aware"]["accuracy"], rows["min_max"]["accuracy"]
        targets["aware_accuracy"] = {"found": found, "at_least": least}
    seconds = [result["seconds"] for result in runs.get("aware", {}).values()]
    count = len(base["files"]["float32"]["right"])
    return {"test_sentences": count, "files": rows, "aware_seconds_by_seed": seconds, "targets": targets}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", nargs="+", type=int, default=list(quality.SEEDS))
    parser.add_argument("--parts", nargs="+", choices=list(RUNS)[1:], default=list(RUNS)[1:])
    parser.add_argument("--texts", type=int, help="train on that many sentences only, for a short try")
    parser.add_argument("--found", action="store_true", help="run nothing: sum up the runs that are there")
    parser.add_argument("--runs", default=harness.RESULTS / "quantization-runs", help="folder of the single runs")
    options = parser.parse_args()

    base = run("float", 0, options.texts, options.runs)
    runs = {part: {} for part in options.parts}
    for seed in options.seeds:
        for part in options.parts:
            if options.found and not run_file(part, seed, options.texts, options.runs).exists():
                print(f"{part} seed {seed}: not run")
                continue
            runs[part][seed] = run(part, seed, options.texts, options.runs)
    results = {
        "what": "MiniLM-L6 on VADER movie snippets, 48 tokens, full-integer int8 files",
        "command": harness.command(),
        "seeds": options.seeds,
        "training_texts": options.texts or "all",
        "machine": base["machine"],
        **summarize(base, runs),
    }
    for name, row in results["files"].items():
        each = " ".join(f"{value:.4f}" for value in row["accuracy_by_seed"])
        print(f"{name:28s} {row['accuracy']:.4f}   seeds {each}   error {row.get('error', 0.0):.3f}")
    for name, target in results["targets"].items():
        print(f"{name}: {target['found']:.4f}, wanted at least {target['at_least']:.4f}")
    print(harness.write("quantization" if options.texts is None else "quantization-try", results))


if __name__ == "__main__":
    main()
