"""How clusters are run: compiled while a step is traced, by its own shapes, and not at all where they are small."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from optional_tensorflow import tf

from tfxformer import backend
from tfxformer.layers.kernels import clusters

# Prints how many programs XLA has written down: after the step was traced and what waits is done, and after its run.
COUNTING = """
import sys
from pathlib import Path

import tensorflow as tf

from tfxformer import backend
from tfxformer.layers.kernels import clusters


def programs():
    return len({path.name.split(".")[0] for path in Path(sys.argv[1]).glob("module_*")})


cluster = clusters.clustered(lambda x: x * x + 1.0)
with backend.compiled_ahead(sys.argv[2] == "ahead"):
    step = tf.function(lambda x: cluster(cluster(x)), autograph=False).get_concrete_function(tf.TensorSpec((512, 512)))
clusters._threads().shutdown(wait=True)
before = programs()
step(tf.zeros((512, 512)))
print(before, programs())
"""


@pytest.mark.parametrize(("when", "counts"), [("ahead", "1 1"), ("later", "0 1")])
def test_a_step_compiles_nothing_that_was_compiled_ahead(when, counts, tmp_path):
    """XLA says itself what it compiles: its dumps."""
    environment = {**os.environ, "XLA_FLAGS": f"--xla_dump_to={tmp_path}", "PYTHONPATH": str(Path.cwd())}
    command = [sys.executable, "-c", COUNTING, str(tmp_path), when]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.stdout.strip() == counts, done.stderr[-2000:]


class Waiting:
    """A step that calls a cluster twice, and in the place of threads: what is to be compiled for it."""

    def __init__(self, monkeypatch):
        self.specs = []
        monkeypatch.setattr(clusters, "_threads", lambda: self)
        self.cluster = clusters.clustered(lambda x, bias: x * x if bias is None else x * x + bias)

    def submit(self, _, function, specs):
        self.specs.append([None if spec is None else tuple(spec.shape) for spec in specs])
        clusters._run_on_zeros(function, specs)

    def traced(self, shape, bias=None):
        def step(x):
            return self.cluster(self.cluster(x, bias), bias)

        return tf.function(step, autograph=False).get_concrete_function(tf.TensorSpec(shape))


@pytest.fixture
def waiting(monkeypatch):
    return Waiting(monkeypatch)


@pytest.mark.parametrize("bias", [None, 2.0])
def test_each_shape_is_compiled_once_and_gives_what_it_would(waiting, bias, monkeypatch):
    monkeypatch.setattr(clusters, "FEW_ELEMENTS", 8)
    bias = bias and tf.constant(bias)
    with backend.compiled_ahead():
        step = waiting.traced((4, 5), bias)
        waiting.traced((4, 5), bias)
        waiting.traced((2, 5), bias)
    assert waiting.specs == [[shape, None if bias is None else ()] for shape in [(4, 5), (2, 5)]]
    x, add = np.arange(20, dtype="float32").reshape(4, 5), 0.0 if bias is None else 2.0
    np.testing.assert_allclose(step(tf.constant(x)), (x * x + add) ** 2 + add, rtol=1e-6)


def test_open_rows_are_those_of_the_batches(waiting):
    with backend.compiled_ahead():
        waiting.traced((None, 2**17))
        assert waiting.specs == []
        with backend.batches_of(3):
            step = waiting.traced((None, 2**17))
    assert waiting.specs == [[(3, 2**17), None]]
    assert np.asarray(step(tf.ones((1, 2**17)))).shape == (1, 2**17)  # the last batch, which is shorter


@pytest.mark.parametrize("shape", [(4, 5), (2**28,)], ids=["few", "too many"])
def test_neither_few_elements_nor_too_many(waiting, shape):
    with backend.compiled_ahead():
        waiting.traced(shape)
    assert waiting.specs == []


def test_nothing_outside_of_a_step_that_runs(waiting, monkeypatch):
    monkeypatch.setattr(clusters, "FEW_ELEMENTS", 8)
    waiting.traced((4, 5))
    with backend.compiled_ahead(False):
        waiting.traced((4, 5))
    with backend.compiled_ahead():
        waiting.cluster(tf.ones((4, 5)), None)  # eager: it has run already
    assert waiting.specs == []
