"""strategy(): what it finds, what it says, and the way out where it cannot."""

import json

import pytest
import tensorflow as tf
from strategy_processes import run_python

from tfxformer import training


@pytest.fixture(autouse=True)
def no_cluster(monkeypatch):
    for name in ("TF_CONFIG", "TPU_NAME", "COLAB_TPU_ADDR"):
        monkeypatch.delenv(name, raising=False)


def test_auto_needs_none_on_one_processor(capsys):
    if tf.config.list_physical_devices("GPU"):
        pytest.skip("this machine has a GPU")
    strategy = training.strategy()
    assert strategy is tf.distribute.get_strategy()
    line = capsys.readouterr().out
    assert line.count("\n") == 1
    assert "strategy('auto')" in line and "no GPU, no TPU" in line


def test_one_cpu(capsys):
    assert isinstance(training.strategy("cpu"), tf.distribute.OneDeviceStrategy)
    assert "1 replica" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["cuda", "auto:2", "multiworker:2", ""])
def test_unknown_names_are_listed(name):
    with pytest.raises(ValueError, match='give "auto"'):
        training.strategy(name)


@pytest.mark.parametrize("name", ["cpu:two", "gpu:0", "cpu:-1"])
def test_a_count_is_a_number(name):
    with pytest.raises(ValueError, match="number of devices"):
        training.strategy(name)


def test_a_gpu_that_is_not_there():
    if tf.config.list_physical_devices("GPU"):
        pytest.skip("this machine has a GPU")
    with pytest.raises(RuntimeError, match=r"sees 0.*nvidia-smi"):
        training.strategy("gpu")


def test_logical_devices_are_asked_for_first():
    tf.constant(0) + 1  # TensorFlow has its devices now
    with pytest.raises(RuntimeError, match="first call of the program"):
        training.strategy("cpu:64")


@pytest.mark.road
def test_no_tpu_kernels_names_the_pins():
    """Stock TensorFlow; in a process of its own, which the attempt leaves in an unknown state."""
    code = """
from tfxformer import training
try:
    training.strategy("tpu")
except RuntimeError as error:
    print(" ".join(str(error).split()))
"""
    said = run_python("-c", code)
    assert "requirements-tpu.txt" in said and "tensorflow-tpu==2.20.0" in said
    assert "ConfigureDistributedTPU" in said  # TensorFlow's own message


@pytest.mark.parametrize(
    ("config", "found"),
    [
        (None, "finds no workers"),
        ("{", "not the JSON"),
        ({"cluster": {"worker": ["a:1", "b:1"]}}, "says of this worker only nothing"),
        ({"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 2}}, "this is worker 2"),
        ({"cluster": {"worker": ["a:1"]}, "task": {"type": "ps", "index": 0}}, "says of this worker only"),
    ],
)
def test_a_cluster_that_is_not_one(monkeypatch, config, found):
    if config is not None:
        monkeypatch.setenv("TF_CONFIG", config if isinstance(config, str) else json.dumps(config))
    with pytest.raises(ValueError, match=found):
        training.strategy("multiworker")


def test_a_cluster_is_asked_for_first(monkeypatch):
    tf.constant(0) + 1
    config = {"cluster": {"worker": ["127.0.0.1:1", "127.0.0.1:2"]}, "task": {"type": "worker", "index": 0}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(config))
    for name in ("multiworker", "auto"):
        with pytest.raises(RuntimeError, match="first call of the program"):
            training.strategy(name)
