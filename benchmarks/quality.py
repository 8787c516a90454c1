"""Fine-tuning MiniLM-L6 on movie review sentences: ours beside transformers on torch, then ours made small.

    python benchmarks/quality.py

The VADER movie snippets (7,336 sentences to train, 1,835 to test, two labels), 64 tokens, 3 epochs, batch 32,
AdamW at 5e-5 (weight decay 0.01, none on norms and biases), rate warming up for a tenth of the steps and then
falling to zero, gradients clipped by their global norm at 1.0, all float32, seeds 0, 1 and 2 in both frameworks.
On the same sentences, in pairs: the int8 .tflite file against the Keras model it was made from, and a model
pruned to 50 % during the same fit against the one that was not.

A full run takes long; each framework and seed is a process and a file of its own under --runs, and a run that
finds its file is not repeated.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import shlex
import statistics
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import harness
import numpy as np

LENGTH, EPOCHS, BATCH, RATE, WARMUP, DECAY, CLIP = 64, 3, 32, 5e-5, 0.1, 0.01, 1.0
SPARSITY = 0.5
SEEDS = (0, 1, 2)
PACKAGES = ["tensorflow", "keras", "torch", "transformers", "ai-edge-litert"]
# Points of accuracy that the small models may lose, mean of the seeds.
MAY_LOSE = {"int8": 0.5, "pruned": 1.0}


def sentences(count):
    """The split, or its first `count` training sentences (and a quarter as many to test) for a short try."""
    from tfxformer import samples

    split = samples.vader_movies()
    if count is None:
        return split
    test = max(1, count // 4)
    return split._replace(
        train_texts=split.train_texts[:count],
        train_labels=split.train_labels[:count],
        test_texts=split.test_texts[:test],
        test_labels=split.test_labels[:test],
    )


def right(predicted, labels) -> str:
    """For each test sentence "1" where the prediction is right: what paired comparisons are made of."""
    return "".join(map(str, (np.asarray(predicted) == np.asarray(labels)).astype(int)))


def run_tfxformer(seed, count) -> dict:
    """Fine-tunes, exports to int8, and fine-tunes once more while pruning; the time is the first fit's."""
    import keras

    from tfxformer import compression, export, samples, tasks

    split = sentences(count)
    wanted = [split.labels.index(label) for label in split.test_labels]
    steps = EPOCHS * math.ceil(len(split.train_texts) / BATCH)

    def fit(callbacks=()):
        keras.utils.set_random_seed(seed)
        model = tasks.TextClassifier.from_pretrained(samples.minilm(), labels=split.labels, sequence_length=LENGTH)
        model.compile(learning_rate=RATE, warmup=WARMUP, weight_decay=DECAY, global_clipnorm=CLIP)
        start = time.perf_counter()
        model.fit(
            split.train_texts,
            split.train_labels,
            batch_size=BATCH,
            epochs=EPOCHS,
            verbose=2,
            callbacks=list(callbacks),
        )
        return model, time.perf_counter() - start

    def int8(model):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.tflite"
            report = export.export_litert(model, path, "dynamic_int8")
            predicted = export.LiteRTModel(path).predict(split.test_texts).argmax(axis=1)
        return right(predicted, wanted), {"bytes": report.bytes, "zipped_bytes": report.zipped_bytes}

    model, seconds = fit()
    results = {"float32": right(model.predict(split.test_texts).argmax(axis=1), wanted)}
    results["int8"], int8_file = int8(model)
    pruned, pruning_seconds = fit([compression.Prune(schedule(steps))])
    results["pruned"] = right(pruned.predict(split.test_texts).argmax(axis=1), wanted)
    results["pruned int8"], pruned_file = int8(pruned)
    return {
        "seconds": seconds,
        "seconds_with_pruning": pruning_seconds,
        "sparsity": compression.sparsity_report(pruned).kernels.sparsity,
        "files": {"int8": int8_file, "pruned int8": pruned_file},
        "right": results,
    }


