"""Runs a script in processes of its own, two for a cluster of workers; two replicas have `replicas`."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import distributed_cases
import numpy as np
import replicas

HERE = Path(__file__).parent


def environment(config=None):
    """The environment of a worker: quiet, without a cluster but the one given, and with this package."""
    kept = {name: value for name, value in os.environ.items() if name != "TF_CONFIG"}
    kept["PYTHONPATH"] = os.pathsep.join([str(HERE.parent.parent), kept.get("PYTHONPATH", "")])
    return {**kept, "TF_CPP_MIN_LOG_LEVEL": "3", **({"TF_CONFIG": json.dumps(config)} if config else {})}


def free_ports(count: int) -> list[int]:
    """Ports that nothing listens on now, held together so that they differ."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


def run_python(*arguments, configs=(None,), timeout=600) -> str:
    """Runs `python *arguments` once for each TF_CONFIG, at once; returns what the first one prints."""
    command = [sys.executable, *map(str, arguments)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen(command, env=environment(config), **pipes) for config in configs]
    try:
        outputs = [process.communicate(timeout=timeout) for process in processes]
    finally:
        for process in processes:
            process.kill()  # one that waits for a worker that failed would wait for ever
    for process, (_, errors) in zip(processes, outputs, strict=True):
        assert process.returncode == 0, errors[-3000:]
    return outputs[0][0]


def cluster() -> list[dict]:
    """The TF_CONFIG of each of two local workers."""
    workers = [f"127.0.0.1:{port}" for port in free_ports(2)]
    return [{"cluster": {"worker": workers}, "task": {"type": "worker", "index": index}} for index in range(2)]


def run_cells(strategy: str, cells: list, folder) -> list[dict]:
    """The results of `distributed_cases.run` for each cell, under a strategy."""
    todo, done = Path(folder) / "cells.json", Path(folder) / "done.npz"
    timeout = 300 + 120 * len(cells)
    if strategy == "mirrored":
        replicas.run(distributed_cases.run_all, cells, str(done), timeout=timeout)
    else:
        todo.write_text(json.dumps(cells), encoding="utf-8")
        configs = cluster() if strategy == "multiworker" else (None,)
        run_python(HERE / "distributed_cases.py", strategy, todo, done, configs=configs, timeout=timeout)
    results = [{} for _ in cells]
    with np.load(done) as arrays:
        for key in arrays:
            index, _, name = key.partition("/")
            results[int(index)][name] = arrays[key]
    return results
