"""MiniLM-L6 with half of its heads and half of its feed-forward neurons: how much faster, and how accurate.

    python benchmarks/structured.py

Latency: LiteRT files of the real shape (6 layers, 384 wide, 12 heads, 1536 neurons) beside those with 6 heads and 768
neurons, which `compression.remove_heads` and `remove_neurons` make of it; 128 tokens without padding, batch 1, each
file in a process of its own, driven in turn. The classifier's last layer computes the first token alone, the embedder
computes all tokens. Weights are random: they do not change the time.

Accuracy: the VADER movie snippets (7,336 sentences to train, 1,835 to test), 48 tokens. The model is fine-tuned as
applications/sentiment does it (2 epochs, batch 32, AdamW at 1e-4), loses half of its heads and neurons by the
first-order Taylor importance on 256 training sentences, in two rounds, and recovers in a further fit after each (at
2e-4, mixed bfloat16, 3 epochs in all), in which it learns the probabilities that the dense model gives the training
sentences (Hinton et al., 2015, arXiv:1503.02531). The test sentences are looked at in the end.
"""

from __future__ import annotations

import argparse
import math
import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import harness
import numpy as np

HEADS, NEURONS = 6, 768  # of 12 and 1536
LENGTH, CALLS = 128, 60
TASKS, MODES = ("classifier", "embedder"), ("float32", "dynamic_int8")
TEXT_LENGTH, BATCH = 48, 32
EPOCHS, RATE = 2, 1e-4
ROUND_EPOCHS, RECOVERY_RATE = (1, 2), 2e-4
TAYLOR_TEXTS = 256
PACKAGES = ["tensorflow", "keras", "ai-edge-litert"]
AT_LEAST_FASTER, MAY_LOSE = 1.7, 1.5  # times, points


# ---- latency --------------------------------------------------------------------------------------------------


def write_files(folder) -> dict:
    """The files of both tasks, dense and small, in each mode; returns their sizes in bytes."""
    import keras

    import tfxformer
    from tfxformer import compression, export, tasks

    keras.utils.set_random_seed(0)
    made = {
        "classifier": lambda: tasks.TextClassifier(tfxformer.build("minilm-l6"), labels=["negative", "positive"]),
        "embedder": lambda: tasks.TextEmbedder(tfxformer.build("minilm-l6")),
    }
    sizes = {}
    for task in TASKS:
        dense = made[task]()
        small = compression.remove_neurons(compression.remove_heads(dense, HEADS), NEURONS)
        for name, model in (("dense", dense), ("small", small)):
            for mode in MODES:
                path = Path(folder) / f"{task}-{name}-{mode}.tflite"
                report = export.export_litert(model, path, quantization=mode, sequence_length=LENGTH)
                sizes[path.stem] = report.bytes
    return sizes


@dataclass(frozen=True)
class Peer:
    """A file, ready to be sent to a process of its own."""

    path: str
    threads: int

    @property
    def __name__(self):
        return Path(self.path).stem

    def __call__(self):
        from tfxformer import export

        model = export.LiteRTModel(self.path, num_threads=self.threads)
        (name,) = model.signatures
        ids = np.random.default_rng(0).integers(1000, 30000, (1, LENGTH), dtype="int32")
        batch = {"token_ids": ids, "padding_mask": np.ones_like(ids), "segment_ids": np.zeros_like(ids)}
        return lambda: model.run(name, batch)


def measure_latency(folder, options) -> dict:
    """Each task and mode: the dense file beside the small one."""
    sizes, races = write_files(folder), []
    for task in TASKS:
        for mode in MODES:
            files = {name: Path(folder) / f"{task}-{name}-{mode}.tflite" for name in ("small", "dense")}
            peers = {name: Peer(str(path), options.threads) for name, path in files.items()}
            found = harness.summary(harness.race(peers, options.rounds, CALLS, warmups=5), "small")
            found["dense"]["bytes"], found["small"]["bytes"] = (sizes[files[name].stem] for name in ("dense", "small"))
            races.append({"task": task, "mode": mode, "length": LENGTH, "models": found})
            ratio = found["dense"]["ours_is_faster"]
            print(
                f"{task:10s} {mode:12s} dense {found['dense']['seconds']['median'] * 1e3:6.2f} ms, small "
                f"{found['small']['seconds']['median'] * 1e3:6.2f} ms, {ratio['median']:.2f}x as fast "
                f"({ratio['low_quartile']:.2f} to {ratio['high_quartile']:.2f})",
                flush=True,
            )
    targets = {
        f"{race['task']} {race['mode']}": {
            "found": race["models"]["dense"]["ours_is_faster"]["median"],
            "at_least": AT_LEAST_FASTER,
        }
        for race in races
    }
    return {"rounds": options.rounds, "threads": options.threads, "races": races, "targets": targets}


