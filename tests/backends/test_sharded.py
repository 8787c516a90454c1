"""A checkpoint of a model that is split over devices: saved tensor by tensor, loaded part by part (`sharded_cases`)."""

import json
import os
from pathlib import Path

import cases
import pytest

PYTHON = os.environ.get("TFXFORMER_JAX_PYTHON")
pytestmark = [
    pytest.mark.client,
    pytest.mark.road,
    pytest.mark.skipif(not PYTHON, reason="TFXFORMER_JAX_PYTHON names no Python with JAX: see requirements-jax.txt"),
]
OBJECTS = 2_000_000  # bytes of names, places and modules that the first use of them imports


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sharded")
    cases.run_script(PYTHON, Path(__file__).with_name("sharded_cases.py"), folder)
    return json.loads((folder / "found.json").read_text(encoding="utf-8"))


@pytest.fixture(params=["gpt2", "llama"])
def one(found, request):
    assert 12 * found[request.param]["largest"] < found[request.param]["model"]
    return found[request.param]


def test_a_round_trip_is_exact_and_keeps_what_is_split(one):
    assert one["differing"] == one["differing alone"] == one["misplaced"] == []
    assert one["split"] > 40
    assert one["on a device"] == one["by the layout"] < 0.26 * one["model"]


def test_saving_has_one_tensor_on_the_host_at_a_time(one):
    assert one["saving"] < one["largest"] + 2 * OBJECTS
    assert one["kept"] < OBJECTS


def test_loading_cuts_each_device_its_part_from_the_file(one):
    assert one["piece"] == one["largest"] // 4
    assert one["pieces"] >= one["on devices"] - one["model"] * 0.01  # what is whole everywhere is read once
    assert one["loading"] < one["on devices"] + one["piece"] + OBJECTS  # on a CPU the devices' memory is the host's
