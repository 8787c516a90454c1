"""What only TensorFlow does says so on another backend, and a backend that is missing is said with its way out."""

import subprocess
import sys

import keras
import pytest

from tfxformer import backend, compression, export, training


@pytest.fixture
def on_jax(monkeypatch):
    monkeypatch.setattr(backend, "backend", lambda: "jax")


def test_what_only_tensorflow_does_is_refused_in_one_sentence(on_jax, tmp_path):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8), keras.layers.Dense(2)])
    callbacks = [
        compression.Prune(compression.ConstantSparsity(0.5, begin_step=0)),
        compression.Cluster(16),
        compression.QuantizationAware([{"x": [[0.0] * 4]}]),
    ]
    for callback in callbacks:
        callback.set_model(model)
        with pytest.raises(backend.BackendError, match=r"needs Keras on TensorFlow, and it runs on jax: .*\.$"):
            callback.on_train_begin()
    with pytest.raises(backend.BackendError, match=r"save_pretrained.*KERAS_BACKEND=tensorflow"):
        export.export_litert(model, tmp_path / "model.tflite")
    assert not list(tmp_path.iterdir())


def test_a_mesh_is_refused_on_tensorflow():
    with pytest.raises(backend.BackendError, match="KERAS_BACKEND=jax"):
        training.strategy("cpu", mesh=(2, 4))


def test_a_layout_says_what_is_split_and_what_stays_whole():
    import tiny

    table = training.layout(tiny.backbone("gpt2"), (2, 4))
    rows = {row.path: row for row in table}
    assert rows["decoder_block_0/self_attention/query/kernel"].axes == (None, "model")
    assert rows["decoder_block_0/self_attention/output/kernel"].axes == ("model", None)
    assert rows["decoder_block_1/feed_forward/expand/bias"].axes == ("model",)
    assert rows["final_norm/gamma"].axes == (None,)
    assert rows["token_embedding/embeddings"].why_whole == "whole: 110 does not divide by 4"
    split = rows["decoder_block_0/feed_forward/output/kernel"]
    assert split.bytes_each == 48 * 32 * 4 // 4
    assert table.bytes_each == sum(row.bytes_each for row in table)
    assert "110 does not divide by 4" in str(table) and "MiB on each device" in str(table)
    with pytest.raises(ValueError, match="such as"):
        training.layout(tiny.backbone("gpt2"), 8)


def test_a_backend_that_is_missing_is_named_with_the_one_that_is_there():
    """In a process of its own: Keras imports its backend when it is imported."""
    code = """
import sys
sys.modules["tensorflow"] = None
import importlib.util
import tfxformer.backend
tfxformer.backend.is_installed = lambda name: name in ("keras", "jax")
import tfxformer.layers
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 1
    assert "needs tensorflow, the backend that Keras is set to, which is not installed; jax is" in done.stderr
    assert "KERAS_BACKEND=jax" in done.stderr.splitlines()[-1]
