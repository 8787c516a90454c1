"""One LiteRT file and several threads: a pool of interpreters (ours) beside a lock around one.

    python benchmarks/threads.py

MiniLM answers texts of 5 to 25 words, one a call, as float32 and as dynamic int8; a decoder (SmolLM2's width, six
layers, random weights) writes tokens, several texts taking turns on one model (ours) beside a model of one thread for
each. Every road runs in fresh processes: texts or tokens a second by number of calling threads, the processor's
milliseconds for each, which other work on the machine disturbs less, and the memory allocated (RssAnon). Then 8 threads
ask 1,000 texts each, in orders of their own, and each answer is compared with the one of a single thread. Linux only.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import tempfile
import threading
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import harness
import numpy as np
from loading import anonymous_bytes

LENGTH = 32
THREADS = (1, 2, 4, 8)
KEYS = tuple(map(str, THREADS))
ENCODERS = ("float32", "dynamic_int8")
WRONG_TEXTS = 1000  # of each of 8 threads
CACHE, TOKENS = 256, 16


def write_files(folder: Path) -> None:
    """Exports what is not in the folder yet."""
    import tfxformer
    from tfxformer import export, samples, tasks

    folder.mkdir(parents=True, exist_ok=True)
    for mode in ENCODERS:
        path = folder / f"minilm-{mode}.tflite"
        if not path.exists():
            task = tasks.TextEmbedder.from_pretrained(samples.minilm())
            export.export_litert(task, path, mode, sequence_length=LENGTH)
    path = folder / "decoder-dynamic_int8.tflite"
    if not path.exists():
        sizes = {"vocabulary_size": 8192, "decoder__num_layers": 6}
        model = tasks.CausalLM(tfxformer.build("smollm2-135m", **sizes))
        export.export_litert(model, path, "dynamic_int8", cache_length=CACHE, prefill_lengths=(16,))


def sentences(count: int) -> list[str]:
    """Random texts of words that are in the vocabulary of BERT."""
    words = "the of a river market engine team court music paper winter city light story school water answer".split()  # noqa: SIM905
    random = np.random.default_rng(0)
    return [" ".join(random.choice(words, random.integers(5, 26))) for _ in range(count)]


def pool(path):
    """Ours: a function of one text."""
    from tfxformer.export import LiteRTModel

    model = LiteRTModel(path)
    return lambda text: model.predict([text])[0]


def lock(path):
    """One interpreter with all its threads, one caller at a time."""
    answer, waiting = pool(path), threading.Lock()

    def locked(text):
        with waiting:
            return answer(text)

    return locked


def turns(path):
    """Ours: a function of a prompt's ids, on one model for all texts."""
    from tfxformer.export import LiteRTGenerator

    model = LiteRTGenerator(path)
    return lambda ids: model.generate_ids(ids, TOKENS)


def models(path):
    """A model with one thread for each caller."""
    from tfxformer.export import LiteRTGenerator

    own = threading.local()

    def answer(ids):
        if not hasattr(own, "model"):
            own.model = LiteRTGenerator(path, num_threads=1)
        return own.model.generate_ids(ids, TOKENS)

    return answer


def rates(road, path, jobs: list) -> dict:
    """(answers a second, processor seconds of an answer) by number of threads, and the bytes allocated."""
    before = anonymous_bytes("self")
    answer, found = road(path), {}
    for count in THREADS:
        with ThreadPoolExecutor(count) as threads:
            list(threads.map(answer, jobs[: 2 * count]))  # what is made for as many is made
            start, processor = time.perf_counter(), time.process_time()
            list(threads.map(answer, jobs))
            seconds, processor = time.perf_counter() - start, time.process_time() - processor
            found[str(count)] = len(jobs) / seconds, processor / len(jobs)
    return {"by_threads": found, "added_bytes": anonymous_bytes("self") - before}


