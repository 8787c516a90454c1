"""W&B's own callback with our models: no code of ours is needed."""

import importlib.util

import keras
import numpy as np
import pytest

from tfxformer.training import DistributedModel, Throughput, WarmupLinear

if importlib.util.find_spec("wandb") is None:
    pytest.skip("the extra [wandb] is not installed", allow_module_level=True)
pytestmark = pytest.mark.extra


def test_wandb_logs_a_distributed_model(tmp_path, monkeypatch):
    import wandb
    from wandb.integration.keras import WandbMetricsLogger

    monkeypatch.setenv("WANDB_SILENT", "true")
    inputs = keras.Input((3,))
    model = DistributedModel(inputs, keras.layers.Dense(1)(inputs))
    optimizer = keras.optimizers.SGD(WarmupLinear(0.1, 8, 0.5), gradient_accumulation_steps=2)
    model.compile(optimizer, "mse")
    logged = []
    with wandb.init(mode="offline", dir=tmp_path, project="test") as run:
        monkeypatch.setattr(wandb, "log", logged.append)
        x = np.random.default_rng(0).standard_normal((16, 3)).astype("float32")
        callbacks = [Throughput(peak_flops=1e12), WandbMetricsLogger(log_freq=1)]
        history = model.fit(x, x[:, :1], batch_size=4, epochs=2, verbose=0, callbacks=callbacks).history
        run.log({"text": "offline files are written"})
    epochs = [one for one in logged if "epoch/loss" in one]
    assert [one["epoch/loss"] for one in epochs] == history["loss"]
    assert [one["epoch/samples_per_second"] for one in epochs] == history["samples_per_second"]
    batches = [one for one in logged if "batch/loss" in one]
    assert len(batches) == 8 and all("batch/learning_rate" in one for one in batches)
    assert all("batch/mfu" in one for one in batches[1:])
    assert list(tmp_path.rglob("*.wandb"))
