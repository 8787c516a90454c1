"""Checks on JAX: what is compiled is what `fit` compiles, and models are checked that no memory holds."""

import importlib.util
import sys

import mesh_cases
import pytest

ABSENT = [name for name in ("jax", "libtpu") if importlib.util.find_spec(name) is None]
pytestmark = [
    pytest.mark.extra,
    pytest.mark.slow,  # two minutes of processor time, most of them XLA's
    pytest.mark.skipif(bool(ABSENT), reason=f'{", ".join(ABSENT)} not installed: pip install -e ".[tpu-check]"'),
]


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    return mesh_cases.run_on_jax(sys.executable, tmp_path_factory.mktemp("mesh"), "tpu")


def test_what_is_checked_is_what_fit_compiles(found):
    """Arguments, temporaries, peak and FLOPs of one device; an accumulation's sums are among the arguments."""
    *figures, slots, sends = found["checked"]
    assert figures == found["trained"]
    assert sends
    assert slots < figures[0]


def test_a_task_on_a_mesh(found):
    report = found["small"]
    train, evaluated = report["steps"]
    assert (report["chips"], report["mesh"], train["batch_size"]) == (4, [2, 2], 4)
    assert train["fits"] and evaluated["fits"]
    # Two moments and the weights in float32, some of them split in two.
    assert 0.5 * 12 * found["parameters"] < train["argument_bytes"] < 2 * 12 * found["parameters"] + 2**16
    assert train["collectives"]["all-reduce"]["count"] > evaluated["collectives"]["all-reduce"]["count"] > 0
    assert train["collectives"]["all-reduce"]["bytes"] > 0
    assert "mesh 2x2 (data x model)" in report["text"] and "all-reduce: " in report["text"]
    assert {"jax", "libtpu"} <= report["versions"].keys()


def test_weights_that_no_memory_holds(found):
    """4 TiB of weights, and twice as much of moments, over four chips: refused, with the compiler's figure."""
    (train,) = found["large"]["steps"]
    assert not train["fits"]
    assert train["needed_bytes"] >= 3 * 4 * mesh_cases.WIDE**2 / 4
    assert "exceeds available HBM" in train["message"]


def test_meshes_that_cannot_be(found):
    product, no_mesh, rows = found["errors"]
    assert "wants 8 chips, and v5e:2x2 has 4" in product
    assert "mesh is the sizes (data, model)" in no_mesh
    assert "batch_size=7 cannot be shared" in rows


def test_the_largest_batch_of_gpus(found):
    estimate = found["estimate"]
    assert estimate["low_bytes"] <= estimate["high_bytes"] <= estimate["memory_bytes"] == 2**24
    assert 0 < estimate["batch_size"] <= estimate["possible_batch"]
    assert estimate["batch_size"] % 2 == 0 and estimate["mesh"] == [2, 1]
    assert 0 <= estimate["weight_bytes"] - 4 * found["parameters"] < 1000  # states of random generators
    assert 0 <= estimate["slot_bytes"] - 8 * found["parameters"] < 1000
    assert "batch" in estimate["text"] and "on each device of the mesh 2x1" in estimate["text"]
