"""Runs peers in turn, each in a process of its own, and compares them round by round.

Absolute times differ from machine to machine and from minute to minute; what counts is the ratio of two
peers in the same round. A peer is a function without arguments that prepares everything and returns a step,
a function whose return means that the work is done.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import multiprocessing
import os
import platform
import statistics
import time
from pathlib import Path

RESULTS = Path(__file__).parent / "results"


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
        start = time.perf_counter()
        for _ in range(calls):
            step()
        connection.send((time.perf_counter() - start) / calls)


@contextlib.contextmanager
def _running(prepare, warmups):
    """A started peer: a function from a number of calls to the seconds of one."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(prepare, theirs, warmups), daemon=True)
    process.start()
    theirs.close()  # so that a peer that dies ends our recv
    failure = ours.recv()
    if failure is not None:
        raise RuntimeError(f"The peer {prepare.__name__} could not start.") from failure

    def measure(calls):
        ours.send(calls)
        return ours.recv()

    try:
        yield measure
    finally:
        with contextlib.suppress(BrokenPipeError):
            ours.send(0)
        process.join()


def race(peers: dict, rounds: int = 10, calls: int = 1, warmups: int = 3) -> dict:
    """Times peers in interleaved rounds.

    Args:
        peers: dict of name -> prepare, a function at the top level of its module.
        rounds: int, each peer once a round, the order reversed from round to round.
        calls: int, steps of one measurement.
        warmups: int, steps before the first round.

    Returns:
        dict of name -> list of seconds a step, one for each round.
    """
    seconds = {name: [] for name in peers}
    with contextlib.ExitStack() as stack:
        running = {name: stack.enter_context(_running(peer, warmups)) for name, peer in peers.items()}
        for turn in range(rounds):
            for name in list(running)[:: 1 if turn % 2 else -1]:
                seconds[name].append(running[name](calls))
    return seconds


def spread(values: list) -> dict:
    """Median and quartiles of some numbers."""
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return {"median": middle, "low_quartile": low, "high_quartile": high}


def summary(seconds: dict, ours: str) -> dict:
    """Each peer's time, and how many times faster `ours` is, round by round."""
    ratios = {
        name: [theirs / own for theirs, own in zip(times, seconds[ours], strict=True)]
        for name, times in seconds.items()
    }
    return {name: {"seconds": spread(times), "ours_is_faster": spread(ratios[name])} for name, times in seconds.items()}


def training_torch():
    """torch, its threads asleep while they wait for each other.

    By default they wait in loops: as fast on an idle machine, but five times slower (seen) where other work takes
    turns on the cores.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    import torch

    return torch


def machine(packages: list) -> dict:
    """What the figures were measured on; says so when other work is running."""
    load = os.getloadavg()[0]
    if load > 0.5:
        print(f"The machine is busy (load average {load:.1f}): time-sharing favours some peers over others.")
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "load_average": load,
        "python": platform.python_version(),
        "packages": {name: importlib.metadata.version(name) for name in packages},
    }


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
    """Writes results/<name>.json, whole or not at all."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    return partial.replace(path)
