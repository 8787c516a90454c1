"""Small teachers and students, and a case for `replicas.run`."""

import contextlib

import numpy as np
import tiny


def classifier(tokenizer=None, layers=4, seed=1, **changes):
    """A classifier, every weight random."""
    from tfxformer import tasks

    backbone = tiny.backbone("bert", encoder__num_layers=layers, **changes)
    return tiny.perturb(tasks.TextClassifier(backbone, ["negative", "positive"], tokenizer=tokenizer), seed)


def softmax(x):
    exponents = np.exp(x - x.max(axis=-1, keepdims=True))
    return exponents / exponents.sum(axis=-1, keepdims=True)


def divergence(student, teacher, temperature=2.0):
    """T^2 KL(teacher || student) in float64: [..., C] -> [...]."""
    s, t = softmax(np.float64(student) / temperature), softmax(np.float64(teacher) / temperature)
    return temperature**2 * (t * np.log(t / s)).sum(-1)


def language_model(family="gpt2", layers=2):
    """A causal language model and rows of other lengths, with the targets and weights of their next tokens."""
    from tfxformer import tasks

    model = tiny.perturb(tasks.CausalLM(tiny.backbone(family, decoder__num_layers=layers)), 2)
    inputs = tiny.batch(9, 12, token_types=1)
    targets = np.roll(inputs["token_ids"], -1, axis=1)
    weights = (np.roll(inputs["padding_mask"], -1, axis=1) * inputs["padding_mask"]).astype("float32")
    weights[:, -1] = 0
    return model, inputs, targets, weights


def tagger(width):
    """Keras' own layers with a label for each token: its step is traced in a moment."""
    import keras

    inputs = {name: keras.Input((None,), dtype="int32", name=name) for name in ("token_ids", "padding_mask")}
    x = keras.layers.Embedding(tiny.VOCABULARY_SIZE, width)(inputs["token_ids"])
    x = keras.layers.Dense(width, activation="tanh", name="inner")(x)
    return tiny.perturb(keras.Model(inputs, keras.layers.Dense(tiny.VOCABULARY_SIZE)(x)), width)


def trained(scope, jit, steps, small, eager=False):
    """(weights, history) of a student after two epochs; the last batch is of one row.

    It is of a language model, or a `small` one of Keras' layers.
    """
    import keras

    from tfxformer import compression

    with scope():
        teacher, inputs, targets, weights = language_model(layers=2)
        if small:
            teacher, student, options = tagger(16), tagger(8), {"layers": {"inner": "inner"}}
        else:
            student, options = compression.student_from(teacher, keep=1), {}
        losses = [compression.LogitsLoss(), compression.HiddenStateLoss(projection=True, weight=0.5, **options)]
        distiller = compression.Distiller(student, teacher, losses, label_weight=0.5)
        for number, layer in enumerate(distiller.learned):
            tiny.perturb(layer, number)
        optimizer = keras.optimizers.SGD(0.1, global_clipnorm=1.0, gradient_accumulation_steps=steps)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True) if small else "auto"
        distiller.compile(optimizer, loss, jit_compile=jit, run_eagerly=eager)
    history = distiller.fit(
        inputs, targets, sample_weight=weights, batch_size=4, epochs=2, shuffle=False, verbose=0
    ).history
    evaluated = distiller.evaluate(inputs, targets, sample_weight=weights, batch_size=4, verbose=0, return_dict=True)
    return [weight.numpy() for weight in distiller.trainable_weights], {
        **{name: values[-1] for name, values in history.items()},
        **{f"evaluated_{name}": value for name, value in evaluated.items()},
    }


def two_replicas_and_one_device(strategy, jit, steps, small):
    """The largest difference of any weight, and each figure of both."""
    alone, alone_history = trained(contextlib.nullcontext, False, steps, small, eager=True)
    ours, ours_history = trained(strategy.scope, jit, steps, small)
    return {
        "weights": max(float(np.abs(a - b).max()) for a, b in zip(ours, alone, strict=True)),
        "history": {key: [ours_history[key], alone_history[key]] for key in alone_history},
    }
