"""AdamW against the paper's formula in float64, against torch, and in the modes that compile can bring."""

import keras
import numpy as np
import pytest
import replicas
import tensorflow as tf

from tfxformer.training import AdamW, adamw, optimizer

RATE, DECAY, BETA_1, BETA_2, EPSILON, CLIP = 0.05, 0.1, 0.9, 0.999, 1e-8, 1.0
NAMES = ("kernel", "bias", "gamma", "beta", "embeddings")
DECAYED = {"kernel", "embeddings"}


def truth(values, steps_of_gradients, clip=CLIP):
    """Decoupled weight decay (Loshchilov and Hutter, algorithm 2), clipped by the global norm."""
    values = {name: value.astype("float64") for name, value in values.items()}
    first = {name: np.zeros_like(value) for name, value in values.items()}
    second = {name: np.zeros_like(value) for name, value in values.items()}
    for step, gradients in enumerate(steps_of_gradients, start=1):
        norm = np.sqrt(sum((gradient.astype("float64") ** 2).sum() for gradient in gradients.values()))
        scale = min(1.0, clip / norm) if clip else 1.0
        for name, gradient in gradients.items():
            gradient = gradient * scale
            first[name] += (gradient - first[name]) * (1 - BETA_1)
            second[name] += (gradient**2 - second[name]) * (1 - BETA_2)
            rate = RATE * np.sqrt(1 - BETA_2**step) / (1 - BETA_1**step)
            if name in DECAYED:
                values[name] = values[name] * (1 - RATE * DECAY)
            values[name] = values[name] - rate * first[name] / (np.sqrt(second[name]) + EPSILON)
    return values


def problem(steps=5):
    random = np.random.default_rng(0)
    shapes = dict.fromkeys(NAMES, (4,)) | {"kernel": (4, 3), "embeddings": (5, 4)}
    values = {name: random.standard_normal(shape).astype("float32") for name, shape in shapes.items()}
    gradients = [
        {name: random.standard_normal(shape).astype("float32") for name, shape in shapes.items()} for _ in range(steps)
    ]
    return values, gradients


def ours(**changes):
    arguments = {"weight_decay": DECAY, "epsilon": EPSILON, "global_clipnorm": CLIP}
    return AdamW(RATE, **{**arguments, **changes})


def run(optimizer, values, steps_of_gradients, compiled=None):
    variables = {name: keras.Variable(value, name=name) for name, value in values.items()}
    optimizer.build(list(variables.values()))

    def step(gradients):
        optimizer.apply([gradients[name] for name in values], list(variables.values()))

    if compiled is not None:
        step = tf.function(step, jit_compile=compiled, autograph=False)
    for gradients in steps_of_gradients:
        step({name: tf.constant(gradient) for name, gradient in gradients.items()})
    return {name: variable.numpy() for name, variable in variables.items()}


@pytest.mark.parametrize(("compiled", "clip"), [(None, CLIP), (None, None), (False, CLIP), (True, CLIP)])
def test_is_the_formula(compiled, clip):
    values, gradients = problem()
    found = run(ours(global_clipnorm=clip), values, gradients, compiled)
    for name, expected in truth(values, gradients, clip).items():
        np.testing.assert_allclose(found[name], expected, rtol=2e-5, atol=2e-6, err_msg=name)


def test_amsgrad_and_other_clipping_are_those_of_keras():
    values, gradients = problem()
    for changes in ({"amsgrad": True}, {"global_clipnorm": None, "clipnorm": 0.5}, {"clipvalue": 0.1}):
        changes = {"global_clipnorm": None, **changes}
        stock = keras.optimizers.AdamW(RATE, weight_decay=DECAY, epsilon=EPSILON, **changes)
        stock.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
        expected, found = run(stock, values, gradients), run(ours(**changes), values, gradients)
        for name in values:
            np.testing.assert_allclose(found[name], expected[name], rtol=2e-5, atol=2e-6, err_msg=name)


def test_only_kernels_and_embeddings_decay():
    """With zero gradients nothing but decay moves a variable."""
    values, gradients = problem()
    zeros = [{name: np.zeros_like(gradient) for name, gradient in step.items()} for step in gradients]
    found = run(ours(), values, zeros)
    for name, value in values.items():
        factor = (1 - RATE * DECAY) ** len(zeros) if name in DECAYED else 1.0
        np.testing.assert_allclose(found[name], value * factor, rtol=1e-6, err_msg=name)


def test_norm_counts_repeated_embedding_rows_once_summed():
    values, _ = problem()
    table = values["embeddings"]
    slices = tf.IndexedSlices(tf.constant([[1.0] * 4] * 3), tf.constant([2, 2, 0]), tf.constant([5, 4]))
    dense = np.zeros_like(table)
    np.add.at(dense, [2, 2, 0], np.ones((3, 4), "float32"))
    variable = keras.Variable(table, name="embeddings")
    optimizer = ours(global_clipnorm=1.0)
    optimizer.apply([slices], [variable])
    expected = truth({"embeddings": table}, [{"embeddings": dense}], 1.0)["embeddings"]
    np.testing.assert_allclose(variable.numpy(), expected, rtol=1e-5, atol=1e-6)


