"""What the adapter tests share. As a script it trains one adapter under two replicas and on one device:
`python adapter_cases.py` prints the largest difference of any weight, as JSON."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))
import tiny


def classifier(tokenizer=None, family="bert", **arguments):
    """A tiny classifier, every weight random."""
    from tfxformer import tasks

    backbone = tiny.backbone(family, **arguments)
    return tiny.perturb(tasks.TextClassifier(backbone, ["negative", "positive"], tokenizer=tokenizer))


def language_model(family="llama", tokenizer=None, **arguments):
    """A tiny language model, every weight random."""
    from tfxformer import tasks

    return tiny.perturb(tasks.CausalLM(tiny.backbone(family, **arguments), tokenizer=tokenizer))


def everything(layer):
    """A predicate that wants all layers."""
    return True


def randomize(model, seed=1):
    """Gives the factors of the active adapter random values: a new one's product is zero."""
    generator = np.random.default_rng(seed)
    for variable in model.variables:
        if variable.name in ("lora_a", "lora_b"):
            variable.assign(generator.normal(0, 0.2, variable.shape).astype("float32"))
    return model


def adapted(model, name="films", seed=1, **arguments):
    """The `Adapters` of a model with one active adapter of random factors."""
    from tfxformer import compression

    adapters = compression.Adapters(model)
    adapters.add(name, compression.LoRA(**{"rank": 3, "alpha": 6, **arguments}))
    randomize(model, seed)
    return adapters


def outputs(model) -> np.ndarray:
    """What a model makes of a fixed batch."""
    result = model(tiny.inputs_for(model))
    return np.asarray(result["sequence_output"] if isinstance(result, dict) else result, "float32")


def rows(model, count=16):
    """A batch and labels to train on."""
    return tiny.inputs_for(model, rows=count, length=8), np.arange(count) % 2


def trained(strategy=None, dtype=None):
    """Weights after two epochs on an adapter, by path."""
    import contextlib

    import keras

    from tfxformer import compression

    with strategy.scope() if strategy else contextlib.nullcontext():
        model = classifier(dtype=dtype)
    compression.Adapters(model).add("films", compression.LoRA(rank=3))
    randomize(model)
    with model.distribute_strategy.scope():
        model.compile(keras.optimizers.Adam(0.01))
    x, y = rows(model)
    model.fit(x, y, batch_size=8, epochs=2, shuffle=False, verbose=0)
    return tiny.weights(model)


def main():
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    from tfxformer import training

    two = trained(training.strategy("cpu:2"))
    one = trained()
    before = tiny.weights(classifier())
    print(
        json.dumps(
            {
                "difference": max(float(np.abs(two[path] - one[path]).max()) for path in one),
                "moved": [path for path in one if path not in before or (one[path] != before[path]).any()],
            }
        )
    )


if __name__ == "__main__":
    main()
