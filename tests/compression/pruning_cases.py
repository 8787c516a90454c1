"""What the pruning tests share: a small transformer, its data, the truth in numpy, and cases for `replicas.run`."""

import numpy as np

from tfxformer.compression import PolynomialDecay

SCHEDULE = PolynomialDecay(0.0, 0.8, begin_step=2, end_step=20, frequency=3)  # of the 24 updates of `fit`
_rng = np.random.default_rng(7)
TOKENS = _rng.integers(0, 50, (64, 6)).astype("int32")
LABELS = _rng.integers(0, 3, 64).astype("int32")


def small_transformer(dtype=None):
    """Attention (rank-3 kernels), Dense, EinsumDense, and a head behind a softmax."""
    import keras

    keras.utils.set_random_seed(0)
    tokens = keras.Input((6,), dtype="int32")
    x = keras.layers.Embedding(50, 8, dtype=dtype)(tokens)
    x = x + keras.layers.MultiHeadAttention(2, 4, dtype=dtype)(x, x)
    x = keras.layers.LayerNormalization(dtype=dtype)(x)
    y = keras.layers.Dense(16, "gelu", name="dense", dtype=dtype)(x)
    x = x + keras.layers.EinsumDense("abc,cd->abd", (6, 8), dtype=dtype)(y)
    x = keras.layers.GlobalAveragePooling1D(dtype=dtype)(x)
    x = keras.layers.Dense(3, name="head", dtype=dtype)(x)
    return keras.Model(tokens, keras.layers.Softmax(dtype="float32")(x))


def small_dense(dtype=None, constraint=None, base=None):
    """Two kernels, [24, 16] and [16, 8], and a head: compiles in a moment. `base` is its class."""
    import keras

    keras.utils.set_random_seed(0)
    tokens = keras.Input((6,), dtype="int32")
    x = keras.layers.Flatten()(keras.layers.Embedding(50, 4, dtype=dtype)(tokens))
    x = keras.layers.Dense(16, activation="tanh", name="dense", kernel_constraint=constraint, dtype=dtype)(x)
    x = keras.layers.Dense(8, activation="tanh", name="second", dtype=dtype)(x)
    x = keras.layers.Dense(3, activation="softmax", name="head", dtype=dtype)(x)
    return (base or keras.Model)(tokens, x)


def compiled(model, optimizer=None, **options):
    """The model with a loss, and `descent()` where no optimizer is given."""
    model.compile(optimizer or descent(), "sparse_categorical_crossentropy", **options)
    return model


def descent(**options):
    """An optimizer with a state, whose graph is a third of AdamW's: tracing it is most of what a small `fit` costs."""
    import keras

    return keras.optimizers.SGD(0.1, momentum=0.9, **options)


def fit(model, *callbacks, epochs=3, **options):
    """24 updates of 8 rows in a fixed order."""
    arguments = {"batch_size": 8, "shuffle": False, "verbose": 0, **options}
    return model.fit(TOKENS, LABELS, epochs=epochs, callbacks=list(callbacks), **arguments)


def assert_nothing_left(model):
    """Of a callback that holds kernels while `fit` runs."""
    from tfxformer.compression.pruning.held_kernels import HeldConstraint

    assert not any(isinstance(weight.constraint, HeldConstraint) for weight in model.weights)
    assert "make_train_function" not in vars(model) and "update_step" not in vars(model.optimizer)


def kernels(model):
    """name -> float64 array, of all kernels but the head's: found by name here, not by the package."""
    return {
        weight.path: np.asarray(weight, "float64")
        for weight in model.weights
        if weight.path.endswith("/kernel") and not weight.path.startswith("head/")
    }


def last_acting(step, begin, end, frequency):
    acting = [s for s in range(0, step + 1) if s >= begin and s <= end and (s - begin) % frequency == 0]
    return acting[-1] if acting else None


def polynomial(step, initial, final, begin, end, power=3, frequency=100):
    """The sparsity in force after update `step`, float32 as tfmot computes it; 0 before the first."""
    step = last_acting(step, begin, end, frequency)
    if step is None:
        return np.float32(0)
    progress = np.float32(np.clip(np.float32(step - begin) / np.float32(end - begin), 0, 1))
    return np.float32(initial - final) * np.power(np.float32(1) - progress, np.float32(power)) + np.float32(final)


def expected_zeros(update, size):
    """Of a kernel of so many weights, after an update under `SCHEDULE`."""
    return zeros_at(polynomial(update, 0.0, 0.8, 2, 20, 3, 3), size)


def zeros_at(sparsity, size):
    kept = max(np.round(np.float32(size) * (np.float32(1) - np.float32(sparsity))), 1)
    return size - int(kept)


def largest(magnitudes, sparsity):
    """True for those kept, among equals the first."""
    flat = magnitudes.ravel()
    mask = np.zeros(flat.size, bool)
    mask[np.argsort(-flat, kind="stable")[: flat.size - zeros_at(sparsity, flat.size)]] = True
    return mask.reshape(magnitudes.shape)


