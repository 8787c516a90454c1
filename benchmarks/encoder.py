"""One encoder on this CPU under six runtimes: LiteRT files of ours, onnxruntime, OpenVINO, torch, KerasHub.

    python benchmarks/encoder.py --rounds 15

The real MiniLM-L6 (6 layers, 384 wide) with a head for two labels, 128 tokens (`--lengths`) without padding, batch 1
and 32, two threads each. Two models: "classifier" returns logits, "encoder" the last layer at every token. In the
classifier our last layer computes the first token alone, which is all that the head reads (the results are
equal); the peers run the graph that their own tools write. In the encoder all compute the same.

A batch of 32 our runtime answers text by text, in an interpreter of one thread for each core, as `LiteRTModel.predict`
does; beside it stand "one batch" (a file of that shape) and OpenVINO's throughput mode ("streams").

Every runtime lives in a process of its own and is driven in turn. None takes part whose outputs differ from
torch's by more than its precision explains; the differences are in the results.
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import os
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import harness
from peers import files, reviews, runtimes

CALLS = {1: 60, 32: 4}  # of one measurement at 128 tokens: a third of a second
# int8 on the classifier, by batch: how many times faster than this peer we want to be.
TARGETS = {1: {"onnxruntime int8": 1.7, "openvino int8": 1.5}, 32: {"openvino int8": 1.2}}
PACKAGES = [
    "tensorflow",
    "keras",
    "ai-edge-litert",
    "keras-hub",
    "torch",
    "transformers",
    "onnx",
    "onnxruntime",
    "openvino",
    "nncf",
]


def write_files(folder, length) -> None:
    """Runs the writers for texts of `length` tokens, each in a process of its own, whose memory ends with it."""
    complete = Path(folder) / "complete"
    if complete.exists():
        return
    Path(folder).mkdir(parents=True, exist_ok=True)
    for writer, *arguments in ((files.write_checkpoint, length), *((writer,) for writer in files.WRITERS.values())):
        print(writer.__name__, length, file=sys.stderr, flush=True)
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            pool.submit(writer, folder, *arguments).result()
    complete.touch()


def race(folder, model, batch, options) -> dict:
    """All runtimes on one model, batch size and length: times, ratios, distances from torch."""
    length = files.length(folder)
    print(f"{model}, batch {batch}, {length} tokens", file=sys.stderr, flush=True)
    names = [name for name in options.runtimes if batch > 1 or not runtimes.RUNTIMES[name].batches_only]
    peers = {name: runtimes.Peer(name, folder, model, batch, options.threads) for name in names}
    times = harness.race(peers, options.rounds, max(1, CALLS[batch] * 128 // length), warmups=3)
    summary = harness.summary(times, runtimes.OURS)
    for name, result in summary.items():
        result["least_seconds"] = min(time.clock for time in times[name])
        result["relative_error"] = files.read_error(folder, name)
    return {"model": model, "batch": batch, "length": length, "runtimes": summary}


def race_reviews(folder, options) -> dict:
    """Reviews of mixed lengths by the ways of `reviews.ROADS`: times, texts a second."""
    if not (folder / reviews.SEVERAL).exists():
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            pool.submit(reviews.write, folder).result()
    roads = {name: reviews.Road(name, folder, options.texts) for name in reviews.ROADS}
    summary = harness.summary(harness.race(roads, options.rounds, warmups=1), reviews.OURS)
    for result in summary.values():
        result["texts_per_second"] = options.texts / result["seconds"]["median"]
    return {"texts": options.texts, "lengths": list(reviews.LENGTHS), "roads": summary}


def show_reviews(result: dict) -> None:
    """Texts a second by road."""
    print(f"\n{result['texts']} reviews of mixed lengths")
    for name, one in result["roads"].items():
        times = one["ours_is_faster"]["median"]
        print(f"{name:32s} {one['texts_per_second']:7.0f} texts/s; {reviews.OURS} is {times:.2f}x as fast")


def show(result: dict) -> None:
    """The table of one race."""
    print(f"\n{result['model']}, batch {result['batch']}, {result['length']} tokens")
    print(f"{'':20s}     ms (quartiles)      least   {runtimes.OURS} is   relative error")
    for name, one in sorted(result["runtimes"].items(), key=lambda item: item[1]["seconds"]["median"]):
        times = {key: value * 1e3 for key, value in one["seconds"].items()}
        ratio = one["ours_is_faster"]
        print(
            f"{name:20s} {times['median']:7.2f} ({times['low_quartile']:.2f} to {times['high_quartile']:.2f})"
            f" {one['least_seconds'] * 1e3:7.2f}   {ratio['median']:.2f}x ({ratio['low_quartile']:.2f} to "
            f"{ratio['high_quartile']:.2f})   {one['relative_error']:.1e}"
        )


def targets(races: list) -> list:
    """What the classifier should reach at each length and batch, and what it reached."""
    return [
        {**{key: result[key] for key in ("batch", "length")}, "peer": name, "found": found, "at_least": wanted}
        for result in races
        if result["model"] == "classifier"
        for name, wanted in TARGETS[result["batch"]].items()
        if name in result["runtimes"]
        for found in [result["runtimes"][name]["ours_is_faster"]["median"]]
    ]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15, help="interleaved rounds (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="of each runtime (default: %(default)s)")
    parser.add_argument("--models", nargs="+", choices=files.MODELS, default=list(files.MODELS))
    parser.add_argument("--batches", nargs="+", type=int, choices=files.BATCHES, default=list(files.BATCHES))
    parser.add_argument("--lengths", nargs="+", type=int, default=[128], help="tokens of a text (default: 128)")
    parser.add_argument("--texts", type=int, default=300, help="reviews of mixed lengths; 0 for none")
    parser.add_argument("--runtimes", nargs="+", choices=runtimes.RUNTIMES, default=list(runtimes.RUNTIMES))
    parser.add_argument("--files", help="folder to keep the models in, and to take them from if it is there")
    options = parser.parse_args()
    if runtimes.OURS not in options.runtimes:
        parser.error(f"the ratios are those of {runtimes.OURS!r}: name it among the runtimes")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # of the processes to come

    with tempfile.TemporaryDirectory() as temporary:
        folders = {length: Path(options.files or temporary) / str(length) for length in options.lengths}
        for length, folder in folders.items():
            write_files(folder, length)
        machine = harness.machine(PACKAGES)  # the load before ours
        races = []
        for model, folder, batch in itertools.product(options.models, folders.values(), options.batches):
            races.append(race(folder, model, batch, options))
            show(races[-1])
        mixed = race_reviews(folders[128], options) if options.texts and 128 in folders else None
        sizes = {f"{length}/{name}": size for length in folders for name, size in files.sizes(folders[length]).items()}
    results = {
        "what": "MiniLM-L6 encoder inference, texts without padding, each runtime in its own process",
        "command": harness.command(options.files),
        "rounds": options.rounds,
        "threads": options.threads,
        "machine": machine,
        "file_bytes": sizes,
        "targets": targets(races),
        "races": races,
        "reviews": mixed,
    }
    if mixed:
        show_reviews(mixed)
    print(f"\n{results['machine']['processor']}")
    for target in results["targets"]:
        where = f"batch {target['batch']}, {target['length']} tokens"
        print(f"{where}: {target['found']:.2f}x as fast as {target['peer']}, wanted {target['at_least']}x")
    print(harness.write("encoder", results))


if __name__ == "__main__":
    main()
