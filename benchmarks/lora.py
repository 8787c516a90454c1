"""LoRA beside full fine-tuning of MiniLM-L6 on this CPU: a step of `fit`, the memory it takes, and the accuracy.

    python benchmarks/lora.py [--rounds 10] [--dtype mixed_bfloat16] [--seeds 0 1 2] [--sentences 1000]

"full" trains all weights, "lora" is `compression.LoRA()`: rank 8 on all Dense layers but the head, which is new and
trained whole. Steps and memory: batch 32, 128 tokens, AdamW with a global clip, dropout 0.1, each in a process of its
own, in the loop of `fit`. Memory is the highest anonymous memory (`RssAnon`) of a process that makes the model and
trains eight batches, looked at every 5 ms. Accuracy: of the VADER movie snippets as benchmarks/quality.py has them the
first `--sentences` training sentences and all test sentences (48 tokens, 3 epochs, batch 32, the same schedule); full
fine-tuning at 5e-5, LoRA at 1e-3. Each measurement is a file under --runs, and is not repeated where it is there.
"""

from __future__ import annotations

import argparse
import statistics
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import harness
import numpy as np
import quality
from loading import anonymous_bytes
from training_features import in_steps

BATCH, LENGTH, MEMORY_STEPS, INTERVAL = 32, 128, 8, 0.005
SENTENCE_LENGTH = 48  # tokens, of the accuracy
FULL = "full"
RATES = {FULL: quality.RATE, "lora": 1e-3}  # of the methods
PACKAGES = ["tensorflow", "keras"]
MAY_LOSE, MAY_TRAIN = 1.0, 0.02  # points of accuracy, and share of the parameters


def adapt(model, method):
    """Gives a task the method's adapter; returns its trainable parameters and those of all."""
    from tfxformer import compression

    if method != FULL:
        compression.Adapters(model).add("benchmark", compression.LoRA())
    total = compression.trainable_table(model).total
    return {"trainable": total.trainable, "parameters": total.parameters, "share": total.share}


def prepared(method, dtype):
    """A classifier of the MiniLM-L6 shape ready for `fit`, and a batch for ever."""
    import tensorflow as tf

    import tfxformer
    from tfxformer import tasks, training

    model = tasks.TextClassifier(tfxformer.build("minilm-l6", dtype=dtype), labels=["0", "1"])
    adapt(model, method)
    model.compile(training.AdamW(5e-5, global_clipnorm=1.0))
    ids = np.random.default_rng(0).integers(0, 30000, (BATCH, LENGTH), dtype="int32")
    batch = {"token_ids": ids, "padding_mask": np.ones_like(ids), "segment_ids": np.zeros_like(ids)}
    return model, tf.data.Dataset.from_tensors((batch, ids[:, 0] % 2)).repeat()


@dataclass(frozen=True)
class Peer:
    """A method, ready to be sent to a process of its own."""

    method: str
    dtype: str

    @property
    def __name__(self):
        return self.method

    def __call__(self):
        model, data = prepared(self.method, self.dtype)
        return in_steps(lambda gate: model.fit(data, steps_per_epoch=10**6, shuffle=False, verbose=0, callbacks=[gate]))


def peak(method, dtype) -> dict:
    """The highest anonymous memory of this process while it makes a model and trains it."""
    highest, ended = [0], threading.Event()

    def watch():
        while not ended.is_set():
            highest[0] = max(highest[0], anonymous_bytes("self"))
            time.sleep(INTERVAL)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        model, data = prepared(method, dtype)
        model.fit(data, steps_per_epoch=MEMORY_STEPS, shuffle=False, verbose=0)
    finally:
        ended.set()
        watcher.join()
    return {"peak_bytes": highest[0]}


def accuracy(method, dtype, seed, count) -> dict:
    """Fine-tunes the real MiniLM-L6 and tests it."""
    import keras

    from tfxformer import samples, tasks

    split = quality.sentences(None)
    texts, labels = split.train_texts[:count], split.train_labels[:count]
    keras.utils.set_random_seed(seed)
    model = tasks.TextClassifier.from_pretrained(
        samples.minilm(), labels=split.labels, sequence_length=SENTENCE_LENGTH, dtype=dtype
    )
    counted = adapt(model, method)
    model.compile(
        learning_rate=RATES[method],
        warmup=quality.WARMUP,
        weight_decay=quality.DECAY,
        global_clipnorm=quality.CLIP,
    )
    start = time.perf_counter(), time.process_time()
    model.fit(texts, labels, batch_size=quality.BATCH, epochs=quality.EPOCHS, verbose=2)
    seconds = quality.since(start)
    wanted = np.array([split.labels.index(label) for label in split.test_labels])
    predicted = model.predict(split.test_texts, batch_size=128, verbose=0).argmax(axis=1)
    return {**counted, **seconds, "accuracy": float((predicted == wanted).mean()), "test_sentences": len(wanted)}