def test_gradient_that_is_not_finite_is_not_hidden():
    values, gradients = problem(1)
    gradients[0]["kernel"][0, 0] = np.inf
    assert not np.isfinite(run(ours(), values, gradients)["bias"]).any()


def small_model():
    inputs = keras.Input((6,), dtype="int32")
    x = keras.layers.LayerNormalization()(keras.layers.Embedding(20, 8)(inputs))
    x = keras.layers.Dense(8, activation="relu")(keras.layers.Flatten()(x))
    return keras.Model(inputs, keras.layers.Dense(2, dtype="float32")(x))


@pytest.fixture
def policy(request):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(request.param)
    yield request.param
    keras.config.set_dtype_policy(before)


def fitted(epochs=20):
    keras.utils.set_random_seed(0)
    random = np.random.default_rng(0)
    ids = random.integers(0, 20, (64, 6))
    model = small_model()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(adamw(80, learning_rate=0.02), loss)
    history = model.fit(ids, (ids[:, 0] > ids[:, 1]).astype("int32"), batch_size=16, epochs=epochs, verbose=0)
    return model, history.history["loss"]


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16", "mixed_float16"], indirect=True)
def test_learns_under_every_policy(policy):
    model, losses = fitted()
    assert losses[-1] < 0.3 * losses[0]
    scaled = isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
    assert scaled == (policy == "mixed_float16")
    assert int(model.optimizer.iterations.numpy()) == 80


def test_saved_model_keeps_optimizer_and_what_does_not_decay(tmp_path):
    model, _ = fitted(epochs=1)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert isinstance(again.optimizer, AdamW)
    assert again.optimizer.get_config() == model.optimizer.get_config()
    decays = {
        variable.path: again.optimizer._use_weight_decay(variable.value) for variable in again.trainable_variables
    }
    assert {path.rpartition("/")[2] for path, decayed in decays.items() if decayed} == {
        "kernel",
        "embeddings",
    }
    assert {path.rpartition("/")[2] for path, decayed in decays.items() if not decayed} == {
        "bias",
        "beta",
        "gamma",
    }


@pytest.mark.reference
def test_is_the_adamw_of_torch():
    torch = pytest.importorskip("torch")
    values, gradients = problem()
    parameters = {name: torch.nn.Parameter(torch.from_numpy(value.copy())) for name, value in values.items()}
    groups = [
        {
            "params": [p for name, p in parameters.items() if (name in DECAYED) == decays],
            "weight_decay": DECAY * decays,
        }
        for decays in (True, False)
    ]
    optimizer = torch.optim.AdamW(groups, lr=RATE, betas=(BETA_1, BETA_2), eps=EPSILON)
    for step in gradients:
        for name, parameter in parameters.items():
            parameter.grad = torch.from_numpy(step[name].copy())
        torch.nn.utils.clip_grad_norm_(parameters.values(), CLIP)
        optimizer.step()
    found = run(ours(), values, gradients)
    for name, parameter in parameters.items():
        np.testing.assert_allclose(found[name], parameter.detach().numpy(), rtol=1e-4, atol=1e-5, err_msg=name)


def largest_differences(strategy):
    """By optimizer, of any weight after three updates of two replicas (their gradients are summed) and one device."""

    def variables():
        layers = [keras.layers.Dense(3, kernel_initializer="ones", name=f"encoder_block_{i}") for i in range(2)]
        for layer in layers:
            layer.build((None, 2))
        return [variable for layer in layers for variable in layer.trainable_variables]

    def gradients(scale):
        return [tf.fill(variable.shape, scale * sign) for variable, sign in zip(single, (1, -2, 3, 1), strict=True)]

    found = {}
    for name in ("adamw", "lamb", "lion", "adafactor", "sgd"):
        with strategy.scope():
            mirrored = variables()
            shared = optimizer(name, 0.1, weight_decay=0.1, layer_decay=0.5, global_clipnorm=None)
            shared.build(mirrored)
        single = variables()
        alone = optimizer(name, 0.1, weight_decay=0.1, layer_decay=0.5, global_clipnorm=None)

        def replica(scale, shared=shared, mirrored=mirrored):
            shared.apply(gradients(scale / 2), mirrored)  # each gives half

        step = tf.function(lambda scale, replica=replica: strategy.run(replica, args=(scale,)), autograph=False)
        for scale in (1.0, 3.0, -2.0):
            step(tf.constant(scale))
            alone.apply(gradients(scale), single)
        found[name] = max(
            float(np.abs(copy.numpy() - b.numpy()).max())
            for a, b in zip(mirrored, single, strict=True)
            for copy in strategy.experimental_local_results(a.value)
        )
    return found


@pytest.mark.road
def test_two_replicas_make_the_step_of_one_device():
    found = replicas.run(largest_differences)
    assert len(found) == 5 and max(found.values()) < 1e-5, found
