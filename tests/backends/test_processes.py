"""Two processes of one program, with four devices each, train as one device does, and the first alone writes files.

What they compute is in `process_cases`; this process computes the same on TensorFlow.
"""

import json
import os
import socket
import subprocess
from pathlib import Path

import cases
import numpy as np
import pytest
import tiny

from tfxformer import tasks

PYTHON = os.environ.get("TFXFORMER_JAX_PYTHON")
pytestmark = [
    pytest.mark.client,
    pytest.mark.slow,  # a minute of processor time for each process, most of it XLA's
    pytest.mark.skipif(not PYTHON, reason="TFXFORMER_JAX_PYTHON names no Python with JAX: see requirements-jax.txt"),
]
# Batches shared by both, an epoch's last not; weights of which each process has a half.
CELLS = [cases.cell("bert", 0.1, 1, cases.DATA), cases.cell("bert", 0.0, 4, (1, 8))]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What two processes have written."""
    folder = tmp_path_factory.mktemp("processes")
    (folder / "cells.json").write_text(json.dumps(CELLS), encoding="utf-8")
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    command = [PYTHON, str(Path(__file__).with_name("process_cases.py")), str(folder), str(folder / "cells.json")]
    variables = {
        **cases.environment(),
        "XLA_FLAGS": "--xla_force_host_platform_device_count=4",
        "KERAS_DISTRIBUTION_JOB_ADDRESSES": address,
        "KERAS_DISTRIBUTION_NUM_PROCESSES": "2",
    }
    logs = [folder / f"{index}.log" for index in range(2)]
    started = []
    try:
        for index, log in enumerate(logs):
            own = {**variables, "KERAS_DISTRIBUTION_PROCESS_ID": str(index)}
            with log.open("w", encoding="utf-8") as file:
                started.append(subprocess.Popen(command, env=own, stdout=file, stderr=subprocess.STDOUT))
        ends = [process.wait(1800) for process in started]
    finally:
        for process in started:
            process.kill()  # one that waits for the other does not heed SIGTERM
    assert ends == [0, 0], "\n".join(log.read_text(encoding="utf-8")[-2000:] for log in logs)
    return folder


@pytest.mark.parametrize("number", range(len(CELLS)), ids=[cases.name(cell) for cell in CELLS])
def test_a_fit_over_two_processes_is_that_of_one_device(folder, number):
    here = cases.train({**CELLS[number], "mesh": cases.ONE})
    for process in range(2):
        with np.load(folder / f"{number}-of-{process}.npz") as there:
            assert sorted(there) == sorted(here)
            for key, value in here.items():
                atol = 2e-6 if key.startswith("weight") else 1e-5  # logits, losses
                np.testing.assert_allclose(there[key], value, rtol=2e-6, atol=atol, err_msg=key)


def test_both_end_alike_and_in_the_order_of_the_first(folder):
    with np.load(folder / "texts-of-0.npz") as first, np.load(folder / "texts-of-1.npz") as second:
        for key in first:
            np.testing.assert_array_equal(first[key], second[key], err_msg=key)
        np.testing.assert_array_equal(first["order"], np.random.RandomState(0).permutation(9))
        assert len(first["losses"]) == 2 and first["losses"][1] < first["losses"][0]  # it went on where it had ended


def test_the_first_alone_writes_what_opens_on_tensorflow(folder):
    import keras

    written = {path.name for path in folder.iterdir()}
    assert {"best-0.keras", "checkpoints", "history-0", "saved-0", "split-0"} <= written
    assert not written & {"best-1.keras", "history-1", "saved-1", "split-1"}
    assert len(list((folder / "checkpoints").iterdir())) == 2
    with np.load(folder / "texts-of-0.npz") as first:
        answers, split = first["answers"], first["split"]
    opened = tasks.TextClassifier.from_pretrained(folder / "saved-0")
    np.testing.assert_allclose(opened.predict(tiny.TEXTS[:5], verbose=0), answers, atol=1e-6)
    whole = keras.saving.load_model(folder / "best-0.keras")
    np.testing.assert_allclose(whole.predict(tiny.TEXTS[:5], verbose=0), answers, atol=1e-6)
    opened = tasks.TextClassifier.from_pretrained(folder / "split-0")
    np.testing.assert_allclose(opened.predict(tiny.TEXTS[:5], verbose=0), split, atol=1e-6)
