"""MiniLM-L6 with half of its heads and half of its feed-forward neurons: how much faster.

    python benchmarks/structured.py

LiteRT files of the real shape (6 layers, 384 wide, 12 heads, 1536 neurons) beside those with 6 heads and 768 neurons,
which `compression.remove_heads` and `remove_neurons` make of it; 128 tokens without padding, batch 1, each file in a
process of its own, driven in turn. The classifier's last layer computes the first token alone, the embedder computes
all tokens. Weights are random: they do not change the time. How accurate such a model is after it has learned from the
whole one is measured by applications/shrink_sentiment.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

import harness
import numpy as np

HEADS, NEURONS = 6, 768  # of 12 and 1536
LENGTH, CALLS = 128, 60
TASKS, MODES = ("classifier", "embedder"), ("float32", "dynamic_int8")
PACKAGES = ["tensorflow", "keras", "ai-edge-litert"]
AT_LEAST_FASTER = 1.7  # times


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


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15, help="interleaved rounds (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="of LiteRT (default: %(default)s)")
    parser.add_argument("--files", help="folder to keep the files in")
    options = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # of the processes to come
    machine = harness.machine(PACKAGES)  # the load before ours
    with tempfile.TemporaryDirectory() as temporary:
        found = measure_latency(options.files or temporary, options)
    results = {
        "what": "MiniLM-L6 with half of its heads and feed-forward neurons",
        "command": harness.command(options.files),
        "machine": machine,
        **found,
    }
    print(machine["processor"])
    for name, target in results["targets"].items():
        print(f"{name}: {target['found']:.2f}, wanted at least {target['at_least']}")
    print(harness.write("structured", results))


if __name__ == "__main__":
    main()
