"""A model to which rounding does much, and quantization-aware training under two replicas and on one device."""

import contextlib

import numpy as np
import tiny
from distillation_cases import classifier


def planted(model):
    """Lets an inner unit that no output reads take the precision of its block: rounding then does much."""
    for weight in model.weights:
        values = np.array(weight)
        if weight.path.endswith("feed_forward/expand/kernel"):
            values[:, 5] *= 40
        elif weight.path.endswith("feed_forward/output/kernel"):
            values[5] = 0
        weight.assign(values)
    return model


def trained(scope, aware=True, eager=False):
    """Weights after an epoch of 17 rows, 4 a batch, an update every other one."""
    import keras

    from tfxformer import compression

    batch = tiny.batch(17, 12)
    labels = np.arange(17) % 2
    with scope():
        model = planted(classifier(layers=1))
        optimizer = keras.optimizers.SGD(0.2, global_clipnorm=1.0, gradient_accumulation_steps=2)
        model.compile(optimizer, run_eagerly=eager)
    callbacks = [compression.QuantizationAware(batch)] if aware else []
    model.fit(batch, labels, batch_size=4, epochs=1, shuffle=False, verbose=0, callbacks=callbacks)
    return tiny.weights(model)


def distance(one, other) -> float:
    return float(np.sqrt(sum(np.square(one[path] - other[path]).sum() for path in one)))


def two_replicas_and_one_device(strategy):
    """The distance of the weights of both, and that of training without rounding."""
    alone = trained(contextlib.nullcontext, eager=True)
    ours = trained(strategy.scope)
    plain = trained(contextlib.nullcontext, aware=False, eager=True)
    return {"difference": distance(ours, alone), "rounding_matters": distance(plain, alone)}
