"""Fine-tuning MiniLM-L6 on movie review sentences: ours beside transformers on torch, then ours made small.

    python benchmarks/quality.py

The VADER movie snippets (7,336 sentences to train, 1,835 to test, two labels), 64 tokens, 3 epochs, batch 32,
AdamW at 5e-5 (weight decay 0.01, none on norms and biases), rate warming up for a tenth of the steps and then
falling to zero, gradients clipped by their global norm at 1.0, all float32, seeds 0, 1 and 2 in both frameworks.
On the same sentences, in pairs: the int8 .tflite file against the Keras model it was made from, and that model
pruned to 50 % in a further fit (2 epochs, at 1e-4, the same schedule, mixed bfloat16) against itself. In that fit it
learns the probabilities that the dense model gives the training sentences (Hinton et al., 2015, arXiv:1503.02531) in
place of the labels, which it knew nearly by heart: with them it lost 1.5 points, not 0.3 (seed 0).

A full run takes long; each part and seed is a process and a file of its own under --runs, and a run that finds its
file is not repeated. The seconds of a fit are of the clock; those of the processor, over all threads, are less
disturbed by other work on the machine.
"""

from __future__ import annotations

import argparse
import functools
import math
import statistics
import sys
import tempfile
import time
from pathlib import Path

import harness
import numpy as np

LENGTH, EPOCHS, BATCH, RATE, WARMUP, DECAY, CLIP = 64, 3, 32, 5e-5, 0.1, 0.01, 1.0
PRUNE_EPOCHS, PRUNE_RATE, SPARSITY = 2, 1e-4, 0.5
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


def since(start) -> dict:
    """The seconds of the clock and of the processor."""
    return {"seconds": time.perf_counter() - start[0], "processor_seconds": time.process_time() - start[1]}


def pruned_by_its_own_answers(model, split) -> dict:
    """Prunes a task while it learns its own probabilities of the training sentences; returns the seconds."""
    import keras
    import tensorflow as tf

    from tfxformer import compression, training
    from tfxformer.data.batches import to_batch
    from tfxformer.recipes import pipeline

    start, steps = (time.perf_counter(), time.process_time()), PRUNE_EPOCHS * math.ceil(len(split.train_texts) / BATCH)
    answers = model.predict(split.train_texts, batch_size=128)
    batch = to_batch(model.tokenizer.encode(split.train_texts, sequence_length=LENGTH), True)
    data = tf.data.Dataset.from_tensor_slices((batch, answers)).shuffle(len(answers), seed=0).batch(BATCH)
    optimizer = training.adamw(steps, PRUNE_RATE, WARMUP, DECAY, CLIP)
    model.compile(optimizer, loss=keras.losses.CategoricalCrossentropy(from_logits=True), metrics=[])
    callback = compression.Prune(pipeline.pruning_schedule(SPARSITY, steps))
    model.fit(data, epochs=PRUNE_EPOCHS, verbose=2, callbacks=[callback])
    return since(start)


def judged(model, split, name) -> dict:
    """The Keras model's answers as `name`, those of its int8 file, and the file's sizes."""
    from tfxformer import export

    wanted = [split.labels.index(label) for label in split.test_labels]
    int8 = "int8" if name == "float32" else f"{name} int8"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.tflite"
        report = export.export_litert(model, path, "dynamic_int8")
        predicted = export.LiteRTModel(path).predict(split.test_texts).argmax(axis=1)
    return {
        "files": {int8: {"bytes": report.bytes, "zipped_bytes": report.zipped_bytes}},
        "right": {
            name: right(model.predict(split.test_texts).argmax(axis=1), wanted),
            int8: right(predicted, wanted),
        },
    }