# ---- accuracy -------------------------------------------------------------------------------------------------


def fine_tuned(split, seed, folder):
    """The dense classifier, fine-tuned and kept in `folder`, or taken from it if it is there."""
    import keras

    from tfxformer import samples, tasks

    saved = Path(folder) / f"sentiment-seed{seed}"
    load = {"sequence_length": TEXT_LENGTH, "dtype": "mixed_bfloat16"}
    if not saved.exists():
        keras.utils.set_random_seed(seed)
        model = tasks.TextClassifier.from_pretrained(samples.minilm(), labels=split.labels, **load)
        model.compile(learning_rate=RATE)
        model.fit(split.train_texts, split.train_labels, batch_size=BATCH, epochs=EPOCHS, verbose=2)
        model.save_pretrained(saved)
    return tasks.TextClassifier.from_pretrained(saved, **load)


def measure_accuracy(folder, options) -> dict:
    """Fine-tunes, removes, recovers; the accuracy before and after."""
    import keras
    import tensorflow as tf

    from tfxformer import compression, samples, training

    seed, split, start = options.seed, samples.vader_movies(), time.perf_counter()
    wanted = np.array([split.labels.index(label) for label in split.test_labels])
    dense = fine_tuned(split, seed, folder)
    tuned = time.perf_counter()
    keras.utils.set_random_seed(seed)
    answers = dense.predict(split.train_texts, batch_size=128, verbose=0)
    batch = dense.encode(split.train_texts)
    some = np.random.default_rng(seed).permutation(len(answers))[:TAYLOR_TEXTS]
    data = ([split.train_texts[i] for i in some], [split.train_labels[i] for i in some])
    epochs = iter(ROUND_EPOCHS)

    def recover(model):
        rounds = next(epochs)
        steps = rounds * math.ceil(len(answers) / BATCH)
        rows = tf.data.Dataset.from_tensor_slices((batch, answers)).shuffle(len(answers), seed=seed).batch(BATCH)
        optimizer = training.adamw(steps, RECOVERY_RATE, 0.1, 0.01, 1.0)
        model.compile(optimizer, loss=keras.losses.CategoricalCrossentropy(from_logits=True), metrics=[])
        model.fit(rows, epochs=rounds, verbose=2)
        model.compile()  # the next round's importances are those of the labels

    def right(model):
        return model.predict(split.test_texts, batch_size=128, verbose=0).argmax(axis=1) == wanted

    sizes = {"heads": HEADS, "neurons": NEURONS, "data": data}
    small = compression.shrink_gradually(dense, recover, rounds=len(ROUND_EPOCHS), **sizes)
    found = {"dense": right(dense), "recovered": right(small)}
    lost = 100.0 * (found["dense"].astype(float) - found["recovered"])
    return {
        "seed": seed,
        "accuracy": {name: float(answer.mean()) for name, answer in found.items()},
        "points_lost": float(lost.mean()),
        "standard_error": float(lost.std() / math.sqrt(len(lost))),
        "parameters": {"dense": dense.count_params(), "recovered": small.count_params()},
        "seconds": {"fine-tuning": tuned - start, "removing and recovering": time.perf_counter() - tuned},
        "test_sentences": len(wanted),
        "targets": {"points lost": {"found": float(lost.mean()), "at_most": MAY_LOSE}},
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--rounds", type=int, default=15, help="interleaved rounds (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="of LiteRT (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the accuracy (default: %(default)s)")
    parser.add_argument("--files", help="folder to keep the fine-tuned model in, and to take it from if it is there")
    options = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # of the processes to come
    for part in options.parts:
        machine = harness.machine(PACKAGES)  # the load before ours
        with tempfile.TemporaryDirectory() as temporary:
            found = PARTS[part](options.files or temporary, options)
        results = {
            "what": "MiniLM-L6 with half of its heads and feed-forward neurons",
            "command": harness.command(options.files),
            "machine": machine,
            **found,
        }
        print(machine["processor"])
        for name, target in results["targets"].items():
            limit = f"at most {target['at_most']}" if "at_most" in target else f"at least {target['at_least']}"
            print(f"{name}: {target['found']:.2f}, wanted {limit}")
        print(harness.write(f"structured-{part}", results))


PARTS = {"latency": measure_latency, "accuracy": measure_accuracy}

if __name__ == "__main__":
    main()
