"""Filling BERT-base's variables from a safetensors file: seconds and memory, ours beside KerasHub and torch.

    python benchmarks/loading.py --rounds 12

Each measurement is a fresh process, started in turn. It says when it had imported its libraries (and run one
operator), when the model was built, and when its variables were filled; meanwhile this process reads its
anonymous memory (`RssAnon`: what it has allocated, without mapped files) every 2 ms. torch builds while it
fills, so it has no state in between. The file lies in the page cache. Linux only.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import tempfile
import time
from pathlib import Path

import harness
import numpy as np

INTERVAL = 0.002  # seconds between two looks at the memory
IMPORTED, BUILT, FILLED, READ = "imported", "built", "filled", "read"
TARGET_SECONDS, TARGET_MEMORY = 0.5, 1.35


def write_checkpoint(folder):
    """A BERT-base of random weights: config.json and one float32 file."""
    import tfxformer
    from tfxformer.checkpoints.pretrained import save_pretrained

    model = tfxformer.build("bert-base")
    save_pretrained(folder, model, model.config)


def tfxformer_peer(folder, mark):
    """Loads as `tfxformer.from_pretrained` does; returns the weights."""
    import keras

    from tfxformer.checkpoints.pretrained import load_model
    from tfxformer.models import Encoder

    keras.ops.zeros(1)  # TensorFlow starts its runtime with the first operator
    mark(IMPORTED)

    def make(config, reference):
        model = Encoder(config, reference_config=reference)
        mark(BUILT)
        return model

    model, _ = load_model(Path(folder), make)
    mark(FILLED)
    return [np.asarray(variable.value) for variable in model.trainable_variables]


def keras_hub_peer(folder, mark):
    import keras
    import keras_hub
    from keras_hub.src.utils.transformers import convert_bert

    keras.ops.zeros(1)
    mark(IMPORTED)
    convert_weights = convert_bert.convert_weights

    def marked(*arguments):
        mark(BUILT)
        return convert_weights(*arguments)

    convert_bert.convert_weights = marked
    model = keras_hub.models.BertBackbone.from_preset(folder)
    mark(FILLED)
    return [np.asarray(variable.value) for variable in model.trainable_variables]


def torch_peer(folder, mark):
    import torch
    import transformers

    transformers.utils.logging.disable_progress_bar()
    model_class = transformers.BertModel  # transformers imports a model's file with its name
    torch.zeros(1)
    mark(IMPORTED)
    mark(BUILT)
    model = model_class.from_pretrained(folder)
    mark(FILLED)
    return [parameter.detach().numpy() for parameter in model.parameters()]


PEERS = {"tfxformer": tfxformer_peer, "keras-hub": keras_hub_peer, "torch": torch_peer}


def anonymous_bytes(process_id) -> int:
    """What a process has allocated and touched, mapped files not counted; 0 if it has ended."""
    try:
        status = Path(f"/proc/{process_id}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return next((int(line.split()[1]) * 1024 for line in status.splitlines() if "RssAnon" in line), 0)


def _load(peer, folder, connection):
    marks = {"started": (time.perf_counter(), anonymous_bytes("self"))}

    def mark(name):
        marks[name] = (time.perf_counter(), anonymous_bytes("self"))

    weights = peer(folder, mark)
    total = float(sum(weight.sum(dtype=np.float64) for weight in weights))
    mark(READ)
    connection.send((marks, total, sum(weight.nbytes for weight in weights)))


def measure(peer, folder) -> dict:
    """One load in a fresh process: seconds of its parts, memory at its peaks."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_load, args=(peer, folder, theirs))
    process.start()
    theirs.close()
    samples = []
    while not ours.poll(INTERVAL):  # the clock is the machine's: both processes read the same
        samples.append((time.perf_counter(), anonymous_bytes(process.pid)))
    try:
        marks, total, weight_bytes = ours.recv()
    except EOFError:
        raise RuntimeError(f"{peer.__name__} failed; see its error above.") from None
    process.join()

    def seconds(start, end):
        return marks[end][0] - marks[start][0]

    def added(start, end):
        first, last = marks[start], marks[end]
        return max([last[1]] + [size for when, size in samples if first[0] <= when <= last[0]]) - first[1]

    return {
        "import_seconds": seconds("started", IMPORTED),
        "build_seconds": seconds(IMPORTED, BUILT),
        "fill_seconds": seconds(BUILT, FILLED),
        "build_and_fill_seconds": seconds(IMPORTED, FILLED),
        "first_read_seconds": seconds(FILLED, READ),
        "fill_bytes": added(BUILT, FILLED),
        "build_and_fill_bytes": added(IMPORTED, FILLED),
        "weight_bytes": weight_bytes,
        "sum_of_weights": total,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=12, help="interleaved rounds (default: %(default)s)")
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=list(PEERS))
    arguments = parser.parse_args()
    if not Path("/proc/self/status").exists():
        parser.exit(1, "This benchmark reads /proc/<process>/status, which only Linux has.\n")

    machine = harness.machine(["tensorflow", "keras", "keras-hub", "torch", "transformers"])
    with tempfile.TemporaryDirectory() as folder:
        writer = multiprocessing.get_context("spawn").Process(target=write_checkpoint, args=(folder,))
        writer.start()
        writer.join()
        file_bytes = len((Path(folder) / "model.safetensors").read_bytes())
        runs = {name: [] for name in arguments.peers}
        for turn in range(arguments.rounds):
            for name in list(runs)[:: 1 if turn % 2 else -1]:
                runs[name].append(measure(PEERS[name], folder))
                last = runs[name][-1]
                print(
                    f"{turn + 1:3d} {name:10s} {last['fill_seconds']:.3f} s  "
                    f"+{last['fill_bytes'] / file_bytes:.2f} x the file",
                    file=sys.stderr,
                )
    results = summarize(runs, file_bytes)
    results = {
        "what": "BERT-base (109 million float32 weights) from one safetensors file into a model",
        "command": harness.command(),
        "rounds": arguments.rounds,
        "machine": machine,
        **results,
    }
    show(results)
    print(harness.write("loading", results))