def run_tfxformer(seed, count, folder) -> dict:
    """Fine-tunes, keeps the model for `run_pruned`, and exports it to int8."""
    import keras

    from tfxformer import samples, tasks

    split = sentences(count)
    keras.utils.set_random_seed(seed)
    model = tasks.TextClassifier.from_pretrained(samples.minilm(), labels=split.labels, sequence_length=LENGTH)
    start = time.perf_counter(), time.process_time()
    model.compile(learning_rate=RATE, warmup=WARMUP, weight_decay=DECAY, global_clipnorm=CLIP)
    model.fit(split.train_texts, split.train_labels, batch_size=BATCH, epochs=EPOCHS, verbose=2)
    seconds = since(start)
    model.save_pretrained(model_folder(seed, count, folder))
    return seconds | judged(model, split, "float32")


def run_pruned(seed, count, folder) -> dict:
    """Prunes what `run_tfxformer` fine-tuned, in a further fit; the answers are those of its float32 weights."""
    import keras

    from tfxformer import compression, tasks

    split, load = sentences(count), functools.partial(tasks.TextClassifier.from_pretrained, sequence_length=LENGTH)
    keras.utils.set_random_seed(seed)
    model = load(model_folder(seed, count, folder), dtype="mixed_bfloat16")
    seconds = pruned_by_its_own_answers(model, split)
    with tempfile.TemporaryDirectory() as saved:
        model = load(model.save_pretrained(saved))
    sparsity = compression.sparsity_report(model).kernels.sparsity
    return seconds | judged(model, split, "pruned") | {"sparsity": sparsity}


def model_folder(seed, count, folder) -> Path:
    """Where the fine-tuned model of a seed is kept."""
    return Path(folder) / f"model-seed{seed}-{count or 'all'}"


def run_torch(seed, count, folder) -> dict:
    """The same fit as a transformers user writes it."""
    torch = harness.training_torch()
    import transformers

    from tfxformer import samples

    split, folder = sentences(count), samples.minilm()
    torch.manual_seed(seed)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder, num_labels=2)
    start = time.perf_counter(), time.process_time()

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
    seconds = since(start)
    model.eval()
    with torch.inference_mode():
        test = encode(split.test_texts)
        chunks = torch.arange(len(split.test_texts)).split(128)
        logits = torch.cat([model(**{name: t[rows] for name, t in test.items()}).logits for rows in chunks])
    wanted = [split.labels.index(label) for label in split.test_labels]
    return seconds | {"right": {"float32": right(logits.argmax(-1).numpy(), wanted)}}


RUNS = {"torch": run_torch, "tfxformer": run_tfxformer, "pruned": run_pruned}  # the last needs the one before


def run_file(part, seed, count, folder) -> Path:
    """Where a run is kept."""
    return Path(folder) / f"{part}-seed{seed}-{count or 'all'}.json"


def run(part, seed, count, folder) -> dict:
    """One run in a fresh process, or its file where it is there already."""
    print(f"{part}, seed {seed}", file=sys.stderr, flush=True)
    return harness.kept(run_file(part, seed, count, folder), PACKAGES, RUNS[part], seed, count, folder)


def accuracy(answers: str) -> float:
    """The share of right answers."""
    return answers.count("1") / len(answers)