def wrong(path) -> int:
    """How many of 8 x 1,000 answers are not to the bit those of a single thread."""
    answer, texts = pool(path), sentences(WRONG_TEXTS)
    wanted = [answer(text) for text in texts]

    def differing(thread):
        order = np.random.default_rng(thread).permutation(len(texts))
        return sum(not np.array_equal(answer(texts[index]), wanted[index]) for index in order)

    with ThreadPoolExecutor(8) as threads:
        return sum(threads.map(differing, range(8)))


def in_fresh_process(function, *arguments):
    """The result of a function of this module."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
        return process.submit(function, *arguments).result()


def measure(name: str, path: Path, roads: dict, jobs: list, each: int, rounds: int) -> dict:
    """Medians over interleaved rounds; `each` is how many texts or tokens a job counts for."""
    runs = {road: [] for road in roads}
    for turn in range(rounds):
        for road in list(roads)[:: 1 if turn % 2 else -1]:
            runs[road].append(in_fresh_process(rates, roads[road], path, jobs))
            print(name, road, runs[road][-1], file=sys.stderr)
    return {
        road: {
            "added_megabytes": max(run["added_bytes"] for run in measured) / 1e6,
            "by_threads": {count: _medians([run["by_threads"][count] for run in measured], each) for count in KEYS},
        }
        for road, measured in runs.items()
    }


def _medians(found: list, each: int) -> dict:
    return {
        "a_second": harness.spread([each * rate for rate, _ in found]),
        "processor_milliseconds": harness.spread([1000 * seconds / each for _, seconds in found]),
    }


def show(results: dict) -> None:
    """A table of medians."""
    print(
        f"{'a second (processor milliseconds each)':40s}" + "".join(f"{count:>14d}" for count in THREADS) + "  threads"
    )
    for name, roads in results["answers"].items():
        for road, found in roads.items():
            medians = [[one["median"] for one in found["by_threads"][count].values()] for count in KEYS]
            numbers = "".join(f"{rate:7.0f} ({cost:.1f})".rjust(14) for rate, cost in medians)
            print(f"{name:24s}{road:16s}{numbers}  +{found['added_megabytes']:.0f} MB")
    for name, count in results["wrong_answers"].items():
        print(f"{name}: {count} wrong of 8 x {WRONG_TEXTS:,}")


def run(folder: Path, texts: int, rounds: int) -> tuple[dict, dict]:
    """({name: what `measure` finds}, {name: wrong answers}) of the files of a folder."""
    writer = multiprocessing.get_context("spawn").Process(target=write_files, args=(folder,))
    writer.start()
    writer.join()
    measured = {}
    for mode in ENCODERS:
        path, name = folder / f"minilm-{mode}.tflite", f"texts, {mode}"
        measured[name] = measure(name, path, {"pool": pool, "lock": lock}, sentences(texts), 1, rounds)
    path, prompts = folder / "decoder-dynamic_int8.tflite", [[index + 1, 7, 9] for index in range(16)]
    roads = {"one model": turns, "models": models}
    measured["tokens, dynamic_int8"] = measure("tokens", path, roads, prompts, TOKENS, rounds)
    differing = {mode: in_fresh_process(wrong, folder / f"minilm-{mode}.tflite") for mode in ENCODERS}
    return measured, differing


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=Path, help="folder of the files, written if missing (default: not kept)")
    parser.add_argument("--rounds", type=int, default=3, help="interleaved rounds (default: %(default)s)")
    parser.add_argument("--texts", type=int, default=400, help="texts of one measurement (default: %(default)s)")
    arguments = parser.parse_args()
    machine = harness.machine(["tfxformer", "ai-edge-litert"])
    with tempfile.TemporaryDirectory() as folder:
        measured, differing = run(arguments.files or Path(folder), arguments.texts, arguments.rounds)
    results = {
        "what": "texts or tokens a second of one file by calling threads",
        "command": harness.command(arguments.files),
        "rounds": arguments.rounds,
        "machine": machine,
        "answers": measured,
        "wrong_answers": differing,
    }
    show(results)
    print(harness.write("threads", results))


if __name__ == "__main__":
    main()