def summarize(runs: dict, file_bytes: int) -> dict:
    """Medians and quartiles of each peer's runs; memory as multiples of the file's size."""
    peers = {}
    sums = {}
    for name, measured in runs.items():
        times = [key for key in measured[0] if key.endswith("_seconds")]
        peers[name] = {key: harness.spread([run[key] for run in measured]) for key in times}
        for key in ("fill", "build_and_fill"):
            values = [run[f"{key}_bytes"] / file_bytes for run in measured]
            peers[name][f"{key}_memory_over_file"] = {**harness.spread(values), "highest": max(values)}
        sums[name] = measured[0]["sum_of_weights"]
    wanted = next(iter(sums.values()))
    for name, found in sums.items():
        if not np.isclose(found, wanted, rtol=1e-9):
            raise ValueError(f"The weights of {name} sum to {found}, those of {next(iter(sums))} to {wanted}.")
    results = {"file_bytes": file_bytes, "peers": peers}
    if "tfxformer" in peers:
        ours = peers["tfxformer"]
        results["targets"] = {
            "fill_seconds": {"found": ours["fill_seconds"]["median"], "below": TARGET_SECONDS},
            "fill_memory_over_file": {
                "found": ours["fill_memory_over_file"]["median"],
                "at_most": TARGET_MEMORY,
            },
        }
    return results


def show(results: dict) -> None:
    """The table."""
    print(f"{results['machine']['processor']}; the file has {results['file_bytes'] / 1e6:.0f} MB")
    print(f"{'':10s} import s  build s   fill s (quartiles)   memory of the fill, of build and fill (x file)")
    for name, peer in results["peers"].items():
        fill = peer["fill_seconds"]
        print(
            f"{name:10s} {peer['import_seconds']['median']:8.2f} {peer['build_seconds']['median']:8.2f} "
            f"{fill['median']:8.3f} ({fill['low_quartile']:.3f} to {fill['high_quartile']:.3f})"
            f"   {peer['fill_memory_over_file']['median']:.2f}"
            f"   {peer['build_and_fill_memory_over_file']['median']:.2f}"
        )


if __name__ == "__main__":
    main()
