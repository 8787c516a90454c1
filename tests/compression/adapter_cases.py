"""What the adapter tests share, and a case for `replicas.run`."""

import numpy as np
import tiny

QUERY_AND_VALUE = ("query", "value")


def classifier(tokenizer=None, family="bert", **arguments):
    """A tiny classifier, every weight random."""
    from tfxformer import tasks

    backbone = tiny.backbone(family, **arguments)
    return tiny.perturb(tasks.TextClassifier(backbone, ["negative", "positive"], tokenizer=tokenizer))


def language_model(family="llama", tokenizer=None, **arguments):
    """A tiny language model, every weight random."""
    from tfxformer import tasks

    return tiny.perturb(tasks.CausalLM(tiny.backbone(family, **arguments), tokenizer=tokenizer))


def hub_model(name):
    """KerasHub's BERT with a head ("bert") or its GPT-2 ("gpt2"), tiny."""
    import pytest

    hub = pytest.importorskip("keras_hub")
    sizes = {"vocabulary_size": 60, "num_layers": 1, "num_heads": 2, "hidden_dim": 8, "intermediate_dim": 12}
    if name == "gpt2":
        return hub.models.GPT2Backbone(**sizes, dropout=0.0, max_sequence_length=16)
    bert = hub.models.BertBackbone(**sizes, dropout=0.0, max_sequence_length=16)
    return hub.models.BertTextClassifier(bert, num_classes=2, dropout=0.0)


def everything(layer):
    """A predicate that wants all layers."""
    return True


def randomize(model, seed=1):
    """Gives the parts of the active adapter random values: a new one changes nothing."""
    from tfxformer.layers.adapters.base import adapted_layers

    generator = np.random.default_rng(seed)
    for layer in adapted_layers(model):
        for variable in layer.adapter.trainable_variables:
            mean = 1.0 if variable.name == "ia3_scale" else 0.0
            variable.assign(generator.normal(mean, 0.2, variable.shape).astype("float32"))
    return model


def adapted(model, name="films", seed=1, **arguments):
    """The `Adapters` of a model with one active adapter of random factors."""
    from tfxformer import compression

    adapters = compression.Adapters(model)
    adapters.add(name, compression.LoRA(**{"rank": 3, "alpha": 6, "targets": QUERY_AND_VALUE, **arguments}))
    randomize(model, seed)
    return adapters


def outputs(model) -> np.ndarray:
    """What a model makes of a fixed batch."""
    result = model(tiny.inputs_for(model))
    return np.asarray(result["sequence_output"] if isinstance(result, dict) else result, "float32")


def rows(model, count=16):
    """A batch and labels to train on."""
    return tiny.inputs_for(model, rows=count, length=8), np.arange(count) % 2


def trained(strategy=None, dtype=None, eager=False):
    """Weights after two epochs on an adapter, by path."""
    import contextlib

    import keras

    from tfxformer import compression

    with strategy.scope() if strategy else contextlib.nullcontext():
        model = classifier(dtype=dtype)
    compression.Adapters(model).add("films", compression.LoRA(rank=3, targets=QUERY_AND_VALUE))
    randomize(model)
    with model.distribute_strategy.scope():
        model.compile(keras.optimizers.Adam(0.01), run_eagerly=eager)
    x, y = rows(model)
    model.fit(x, y, batch_size=8, epochs=2, shuffle=False, verbose=0)
    return tiny.weights(model)


def two_replicas_and_one_device(strategy):
    """The largest difference of any weight, and which weights moved."""
    two, one, before = trained(strategy), trained(eager=True), tiny.weights(classifier())
    return {
        "difference": max(float(np.abs(two[path] - one[path]).max()) for path in one),
        "moved": [path for path in one if path not in before or (one[path] != before[path]).any()],
    }
