"""How long a model takes for one text, and on what machine."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path


def race(calls: dict[str, Callable], rounds: int = 50, warmup: int = 5) -> dict[str, dict]:
    """Times calls in interleaved rounds, so that what disturbs the machine disturbs all of them.

    Args:
        calls: {name: function without arguments}.
        rounds: int, timed calls of each.
        warmup: int, calls of each before.

    Returns:
        {name: {"median_ms", "low_quartile_ms", "high_quartile_ms", "rounds"}}.
    """
    milliseconds = {name: [] for name in calls}
    for turn in range(warmup + rounds):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            if turn >= warmup:
                milliseconds[name].append(1e3 * (time.perf_counter() - start))
    return {name: _spread(times) for name, times in milliseconds.items()}


def _spread(times: list[float]) -> dict:
    low, middle, high = statistics.quantiles(times, n=4, method="inclusive")
    return {
        "median_ms": middle,
        "low_quartile_ms": low,
        "high_quartile_ms": high,
        "rounds": len(times),
    }


def litert_call(model, batch: dict) -> Callable:
    """One run of an `export.LiteRTModel` of one signature; `batch` int32 [1, S] arrays."""
    (signature,) = model.signatures
    return lambda: model.run(signature, batch)


def keras_call(task, batch: dict) -> Callable:
    """One run of a task as a TensorFlow graph on `batch`, int32 [1, S] arrays; tokenizing is not in it."""
    import tensorflow as tf

    inputs = {name: tf.constant(array) for name, array in batch.items()}
    graph = tf.function(lambda: task(inputs, training=False))
    return lambda: graph().numpy()


def processor_name() -> str:
    """The processor as the system names it."""
    information = Path("/proc/cpuinfo")
    if information.is_file():
        for line in information.read_text(encoding="utf-8", errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() in ("model name", "Model", "Hardware") and value.strip():
                return value.strip()
    return platform.processor() or platform.machine()


def cores() -> int:
    """The processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
