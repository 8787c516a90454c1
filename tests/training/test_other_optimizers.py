"""LAMB, Lion, Adafactor and SGD against their papers' formulas in float64, and where Keras differs from them."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfxformer.training import SGD, Adafactor, AdamW, Lamb, Lion, WarmupLinear, optimizer

RATE, DECAY, CLIP = 0.05, 0.1, 1.0
DECAYED = {"kernel", "embeddings"}
SHAPES = {"kernel": (4, 3), "bias": (3,), "gamma": (4,), "embeddings": (5, 4)}
STEPS = 6


def problem(steps=STEPS, seed=0):
    random = np.random.default_rng(seed)
    values = {name: random.standard_normal(shape).astype("float32") for name, shape in SHAPES.items()}
    values["bias"][:] = 0.0  # as biases begin
    gradients = [
        {name: random.standard_normal(shape).astype("float32") for name, shape in SHAPES.items()} for _ in range(steps)
    ]
    return values, gradients


def run(optimizer, values, gradients, compiled=None):
    variables = {name: keras.Variable(value, name=name) for name, value in values.items()}
    optimizer.build(list(variables.values()))

    def step(step_gradients):
        optimizer.apply([step_gradients[name] for name in values], list(variables.values()))

    if compiled is not None:
        step = tf.function(step, jit_compile=compiled, autograph=False)
    for step_gradients in gradients:
        step({name: tf.constant(gradient) for name, gradient in step_gradients.items()})
    return {name: variable.numpy() for name, variable in variables.items()}


def truth(formula, values, gradients, decay=DECAY, clip=CLIP, rate=lambda step: RATE):
    """Runs `formula(w, g, state, step, rate, decay) -> w` over all variables, gradients clipped together."""
    values = {name: value.astype("float64") for name, value in values.items()}
    states = {name: {} for name in values}
    for step, step_gradients in enumerate(gradients, start=1):
        norm = np.sqrt(sum((gradient.astype("float64") ** 2).sum() for gradient in step_gradients.values()))
        for name, gradient in step_gradients.items():
            g = gradient.astype("float64") * (min(1.0, clip / norm) if clip else 1.0)
            decays = decay if name in DECAYED else None
            values[name] = formula(values[name], g, states[name], step, rate(step), decays)
    return values


def lamb(w, g, state, step, rate, decay):
    state["m"] = 0.9 * state.get("m", 0) + 0.1 * g
    state["v"] = 0.999 * state.get("v", 0) + 0.001 * g**2
    update = state["m"] / (1 - 0.9**step) / (np.sqrt(state["v"] / (1 - 0.999**step)) + 1e-6)
    if decay is None:
        return w - rate * update
    update = update + decay * w
    lengths = np.linalg.norm(w), np.linalg.norm(update)
    return w - rate * (lengths[0] / lengths[1] if all(lengths) else 1.0) * update


def lion(w, g, state, step, rate, decay):
    momentum = state.get("m", np.zeros_like(g))
    state["m"] = 0.99 * momentum + 0.01 * g
    return w - rate * (np.sign(0.9 * momentum + 0.1 * g) + (decay or 0) * w)


def adafactor(w, g, state, step, rate, decay):
    """Algorithm 4, its sums written out: V is the outer product of row and column sums over the sum of all."""
    beta = 1 - step**-0.8
    square = g**2 + 1e-30
    if g.ndim == 2:
        state["r"] = beta * state.get("r", 0) + (1 - beta) * square.sum(1)
        state["c"] = beta * state.get("c", 0) + (1 - beta) * square.sum(0)
        v = np.outer(state["r"], state["c"]) / state["r"].sum()
    else:
        state["v"] = v = beta * state.get("v", 0) + (1 - beta) * square
    update = g / np.sqrt(v)
    update = update / max(1.0, np.sqrt((update**2).mean()))
    alpha = rate * max(1e-3, np.sqrt((w**2).mean()))
    return w - alpha * update - alpha * (decay or 0) * w


def sgd(w, g, state, step, rate, decay):
    state["m"] = 0.9 * state.get("m", 0) - rate * g
    return w * (1 - rate * (decay or 0)) + state["m"]


FORMULAS = {"lamb": lamb, "lion": lion, "adafactor": adafactor, "sgd": sgd}


def close(found, expected):
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=5e-5, atol=5e-6, err_msg=name)


@pytest.mark.parametrize("compiled", [None, False, True])
@pytest.mark.parametrize("name", FORMULAS)
def test_is_the_formula(name, compiled):
    values, gradients = problem()
    found = run(optimizer(name, RATE, weight_decay=DECAY), values, gradients, compiled)
    close(found, truth(FORMULAS[name], values, gradients))


@pytest.mark.parametrize("name", FORMULAS)
def test_is_the_formula_under_a_schedule_and_without_clipping(name):
    values, gradients = problem(seed=1)
    made = optimizer(name, WarmupLinear(0.5, 8, 2), weight_decay=DECAY, global_clipnorm=None)
    rates = [0.0, 0.25, 0.5, 0.5 * 5 / 6, 0.5 * 4 / 6, 0.5 * 3 / 6]
    expected = truth(FORMULAS[name], values, gradients, clip=None, rate=lambda step: rates[step - 1])
    close(run(made, values, gradients), expected)


@pytest.mark.parametrize("name", [*FORMULAS, "adamw"])
def test_config_goes_around(name):
    made = optimizer(name, WarmupLinear(0.5, 8, 2), layer_decay=0.9, no_decay=("bias",), weight_decay=0.3)
    again = keras.optimizers.deserialize(keras.optimizers.serialize(made))
    assert type(again) is type(made) and again.get_config() == made.get_config()
    assert again.layer_decay == 0.9 and tuple(again.no_decay) == ("bias",) and again.global_clipnorm == 1.0


def test_names():
    kinds = {"adamw": AdamW, "lamb": Lamb, "lion": Lion, "adafactor": Adafactor, "sgd": SGD}
    for name, kind in kinds.items():
        assert type(optimizer(name, 0.1)) is kind
    with pytest.raises(ValueError, match="No optimizer is named 'adagrad'; there are adamw, lamb"):
        optimizer("adagrad", 0.1)


# ---- where Keras is not the paper -----------------------------------------------------------------------------


def test_keras_lamb_is_ours_but_for_weight_decay():
    values, gradients = problem()
    matrices = {name: values[name] for name in DECAYED}
    arguments = {"epsilon": 1e-6, "global_clipnorm": None}
    stock = run(keras.optimizers.Lamb(RATE, **arguments), matrices, gradients)
    close(run(Lamb(RATE, weight_decay=0.0, **arguments), matrices, gradients), stock)
    decayed = run(keras.optimizers.Lamb(RATE, weight_decay=DECAY, **arguments), matrices, gradients)
    expected = truth(lamb, matrices, [{name: g[name] for name in DECAYED} for g in gradients], clip=None)
    assert max(np.abs(decayed[name] - expected[name]).max() for name in DECAYED) > 1e-3


def test_keras_adafactor_caps_every_rate_and_ours_where_asked():
    values, gradients = problem()
    rate = lambda step: 2.0  # noqa: E731  above 1 / sqrt(step)
    capped = lambda step: min(2.0, step**-0.5)  # noqa: E731
    arguments = {"global_clipnorm": None, "relative_step": False}
    stock = run(keras.optimizers.Adafactor(2.0, **arguments), values, gradients)
    close(stock, truth(adafactor, values, gradients, decay=0, clip=None, rate=capped))
    close(run(Adafactor(2.0, **arguments), values, gradients), truth(adafactor, values, gradients, 0, None, rate))
    relative = run(Adafactor(2.0, global_clipnorm=None, relative_step=True), values, gradients)
    close(relative, truth(adafactor, values, gradients, 0, None, capped))


def test_adafactor_keeps_rows_and_columns_only():
    variables = [keras.Variable(np.ones((3, 40, 50)), name="kernel"), keras.Variable(np.ones(50), name="bias")]
    ours, stock = Adafactor(), keras.optimizers.Adafactor()
    for made in (ours, stock):
        made.build(variables)
    sizes = [sum(int(np.prod(v.shape)) for v in made.variables) for made in (ours, stock)]
    assert sizes[0] == 2 + 3 * 40 + 3 * 50 + 50  # with iteration and learning rate
    assert sizes[1] > 3 * 40 * 50


def test_adafactor_with_tiny_gradients_is_finite():
    """Rows of zeros, as most rows of an embedding's gradient are: their squares are epsilon_1 alone."""
    gradient = np.zeros((5, 4), "float32")
    gradient[1] = 1e-12
    values = {"embeddings": np.ones((5, 4), "float32")}
    found = run(Adafactor(RATE), values, [{"embeddings": gradient}] * 3)["embeddings"]
    assert np.isfinite(found).all() and (found[1] != 1).all() and (found[[0, 2]] == 1).all()