def summarize(runs: dict) -> dict:
    """Accuracies and seconds by part and model, the paired losses, and what they should be."""
    parts = {}
    for part, by_seed in runs.items():
        models = {
            name: [accuracy(result["right"][name]) for result in by_seed.values()]
            for name in next(iter(by_seed.values()))["right"]
        }
        parts[part] = {
            "accuracy_by_seed": models,
            "seeds": list(by_seed),
            "mean_accuracy": {name: statistics.mean(values) for name, values in models.items()},
            "seconds_by_seed": [result["seconds"] for result in by_seed.values()],
            "processor_seconds_by_seed": [result["processor_seconds"] for result in by_seed.values()],
        }
    ours = runs["tfxformer"]
    count = len(next(iter(ours.values()))["right"]["float32"])
    mean = parts["tfxformer"]["mean_accuracy"]["float32"]
    error = 100 * math.sqrt(mean * (1 - mean) / count)
    lost = {
        name: paired(ours, runs[part], name)
        for part in ("tfxformer", "pruned")
        for name in parts.get(part, {"mean_accuracy": ()})["mean_accuracy"]
        if name != "float32"
    }
    targets = {
        f"{name}_points_lost": {"found": lost[name]["mean"], "at_most": limit}
        for name, limit in MAY_LOSE.items()
        if name in lost
    }
    if "torch" in parts:
        behind = 100 * (parts["torch"]["mean_accuracy"]["float32"] - mean)
        targets["points_behind_torch"] = {"found": behind, "at_most": error}
        for name, key in (("times_as_fast_as_torch", "seconds"), ("by_processor_seconds", "processor_seconds")):
            ratios = [torch[key] / ours[seed][key] for seed, torch in runs["torch"].items()]
            targets[name] = {"found": statistics.median(ratios), "at_least": 1.0}
    return {
        "test_sentences": count,
        "standard_error_points": error,
        "parts": parts,
        "points_lost": lost,
        "targets": targets,
    }


def paired(dense: dict, small: dict, name: str) -> dict:
    """Points lost from each seed's float32 model to another on the same sentences: mean, each seed, its error."""
    lost, errors = [], []
    for seed, result in small.items():
        answers = (dense[seed]["right"]["float32"], result["right"][name])
        pairs = np.array([list(answer) for answer in answers]).astype(int)
        difference = 100.0 * (pairs[0] - pairs[1])
        lost.append(float(difference.mean()))
        errors.append(float(difference.std() / math.sqrt(len(difference))))
    return {"mean": statistics.mean(lost), "by_seed": lost, "standard_error_by_seed": errors}


def show(results: dict) -> None:
    """The table."""
    for part, found in results["parts"].items():
        seconds = ", ".join(f"{value:.0f}" for value in found["seconds_by_seed"])
        for name, values in found["accuracy_by_seed"].items():
            each = " ".join(f"{value:.4f}" for value in values)
            print(f"{part:10s} {name:12s} {statistics.mean(values):.4f}   seeds {each}")
        print(f"{part:10s} fit takes {seconds} s")
    print(f"standard error of an accuracy: {results['standard_error_points']:.2f} points")
    for name, target in results["targets"].items():
        limit = f"at most {target['at_most']:.2f}" if "at_most" in target else f"at least {target['at_least']}"
        print(f"{name}: {target['found']:.2f}, wanted {limit}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
    parser.add_argument("--parts", nargs="+", choices=RUNS, default=list(RUNS))
    parser.add_argument("--texts", type=int, help="train on that many sentences only, for a short try")
    parser.add_argument("--found", action="store_true", help="run nothing: sum up the runs that are there")
    parser.add_argument("--runs", default=harness.RESULTS / "quality-runs", help="folder of the single runs")
    options = parser.parse_args()

    runs = {part: {} for part in options.parts}
    for seed in options.seeds:  # the frameworks in turn, so that both see the same machine
        for part in options.parts:
            if options.found and not run_file(part, seed, options.texts, options.runs).exists():
                print(f"{part} seed {seed}: not run")
                continue
            runs[part][seed] = found = run(part, seed, options.texts, options.runs)
            shown = ", ".join(f"{name} {accuracy(answers):.4f}" for name, answers in found["right"].items())
            print(f"{part} seed {seed}: {found['seconds']:.0f} s; {shown}", flush=True)
    runs = {part: by_seed for part, by_seed in runs.items() if by_seed}
    if "tfxformer" not in runs:
        return
    results = {
        "what": "MiniLM-L6 on VADER movie snippets, 64 tokens, 3 epochs, float32",
        "command": harness.command(),
        "seeds": options.seeds,
        "training_texts": options.texts or "all",
        "machine": next(iter(runs["tfxformer"].values()))["machine"],
        **summarize(runs),
    }
    show(results)
    name = "quality" if options.texts is None else "quality-try"
    print(harness.write(name, results))


if __name__ == "__main__":
    main()