def beside(times, full) -> dict:
    """Seconds of a step, and how many times those of full fine-tuning in the same round."""
    ratios = [harness.Time(*(a / b for a, b in zip(*pair, strict=True))) for pair in zip(times, full, strict=True)]
    return {
        "seconds": harness.spread([time.clock for time in times]),
        "times_full": harness.spread([ratio.clock for ratio in ratios]),
        "times_full_by_processor": harness.spread([ratio.processor for ratio in ratios]),
    }


def measure_accuracy(dtype, seeds, count, folder) -> dict:
    """Each method's accuracy by seed, and the points it is above full fine-tuning."""
    runs = {method: [] for method in RATES}
    for seed in seeds:
        for method, found in runs.items():
            path = folder / f"{method}-seed{seed}-{count}-{dtype}.json"
            found.append(harness.kept(path, PACKAGES, accuracy, method, dtype, seed, count))
    means = {method: statistics.mean(run["accuracy"] for run in found) for method, found in runs.items()}
    points = {method: 100 * (mean - means[FULL]) for method, mean in means.items()}
    return {"runs": runs, "mean_accuracy": means, "points_above_full": points}


def race(dtype, rounds) -> dict:
    """Each method's step beside that of full fine-tuning."""
    times = harness.race({method: Peer(method, dtype) for method in RATES}, rounds)
    return {method: beside(times[method], times[FULL]) for method in RATES}


def measure_steps(dtype, rounds, folder) -> dict:
    """The steps, and the memory that each method takes."""
    steps = harness.kept(folder / f"steps-{dtype}.json", PACKAGES, race, dtype, rounds)
    memory = {
        method: harness.kept(folder / f"memory-{method}-{dtype}.json", PACKAGES, peak, method, dtype)
        for method in RATES
    }
    return {
        "steps": {method: steps[method] for method in RATES},
        "peak_bytes": {method: found["peak_bytes"] for method, found in memory.items()},
    }


def targets(results) -> dict:
    """What LoRA should, and what was found."""
    lora = results["accuracy"]["runs"]["lora"][0]
    return {
        "points_above_full": {"found": results["accuracy"]["points_above_full"]["lora"], "at_least": -MAY_LOSE},
        "share_trained": {"found": lora["share"], "at_most": MAY_TRAIN},
        "times_full_step": {"found": results["steps"]["lora"]["times_full"]["median"], "below": 1.0},
        "times_full_memory": {"found": results["peak_bytes"]["lora"] / results["peak_bytes"][FULL], "below": 1.0},
    }


def show(results):
    """Prints what was measured."""
    peaks, accuracy = results["peak_bytes"], results["accuracy"]
    for method, found in results["steps"].items():
        print(
            f"{method:5s} {found['seconds']['median'] * 1e3:7.1f} ms, {found['times_full']['median']:.3f} times full; "
            f"peak {peaks[method] / 1e6:.0f} MB, {peaks[method] / peaks[FULL]:.3f} times full; "
            f"{accuracy['runs'][method][0]['share']:.2%} trained, accuracy {accuracy['mean_accuracy'][method]:.4f} "
            f"({accuracy['points_above_full'][method]:+.2f} points)"
        )
    for name, target in results["targets"].items():
        print(name, target)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10, help="interleaved rounds (default: %(default)s)")
    parser.add_argument("--dtype", default="mixed_bfloat16", help="dtype policy (default: %(default)s)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of the accuracy")
    parser.add_argument("--runs", type=Path, default=harness.RESULTS / "lora-runs", help="where measurements are kept")
    parser.add_argument(
        "--sentences", type=int, default=1000, help="training sentences of the accuracy (default: %(default)s)"
    )
    arguments = parser.parse_args()
    results = {
        "command": harness.command(),
        "what": f"MiniLM-L6, {arguments.dtype}",
        "rounds": arguments.rounds,
        "sentences": arguments.sentences,
        "sentence_length": SENTENCE_LENGTH,
        "machine": harness.machine(PACKAGES),
    }
    results |= measure_steps(arguments.dtype, arguments.rounds, arguments.runs)
    results["accuracy"] = measure_accuracy(arguments.dtype, arguments.seeds, arguments.sentences, arguments.runs)
    results["targets"] = targets(results)
    show(results)
    print(harness.write(f"lora-{arguments.dtype}", results))


if __name__ == "__main__":
    main()
