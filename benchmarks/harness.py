"""Runs peers in turn, each in a process of its own, and compares them round by round.

Absolute times differ from machine to machine and from minute to minute; what counts is the ratio of two
peers in the same round. Beside the clock's seconds stand the processor's, summed over all threads, which other
work on the machine disturbs less (they count waiting in loops too, where a runtime does that). A peer is a
function without arguments that prepares everything and returns a step, a function whose return means that the
work is done.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import multiprocessing
import os
import platform
import shlex
import statistics
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

RESULTS = Path(__file__).parent / "results"


class Time(NamedTuple):
    """Seconds of one step, by the clock and by the processor."""

    clock: float
    processor: float


def _serve(prepare, connection, warmups):
    try:
        step = prepare()
        for _ in range(warmups):
            step()
    except Exception as error:
        connection.send(error)
        raise
    connection.send(None)
    while calls := connection.recv():
        start, processor = time.perf_counter(), time.process_time()
        for _ in range(calls):
            step()
        connection.send(Time((time.perf_counter() - start) / calls, (time.process_time() - processor) / calls))
    connection.send(step.facts() if hasattr(step, "facts") else {})


@contextlib.contextmanager
def _running(prepare, warmups):
    """A starting peer: what waits until it is ready, and a function from a number of calls to the Time of one.

    Of 0 calls the peer ends, and the function gives its facts.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(prepare, theirs, warmups), daemon=True)
    process.start()
    theirs.close()  # so that a peer that dies ends our recv

    def wait():
        failure = ours.recv()
        if failure is not None:
            raise RuntimeError(f"The peer {prepare.__name__} could not start.") from failure

    def measure(calls):
        ours.send(calls)
        return ours.recv()

    try:
        yield wait, measure
    finally:
        with contextlib.suppress(BrokenPipeError):
            ours.send(0)
        process.join()


def race(peers: dict, rounds: int = 10, calls: int = 1, warmups: int = 3, facts: dict | None = None) -> dict:
    """Times peers in interleaved rounds.

    Args:
        peers: dict of name -> prepare, a function at the top level of its module.
        rounds: int, each peer once a round, the order reversed from round to round.
        calls: int, steps of one measurement.
        warmups: int, steps before the first round.
        facts: dict or None; filled, name -> what the `facts()` of a peer's step says at the end.

    Returns:
        dict of name -> list of Time, one for each round.
    """
    times = {name: [] for name in peers}
    with contextlib.ExitStack() as stack:
        started = {name: stack.enter_context(_running(peer, warmups)) for name, peer in peers.items()}
        for wait, _ in started.values():
            wait()
        running = {name: measure for name, (_, measure) in started.items()}
        for turn in range(rounds):
            for name in list(running)[:: 1 if turn % 2 else -1]:
                times[name].append(running[name](calls))
        if facts is not None:
            facts.update({name: measure(0) for name, measure in running.items()})
    return times


def spread(values: list) -> dict:
    """Median and quartiles of some numbers."""
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return {"median": middle, "low_quartile": low, "high_quartile": high}


def summary(times: dict, ours: str) -> dict:
    """Each peer's time, and how many times faster `ours` is, round by round; the same by the processor's seconds."""
    return {name: _compared(measured, times[ours]) for name, measured in times.items()}


def _compared(theirs, ours):
    ratios = [Time(*(a / b for a, b in zip(one, own, strict=True))) for one, own in zip(theirs, ours, strict=True)]
    return {
        "seconds": spread([one.clock for one in theirs]),
        "ours_is_faster": spread([ratio.clock for ratio in ratios]),
        "processor_seconds": spread([one.processor for one in theirs]),
        "ours_is_faster_by_processor": spread([ratio.processor for ratio in ratios]),
    }


def training_torch():
    """torch, its threads asleep while they wait for each other.

    By default they wait in loops: as fast on an idle machine, but five times slower (seen) where other work takes
    turns on the cores.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    import torch

    return torch


def command(folder=None) -> str:
    """The command line of this run; the user's own `folder` in it as DIR."""
    words = ("DIR" if folder is not None and word == str(folder) else word for word in sys.argv[1:])
    return shlex.join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *words])


def machine(packages: list) -> dict:
    """What the figures were measured on, with the packages that are there; says so when other work is running."""
    load = os.getloadavg()[0]
    if load > 0.5:
        print(f"The machine is busy (load average {load:.1f}): time-sharing favours some peers over others.")
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "load_average": load,
        "python": platform.python_version(),
        "packages": {name: version for name in packages if (version := _version(name))},
    }


def _version(package: str):
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:  # an unused peer's may be absent
        return None


def _processor():
    information = Path("/proc/cpuinfo")
    if information.exists():
        fields = dict(
            (part.strip() for part in line.split(":", 1))
            for line in information.read_text().split("\n\n")[0].splitlines()
            if ":" in line
        )
        return f"{fields.get('model name', platform.processor())} (family {fields.get('cpu family')})"
    return platform.processor()


def write(name: str, results: dict) -> Path:
    """Writes results/<name>.json with today's date, whole or not at all."""
    results = {"date": time.strftime("%Y-%m-%d"), **results}
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    return partial.replace(path)


def kept(path: Path, packages: list, function, *arguments) -> dict:
    """The dict of a long run in a fresh process, kept in a file; that of the file where it is there already.

    Args:
        path: the file, written whole or not at all; the machine and the date are added.
        packages: whose versions are noted.
        function: a function of a module, with its `arguments`.
    """
    if path.exists():
        print(f"{path} is there", file=sys.stderr)
        return json.loads(path.read_text(encoding="utf-8"))
    facts = {"machine": machine(packages), "date": time.strftime("%Y-%m-%d")}
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        result = {**pool.submit(function, *arguments).result(), **facts}
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    partial.replace(path)
    return result
