"""What two replicas do besides giving the weights of one: functions for `replicas.run`."""

import contextlib

import keras
import numpy as np
import tensorflow as tf
import tiny

import tfxformer
from tfxformer import layers, tasks, training


def dropped(strategy, kind, jit):
    """Weights that count, for each element, on how many of two replicas (one sample each) dropout kept it."""
    layer = {"keras": keras.layers.Dropout, "tfxformer": layers.Dropout}[kind]
    with strategy.scope():
        inputs = keras.Input((256,))
        weigh = keras.layers.EinsumDense("bd,d->bd", 256, kernel_initializer="zeros")
        model = training.DistributedModel(inputs, weigh(layer(0.5)(inputs)))
        model.compile(keras.optimizers.SGD(1.0), sum_of_outputs, jit_compile=jit)
    seed = next(v for v in model.non_trainable_variables if v.name == "seed_generator_state")
    before = np.asarray(seed.numpy())
    counts = []
    for _ in range(2):
        start = model.get_weights()[0]
        model.fit(np.ones((2, 256), "float32"), np.ones(2, "float32"), batch_size=2, verbose=0)
        counts.append(start - model.get_weights()[0])
    copies = [np.asarray(copy).tolist() for copy in strategy.experimental_local_results(seed.value)]
    return {
        "shares": [[float(np.mean(np.isclose(count, kept))) for kept in (0, 1, 2)] for count in counts],
        "differ": bool((counts[0] != counts[1]).any()),
        "drawn": (np.asarray(seed.numpy()) - before).tolist(),
        "one_seed": copies[0] == copies[1],
    }


def sum_of_outputs(_, outputs):
    return keras.ops.sum(outputs, axis=-1)


def loss_scales(scope, initial, steps):
    """The loss scale and its counter after a fit in float16, with updates made, and whether weights stayed finite."""
    with scope():
        keras.utils.set_random_seed(0)
        inputs = keras.Input((8,))
        hidden = keras.layers.Dense(16, dtype="mixed_float16")(inputs)
        model = training.DistributedModel(inputs, keras.layers.Dense(1, dtype="float32")(hidden))
        inner = keras.optimizers.AdamW(1e-3, gradient_accumulation_steps=steps if steps > 1 else None)
        scaled = keras.optimizers.LossScaleOptimizer(inner, initial_scale=initial, dynamic_growth_steps=4)
        model.compile(scaled, "mean_squared_error")
    x = np.random.default_rng(0).normal(size=(80, 8)).astype("float32")  # 20 batches
    model.fit(x, x[:, :1], batch_size=4, verbose=0, shuffle=False)
    return {
        "scale": float(scaled.dynamic_scale.numpy()),
        "counter": int(scaled.step_counter.numpy()),
        "updates": int(tf.cast(scaled.iterations, "int64")),
        "finite": bool(all(np.isfinite(weight).all() for weight in model.get_weights())),
    }


def language_model(scope):
    """A CausalLM of ours on texts of other lengths, the last batch smaller than the replicas: weights and history."""
    with scope():
        tokenizer = tfxformer.text.Tokenizer.train_byte_level_bpe(tiny.TEXTS, 280)
        model = tasks.CausalLM(
            tiny.backbone("gpt2", vocabulary_size=290, decoder__num_layers=1), tokenizer=tokenizer, sequence_length=16
        )
        optimizer = keras.optimizers.SGD(0.5, global_clipnorm=0.1, gradient_accumulation_steps=2)
        model.compile(optimizer, run_eagerly=scope is contextlib.nullcontext)
    blocks, targets, weights = model._examples(tiny.TEXTS)
    rows = slice(0, 9)  # batches of 4, 4 and 1: one replica gets nothing
    blocks = {name: value[rows] for name, value in blocks.items()}
    history = model.fit(
        blocks, targets[rows], sample_weight=weights[rows], batch_size=4, epochs=2, shuffle=False, verbose=0
    ).history
    return [weight.numpy() for weight in model.trainable_weights], {
        name: values[-1] for name, values in history.items()
    }


def batch_normalization(scope):
    """(moving means after a fit, message of a synchronized one)."""
    with scope():
        inputs = keras.Input((4,))
        model = training.DistributedModel(inputs, keras.layers.BatchNormalization(momentum=0.5)(inputs))
        model.compile("sgd", "mean_squared_error")
    x = np.random.default_rng(0).normal(size=(6, 4)).astype("float32")
    model.fit(x, x, batch_size=4, shuffle=False, verbose=0)
    return model.layers[-1].moving_mean.numpy()


def message(strategy, make):
    """What a mistake is told."""
    with strategy.scope():
        inputs = keras.Input((4,))
        model = make(inputs)
        model.compile("sgd", "mean_squared_error")
    try:
        model.fit(np.zeros((4, 4)), np.zeros((4, 4)), verbose=0)
    except ValueError as error:
        return str(error)
    return "no error"


class OwnStep(training.DistributedModel):
    def train_step(self, data):
        return super().train_step(data)


def loss_scales_of_both(strategy, initial, steps):
    """Of two replicas and of one device."""
    return [loss_scales(scope, initial, steps) for scope in (strategy.scope, contextlib.nullcontext)]


def language_models(strategy):
    """The largest difference of any weight, and the history of both."""
    (ours, ours_history), (alone, alone_history) = map(language_model, (strategy.scope, contextlib.nullcontext))
    difference = max(float(np.abs(a - b).max()) for a, b in zip(ours, alone, strict=True))
    return difference, ours_history, alone_history


def moving_means(strategy):
    """The largest difference between both."""
    return float(np.abs(batch_normalization(strategy.scope) - batch_normalization(contextlib.nullcontext)).max())


def messages(strategy):
    """What a layer and a model are told that cannot be right under replicas."""

    def synchronized(inputs):
        return training.DistributedModel(inputs, keras.layers.BatchNormalization(synchronized=True)(inputs))

    return {
        "synchronized": message(strategy, synchronized),
        "own_step": message(strategy, lambda inputs: OwnStep(inputs, keras.layers.Dense(4)(inputs))),
    }
