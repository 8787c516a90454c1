"""Fused attention: what it computes on JAX is the plain formula's, and what it cannot do is said.

The child runs on JAX: by TFXFORMER_JAX_PYTHON where that is set (see tests/backends), else by this Python.
"""

import functools
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import cases
import keras
import numpy as np
import pytest

from tfxformer import layers
from tfxformer.layers.attention.masks import MaskPattern

PYTHON = os.environ.get("TFXFORMER_JAX_PYTHON") or (sys.executable if importlib.util.find_spec("jax") else None)
on_jax = pytest.mark.skipif(not PYTHON, reason='jax is not installed: pip install -e ".[tpu-check]"')


@functools.cache
def child(what: str, python=PYTHON):
    """What `fused_cases.py` finds."""
    command = [python, str(Path(__file__).parent / "fused_cases.py"), what]
    done = subprocess.run(command, env=cases.environment(), capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])[what]


def all_near(found: dict, count: int) -> None:
    assert len(found) == count
    assert max(found.values()) < 1e-5, {name: value for name, value in found.items() if not value < 1e-5}


@on_jax
@pytest.mark.extra
@pytest.mark.parametrize(
    ("what", "count"),
    [
        pytest.param("gpu", 23, marks=pytest.mark.slow),
        pytest.param("tpu", 24, marks=pytest.mark.slow),
        pytest.param("models", 8, marks=pytest.mark.slow),
        pytest.param("devices", 8, marks=pytest.mark.slow),
    ],
)
def test_outputs_and_gradients_are_those_of_the_plain_formula(what, count):
    """Causal, windows, padding on either side, packed documents, grouped heads, an encoder's output; whole models."""
    all_near(child(what), count)


@on_jax
@pytest.mark.extra
def test_a_step_for_gpus_calls_cudnn_forward_and_backward_and_makes_no_square_of_scores():
    """But the way that is taken where a batch needs a mask: rows padded on the left, packed documents."""
    found = child("cuda")
    assert found["calls"] == {
        "__cudnn$fmhaSoftmax": 2,
        "__cudnn$fmhaSoftmaxBackward": 2,
        "__cudnn$fmhaScaleBiasSoftmax": 2,
        "__cudnn$fmhaScaleBiasSoftmaxBackward": 2,
    }
    # Comparisons of slots, whose sums are the positions: XLA computes them inside of the sum.
    assert all(square.startswith(("bool[", "int32[")) for square in found["squares"]), found["squares"]


@pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("jax", "libtpu")),
    reason='jax and libtpu are not both installed: pip install -e ".[tpu-check]"',
)
@pytest.mark.extra
@pytest.mark.slow
def test_a_step_for_tpus_calls_the_kernel_and_wants_less_memory():
    found = child("compiled", sys.executable)
    assert found["plain calls"] == 0 < found["fused calls"]
    assert found["fused"] < 0.6 * found["plain"], found


@on_jax
@pytest.mark.extra
def test_what_a_kernel_cannot_do_is_plain_and_said_once():
    said = child("said")
    assert [len(lines) for lines in said.values()] == [1] * len(said), said
    for word, lines in said.items():
        assert word in lines[0] and "use_fused_attention" in lines[0]


def test_always_is_refused_where_there_is_no_kernel():
    layer = layers.Attention(2, 4)
    x = np.ones((1, 3, 8), "float32")
    plain = layer(x, training=True)
    layers.use_fused_attention("always")
    try:
        with pytest.raises(ValueError, match=f"Keras runs on {keras.backend.backend()}"):
            layer(x, training=True)
    finally:
        layers.use_fused_attention("auto")
    np.testing.assert_array_equal(layer(x, training=True), plain)


def test_another_word_is_refused():
    with pytest.raises(ValueError, match=r"'on'.*auto, always, never"):
        layers.use_fused_attention("on")


def test_a_pattern_is_what_a_saved_model_keeps():
    pattern = MaskPattern(causal=True, window=3, packed=True)
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(pattern))
    assert again == pattern