def watcher(expected_zeros, replicas=1, of=None):
    """A callback that compares each kernel's zeros with expected_zeros(update, size) after each execution.

    `of` is the model whose kernels they are, None for the one that trains.
    """
    import keras
    import tensorflow as tf

    class Watch(keras.callbacks.Callback):
        checked, off = 0, ()

        def on_train_batch_end(self, batch, logs=None):
            update = int(tf.cast(self.model.optimizer.iterations, tf.int64))
            strategy = self.model.distribute_strategy
            for weight in (of or self.model).weights:
                if not weight.path.endswith("/kernel") or weight.path.startswith("head/"):
                    continue
                copies = [np.asarray(copy) for copy in strategy.experimental_local_results(weight.value)]
                assert len(copies) == replicas
                wanted = expected_zeros(update, copies[0].size)
                for copy in copies:
                    self.checked += 1
                    zeros = int(np.sum(copy.astype("float32") == 0))
                    if zeros != wanted or copy.tobytes() != copies[0].tobytes():
                        self.off = (*self.off, (update, weight.path, zeros, wanted))

    return Watch()


def mirrored_case(strategy, base=None, accumulate=None, jit_compile=False, method="magnitude"):
    """Stock `fit` under two replicas."""
    from tfxformer.compression import Prune

    with strategy.scope():
        model = small_dense("mixed_bfloat16", base=base)
        optimizer = descent(use_ema=True, global_clipnorm=1.0, gradient_accumulation_steps=accumulate)
        compiled(model, optimizer, jit_compile=jit_compile)
    end = 11 if accumulate else 20  # an update at which the schedule acts
    watch = watcher(lambda s, n: zeros_at(polynomial(s, 0.0, 0.8, 2, end, 3, 3), n), replicas=2)
    prune = Prune(PolynomialDecay(0.0, 0.8, 2, end, frequency=3), method=method)
    history = model.fit(TOKENS, LABELS, batch_size=8, epochs=3, verbose=0, callbacks=[watch, prune])
    end = [int(np.sum(value == 0)) == zeros_at(0.8, value.size) for value in kernels(model).values()]
    return {"checked": watch.checked, "off": watch.off, "end": all(end), **history.history}


def distributed_case(strategy, method="magnitude", jit_compile=False):
    """The same with what Keras' own step cannot do there: an update every other batch, and XLA."""
    from tfxformer.training import DistributedModel

    return mirrored_case(strategy, DistributedModel, accumulate=2, jit_compile=jit_compile, method=method)


def tfmot_cases():
    """The same training by tfmot on tf_keras and by us on Keras 3: the largest difference of any weight.

    tfmot masks before the forward pass and counts from 1: its step s is our update s - 1.
    """
    import keras
    import tensorflow as tf

    assert tf.keras.__name__.startswith("keras.")  # touched before tfmot: stays Keras 3
    import tensorflow_model_optimization as tfmot
    import tf_keras

    from tfxformer import compression

    sparsity = tfmot.sparsity.keras
    rng = np.random.default_rng(7)
    x = rng.normal(size=(64, 16)).astype("float32")
    results = {}
    for name, begin, once, block, m_by_n in (
        ("element", 2, False, (1, 1), None),
        ("block", 2, False, (4, 1), None),
        ("2:4", 0, True, (1, 1), (2, 4)),
    ):
        initial = [rng.normal(size=shape).astype("float32") * 0.3 for shape in ((16, 12), (12,), (12, 3), (3,))]
        models = {}
        for library in (keras, tf_keras):
            inputs = library.Input((16,))
            hidden = library.layers.Dense(12, activation="tanh", name="hidden")
            model = library.Model(inputs, library.layers.Dense(3, activation="softmax")(hidden(inputs)))
            model.set_weights(initial)
            models[library] = model

        def schedule(package, shift, begin=begin, once=once):
            if once:
                return package.ConstantSparsity(0.5, begin + shift, begin + shift, 1)
            return package.PolynomialDecay(0.1, 0.8, begin + shift, 20 + shift, frequency=3)

        ours = models[keras]
        ours.compile(keras.optimizers.SGD(0.5), "sparse_categorical_crossentropy")
        prune = compression.Prune(schedule(compression, 0), block, m_by_n=m_by_n, layers=lambda layer: True)
        ours.fit(x, LABELS, batch_size=8, epochs=3, shuffle=False, verbose=0, callbacks=[prune])

        options = {"sparsity_m_by_n": m_by_n} if m_by_n else {"block_size": block}
        theirs = sparsity.prune_low_magnitude(models[tf_keras], pruning_schedule=schedule(sparsity, 1), **options)
        theirs.compile(tf_keras.optimizers.SGD(0.5), "sparse_categorical_crossentropy")
        step = sparsity.UpdatePruningStep()
        theirs.fit(x, LABELS, batch_size=8, epochs=3, shuffle=False, verbose=0, callbacks=[step])
        pairs = list(zip(ours.get_weights(), sparsity.strip_pruning(theirs).get_weights(), strict=True))
        results[name] = {
            "difference": max(float(np.max(np.abs(a - b))) for a, b in pairs),
            "moved": float(np.max(np.abs(pairs[0][0] - initial[0]))),
            "zeros": int(np.sum(pairs[0][0] == 0)),
        }
    return results