def schedule(steps):
    """Prunes from the end of the warmup to two thirds of the fit; the last third repairs."""
    from tfxformer.compression import PolynomialDecay

    begin, frequency = int(WARMUP * steps), max(1, steps // 70)
    end = begin + max(1, (2 * steps // 3 - begin) // frequency) * frequency
    return PolynomialDecay(0.0, SPARSITY, begin_step=begin, end_step=end, frequency=frequency)


def run_torch(seed, count) -> dict:
    """The same fit as a transformers user writes it."""
    import torch
    import transformers

    from tfxformer import samples

    split, folder = sentences(count), samples.minilm()
    torch.manual_seed(seed)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder, num_labels=2)
    start = time.perf_counter()

    def encode(texts):
        return tokenizer(texts, max_length=LENGTH, padding="max_length", truncation=True, return_tensors="pt")

    train, labels = encode(split.train_texts), torch.tensor([split.labels.index(y) for y in split.train_labels])
    flat = [parameter for parameter in model.parameters() if parameter.ndim < 2]  # biases and norms
    groups = [
        {"params": [parameter for parameter in model.parameters() if parameter.ndim > 1]},
        {"params": flat, "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=RATE, weight_decay=DECAY)
    steps = EPOCHS * math.ceil(len(labels) / BATCH)
    rates = transformers.get_linear_schedule_with_warmup(optimizer, int(WARMUP * steps), steps)
    model.train()
    for epoch in range(EPOCHS):
        for rows in torch.randperm(len(labels)).split(BATCH):
            batch = {name: tensor[rows] for name, tensor in train.items()}
            loss = model(**batch, labels=labels[rows]).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
            optimizer.step()
            rates.step()
            optimizer.zero_grad()
        print(f"torch epoch {epoch + 1}: loss {loss.item():.3f}", file=sys.stderr, flush=True)
    seconds = time.perf_counter() - start
    model.eval()
    with torch.inference_mode():
        test = encode(split.test_texts)
        chunks = torch.arange(len(split.test_texts)).split(128)
        logits = torch.cat([model(**{name: t[rows] for name, t in test.items()}).logits for rows in chunks])
    wanted = [split.labels.index(label) for label in split.test_labels]
    return {"seconds": seconds, "right": {"float32": right(logits.argmax(-1).numpy(), wanted)}}


RUNS = {"torch": run_torch, "tfxformer": run_tfxformer}


def run(framework, seed, count, folder) -> dict:
    """One run in a fresh process, or its file where it is there already."""
    path = Path(folder) / f"{framework}-seed{seed}-{count or 'all'}.json"
    if path.exists():
        print(f"{path} is there", file=sys.stderr)
        return json.loads(path.read_text())
    print(f"{framework}, seed {seed}", file=sys.stderr, flush=True)
    machine = harness.machine(PACKAGES)
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        result = pool.submit(RUNS[framework], seed, count).result()
    result |= {"machine": machine, "date": time.strftime("%Y-%m-%d")}
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(result, indent=1) + "\n")
    partial.replace(path)
    return result


def accuracy(answers: str) -> float:
    """The share of right answers."""
    return answers.count("1") / len(answers)


def summarize(runs: dict) -> dict:
    """Accuracies and seconds by framework and model, the paired losses, and what they should be."""
    frameworks = {}
    for framework, by_seed in runs.items():
        models = {
            name: [accuracy(result["right"][name]) for result in by_seed.values()]
            for name in next(iter(by_seed.values()))["right"]
        }
        frameworks[framework] = {
            "accuracy_by_seed": models,
            "mean_accuracy": {name: statistics.mean(values) for name, values in models.items()},
            "seconds_by_seed": [result["seconds"] for result in by_seed.values()],
        }
    ours = runs["tfxformer"]
    count = len(next(iter(ours.values()))["right"]["float32"])
    mean = frameworks["tfxformer"]["mean_accuracy"]
    error = 100 * math.sqrt(mean["float32"] * (1 - mean["float32"]) / count)
    results = {
        "test_sentences": count,
        "standard_error_points": error,
        "frameworks": frameworks,
        "points_lost": {name: paired(ours, "float32", name) for name in mean if name != "float32"},
        "targets": {},
    }
    for name, limit in MAY_LOSE.items():
        lost = results["points_lost"][name]["mean"]
        results["targets"][f"{name}_points_lost"] = {"found": lost, "at_most": limit}
    if "torch" in frameworks:
        theirs = frameworks["torch"]
        behind = 100 * (theirs["mean_accuracy"]["float32"] - mean["float32"])
        ratios = [torch["seconds"] / ours[seed]["seconds"] for seed, torch in runs["torch"].items() if seed in ours]
        results["targets"]["points_behind_torch"] = {"found": behind, "at_most": error}
        results["targets"]["times_as_fast_as_torch"] = {"found": statistics.median(ratios), "at_least": 1.0}
    return results


def paired(by_seed: dict, before: str, after: str) -> dict:
    """Points lost from one model to another on the same sentences: mean of the seeds, each seed, its error."""
    lost, errors = [], []
    for result in by_seed.values():
        pairs = np.array([list(result["right"][name]) for name in (before, after)]).astype(int)
        difference = 100.0 * (pairs[0] - pairs[1])
        lost.append(float(difference.mean()))
        errors.append(float(difference.std() / math.sqrt(len(difference))))
    return {"mean": statistics.mean(lost), "by_seed": lost, "standard_error_by_seed": errors}


def show(results: dict) -> None:
    """The table."""
    for framework, found in results["frameworks"].items():
        seconds = ", ".join(f"{value:.0f}" for value in found["seconds_by_seed"])
        for name, values in found["accuracy_by_seed"].items():
            each = " ".join(f"{value:.4f}" for value in values)
            print(f"{framework:10s} {name:12s} {statistics.mean(values):.4f}   seeds {each}")
        print(f"{framework:10s} fit takes {seconds} s")
    print(f"standard error of an accuracy: {results['standard_error_points']:.2f} points")
    for name, target in results["targets"].items():
        limit = f"at most {target['at_most']:.2f}" if "at_most" in target else f"at least {target['at_least']}"
        print(f"{name}: {target['found']:.2f}, wanted {limit}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
    parser.add_argument("--frameworks", nargs="+", choices=RUNS, default=list(RUNS))
    parser.add_argument("--texts", type=int, help="train on that many sentences only, for a short try")
    parser.add_argument("--runs", default=harness.RESULTS / "quality-runs", help="folder of the single runs")
    options = parser.parse_args()

    runs = {framework: {} for framework in options.frameworks}
    for seed in options.seeds:  # the frameworks in turn, so that both see the same machine
        for framework in options.frameworks:
            runs[framework][seed] = run(framework, seed, options.texts, options.runs)
            found = runs[framework][seed]
            shown = ", ".join(f"{name} {accuracy(a):.4f}" for name, a in found["right"].items())
            print(f"{framework} seed {seed}: {found['seconds']:.0f} s; {shown}", flush=True)
    if "tfxformer" not in runs:
        return
    results = {
        "what": "fine-tuning MiniLM-L6 on VADER movie snippets, 64 tokens, 3 epochs, float32",
        "command": shlex.join(["python", "benchmarks/quality.py", *sys.argv[1:]]),
        "seeds": options.seeds,
        "training_texts": options.texts or "all",
        "date": time.strftime("%Y-%m-%d"),
        "machine": next(iter(runs["tfxformer"].values()))["machine"],
        **summarize(runs),
    }
    show(results)
    name = "quality" if options.texts is None else "quality-try"
    print(harness.write(name, results))


if __name__ == "__main__":
    main()