# ---- against other libraries ----------------------------------------------------------------------------------


@pytest.mark.reference
def test_adafactor_is_that_of_transformers():
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    values, gradients = problem()
    for relative in (False, True):
        parameters = {name: torch.nn.Parameter(torch.from_numpy(value.copy())) for name, value in values.items()}
        groups = [
            {
                "params": [p for name, p in parameters.items() if (name in DECAYED) == decays],
                "weight_decay": DECAY * decays,
            }
            for decays in (True, False)
        ]
        theirs = transformers.Adafactor(groups, lr=None if relative else RATE, relative_step=relative)
        for step_gradients in gradients:
            for name, parameter in parameters.items():
                parameter.grad = torch.from_numpy(step_gradients[name].copy())
            theirs.step()
        ours = Adafactor(1e-2 if relative else RATE, weight_decay=DECAY, relative_step=relative)
        close(run(ours, values, gradients), {name: p.detach().numpy() for name, p in parameters.items()})


@pytest.mark.reference
def test_sgd_is_that_of_torch():
    torch = pytest.importorskip("torch")
    values, gradients = problem()
    parameters = {name: torch.nn.Parameter(torch.from_numpy(value.copy())) for name, value in values.items()}
    theirs = torch.optim.SGD(parameters.values(), lr=RATE, momentum=0.9)
    for step_gradients in gradients:
        for name, parameter in parameters.items():
            parameter.grad = torch.from_numpy(step_gradients[name].copy())
        torch.nn.utils.clip_grad_norm_(parameters.values(), CLIP)
        theirs.step()
    found = run(SGD(RATE, global_clipnorm=CLIP), values, gradients)
    close(found, {name: p.detach().numpy() for name, p in parameters.items()})