def clustering_cases():
    """The same training by tfmot's `cluster_weights` on tf_keras and by us on Keras 3, from the same centroids."""
    import keras
    import tensorflow as tf

    assert tf.keras.__name__.startswith("keras.")
    import tensorflow_model_optimization as tfmot
    import tf_keras
    from tensorflow_model_optimization.python.core.clustering.keras import cluster_config

    from tfxformer import compression

    config = tfmot.clustering.keras
    rng = np.random.default_rng(7)
    x = rng.normal(size=(64, 16)).astype("float32")
    initial = [rng.normal(size=shape).astype("float32") * 0.3 for shape in ((16, 12), (12,), (12, 3), (3,))]
    models = {}
    for library in (keras, tf_keras):
        inputs = library.Input((16,))
        hidden = library.layers.Dense(12, activation="tanh", name="hidden")
        model = library.Model(inputs, library.layers.Dense(3, activation="softmax", name="head")(hidden(inputs)))
        model.set_weights(initial)
        models[library] = model
    chosen = {}

    class Look(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if not epoch:
                engines = cluster.engines
                chosen.update({e._kernel.layer.name: e.cluster_centroids.numpy() for e in engines})

    ours = models[keras]
    ours.compile(keras.optimizers.SGD(0.3), "sparse_categorical_crossentropy")
    cluster = compression.Cluster(8, layers=lambda layer: True)
    ours.fit(x, LABELS, batch_size=8, epochs=3, shuffle=False, verbose=0, callbacks=[cluster, Look()])

    theirs = config.cluster_weights(
        models[tf_keras],
        number_of_clusters=8,
        cluster_centroids_init=config.CentroidInitialization.KMEANS_PLUS_PLUS,
        cluster_gradient_aggregation=cluster_config.GradientAggregation.AVG,
    )
    theirs(x[:1])
    for layer in theirs.layers:
        if hasattr(layer, "cluster_centroids"):
            layer.cluster_centroids["kernel"].assign(chosen[layer.layer.name])
    theirs.compile(tf_keras.optimizers.SGD(0.3), "sparse_categorical_crossentropy")
    theirs.fit(x, LABELS, batch_size=8, epochs=3, shuffle=False, verbose=0)
    theirs(x[:1])  # the last update's nearest centroids
    pairs = list(zip(ours.get_weights(), config.strip_clustering(theirs).get_weights(), strict=True))
    return {
        "difference": max(float(np.max(np.abs(a - b))) for a, b in pairs),
        "moved": float(np.abs(np.unique(pairs[0][0]) - np.sort(chosen["hidden"])).max()),
        "values": [len(np.unique(a)) for a, _ in pairs],
    }


def clustering_mirrored_case(strategy, jit_compile=False):
    """Two replicas, an update every other batch: the same few values on both, after each batch."""
    from tfxformer.compression import Cluster
    from tfxformer.training import DistributedModel

    with strategy.scope():
        model = small_dense("mixed_bfloat16", base=DistributedModel)
        optimizer = descent(global_clipnorm=1.0, gradient_accumulation_steps=2)
        compiled(model, optimizer, jit_compile=jit_compile)
    watch = value_watcher(8, replicas=2)
    before = kernels(model)
    model.fit(TOKENS, LABELS, batch_size=8, epochs=2, verbose=0, callbacks=[watch, Cluster(8)])
    moved = [float(np.abs(kernels(model)[path] - values).max()) for path, values in before.items()]
    return {"checked": watch.checked, "off": watch.off, "moved": min(moved)}


def value_watcher(most, replicas=1):
    """A callback that counts each kernel's distinct values after each execution."""
    import keras

    class Watch(keras.callbacks.Callback):
        checked, off = 0, ()

        def on_train_batch_end(self, batch, logs=None):
            strategy = self.model.distribute_strategy
            for weight in self.model.weights:
                if not weight.path.endswith("/kernel") or weight.path.startswith("head/"):
                    continue
                copies = [np.asarray(copy) for copy in strategy.experimental_local_results(weight.value)]
                assert len(copies) == replicas
                for copy in copies:
                    self.checked += 1
                    values = len(np.unique(copy.astype("float32")))
                    if values > most or copy.tobytes() != copies[0].tobytes():
                        self.off = (*self.off, (int(batch), weight.path, values))

    return Watch()
