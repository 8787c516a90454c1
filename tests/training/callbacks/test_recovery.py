"""Recovery from blow-ups: the state that is gone back to, what training goes on with, and when it ends."""

import keras
import numpy as np
import pytest
import replicas
import tensorflow as tf

from tfxformer.training import (
    DistributedModel,
    Recover,
    SwapEMAWeights,
    TrainingDivergedError,
    WarmupLinear,
    find_learning_rate,
    optimizer,
)
from tfxformer.training.optimizers.schedules import Scaled
from tfxformer.training.resume.state import State

BATCH = 4
pytestmark = pytest.mark.usefixtures("eager")


def regression(made=None, **options):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((3,))
    x = keras.layers.Dropout(0.1, seed=1)(keras.layers.Dense(6, activation="tanh")(inputs))
    model = keras.Model(inputs, keras.layers.Dense(1)(x))
    model.compile(made or optimizer("adamw", 0.01), "mse", **options)
    return model


def batches(count, bad=(), value=np.nan):
    random = np.random.default_rng(0)
    x = random.standard_normal((count, BATCH, 3)).astype("float32")
    y = x.sum(-1, keepdims=True)
    for batch in bad:
        y[batch] = value
    return x, y


def dataset(x, y):
    return tf.data.Dataset.from_tensor_slices((x, y))


def fit(model, x, y, recover=None, epochs=1, **options):
    return model.fit(
        dataset(x, y), epochs=epochs, verbose=0, shuffle=False, callbacks=[recover] if recover else [], **options
    )


def state(model):
    return [variable.numpy() for variable in (*model.variables, *model.optimizer.variables)]


def same(found, expected):
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("path", [None, "states/good.npz"])
@pytest.mark.parametrize("options", [{}, pytest.param({"jit_compile": True}, marks=pytest.mark.slow)], ids=str)
def test_a_bad_batch_is_as_if_it_had_never_come(path, options, tmp_path, traced):
    """With a state after every batch and the rate kept, the result is that of the other batches, dropout included."""
    x, y = batches(12, bad=[7])
    model = regression(**options)
    recover = Recover(factor=1.0, every=1, path=path and tmp_path / path)
    with pytest.warns(
        UserWarning, match=r"loss of batch 7 in epoch 0 was nan \(not finite\); back to the state after 6"
    ):
        history = fit(model, x, y, recover)
    # The state after batch 6 has no loss yet when batch 7 comes: the one proven good is that after batch 5.
    good = [i for i in range(12) if i not in (6, 7)]
    alone = regression(**options)
    expected = fit(alone, x[good], y[good])
    same(state(model), state(alone))
    np.testing.assert_allclose(history.history["loss"], expected.history["loss"], rtol=1e-6)
    (event,) = recover.events
    assert event[:2] == (0, 7) and np.isnan(event.loss) and event[3:] == ("not finite", 8, 6, 1.0)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.parametrize(("rate", "graph"), [(0.01, False), (WarmupLinear(0.01, 100, 0.1), True)])
def test_a_spike_lowers_the_rate(rate, graph):
    tf.config.run_functions_eagerly(not graph)
    x, y = batches(40, bad=[25, 33], value=1e3)
    model = regression(optimizer("sgd", rate))
    recover = Recover(factor=0.5, every=5, spike=10.0)
    with pytest.warns(UserWarning, match="spike.*back to the state after 20 updates and rates times 0.5"):
        fit(model, x, y, recover)
    assert [(e.batch, e.reason, e.restored_step, e.factor) for e in recover.events] == [
        (25, "spike", 20, 0.5),
        (33, "spike", 25, 0.25),
    ]
    if isinstance(rate, float):
        assert float(model.optimizer.learning_rate) == np.float32(0.0025)
    else:
        schedule = model.optimizer._learning_rate
        assert isinstance(schedule, Scaled) and schedule.factor == 0.25 and schedule.schedule is rate
    # The same by hand: each stretch at its rate.
    alone = regression(optimizer("sgd", rate))
    stretches = ((range(20), 1.0), (range(26, 31), 0.5), (range(34, 40), 0.25))
    for stretch, factor in stretches:
        if isinstance(rate, float):
            alone.optimizer.learning_rate = rate * factor
        else:
            alone.optimizer.learning_rate = Scaled(rate, factor)
            alone.make_train_function(force=True)
        index = list(stretch)
        fit(alone, x[index], y[index])
    same(model.get_weights(), alone.get_weights())


def test_an_update_that_spoils_the_weights_is_undone():
    """A loss that is finite, a gradient that is not: the batch after it shows it."""
    model = regression(optimizer("sgd", 0.01, global_clipnorm=None))
    x, y = batches(20)
    y[9] = 3e19  # its square is finite in float32 for a mean of 4, its gradients overflow what follows
    recover = Recover(factor=1.0, spike=None, every=1)
    with pytest.warns(UserWarning, match="Recover"):
        fit(model, x, y, recover)
    assert recover.events and all(np.isfinite(weight).all() for weight in model.get_weights())
    assert all(np.abs(weight).max() < 10 for weight in model.get_weights())


def test_what_was_accumulated_goes_back_too(tmp_path):
    def accumulating():
        keras.utils.set_random_seed(0)
        inputs = keras.Input((3,))
        model = DistributedModel(inputs, keras.layers.Dense(1)(keras.layers.Dense(6, activation="tanh")(inputs)))
        model.compile(optimizer("adamw", 0.01, gradient_accumulation_steps=5), "mse", jit_compile=False)
        return model

    x, y = batches(12, bad=[7])
    good = [i for i in range(12) if i not in (6, 7)]
    alone = accumulating()
    fit(alone, x[good], y[good])
    for path in (None, tmp_path / "good.npz"):
        model = accumulating()
        with pytest.warns(UserWarning, match="back to the state after 1 updates"):
            fit(model, x, y, Recover(factor=1.0, every=1, path=path))
        assert int(model.optimizer.iterations) == 2
        same(state(model), state(alone))
    kept = State(accumulating())  # of before there is anything to accumulate in
    fit(kept._model, x[:3], x[:3].sum(-1, keepdims=True))
    assert kept._model._accumulation.accumulator.pending == 3
    kept.restore()
    assert kept._model._accumulation.accumulator.pending == 0


def test_gives_up_with_the_last_good_state():
    x, y = batches(20, bad=range(10, 20))
    model = regression()
    recover = Recover(every=1, limit=2)
    with pytest.warns(UserWarning, match="Recover"), pytest.raises(TrainingDivergedError, match="blew up 3 times"):
        fit(model, x, y, recover)
    alone = regression()
    fit(alone, x[:9], y[:9])
    same(model.get_weights(), alone.get_weights())
    assert [event.batch for event in recover.events] == [10, 11, 12]


def test_a_blow_up_at_once_goes_back_to_the_beginning():
    x, y = batches(5, bad=[0])
    model = regression()
    with pytest.warns(UserWarning, match="back to the state after 0 updates"):
        fit(model, x, y, Recover(factor=1.0))
    alone = regression()
    fit(alone, x[1:], y[1:])
    same(state(model), state(alone))


def test_a_blow_up_at_the_begin_of_an_epoch_keeps_its_metrics_apart():
    x, y = batches(12, bad=[6])
    model = regression()
    recover = Recover(factor=1.0, every=4)
    with pytest.warns(UserWarning, match="batch 0 in epoch 1 .* back to the state after 4 updates"):
        history = fit(model, x, y, recover, epochs=2, steps_per_epoch=6)
    alone = regression()
    fit(alone, x[:4], y[:4])
    second = fit(alone, x[7:], y[7:])
    same(state(model), state(alone))
    np.testing.assert_allclose(history.history["loss"][1:], second.history["loss"], rtol=1e-6)


def test_with_several_steps_per_execution_and_no_trouble_nothing_changes():
    x, y = batches(12)
    model, alone = (regression(steps_per_execution=3) for _ in range(2))
    recover = Recover(every=2)
    fit(model, x, y, recover, epochs=2)
    fit(alone, x, y, epochs=2)
    same(state(model), state(alone))
    assert recover.events == []


def test_several_steps_per_execution_are_left_out_together(traced):
    x, y = batches(12, bad=[7])
    model = regression(steps_per_execution=3)
    with pytest.warns(UserWarning, match="loss of batch 8 in epoch 0 was nan"):
        fit(model, x, y, Recover(factor=1.0, every=1))
    alone = regression(steps_per_execution=3)
    good = [0, 1, 2, 9, 10, 11]
    fit(alone, x[good], y[good])
    same(model.get_weights(), alone.get_weights())


def test_half_precision_and_bfloat16_states_in_a_file(tmp_path):
    keras.config.set_dtype_policy("bfloat16")
    x, y = batches(8, bad=[4])
    model = regression()
    recover = Recover(factor=1.0, every=1, path=tmp_path / "good.npz")
    with pytest.warns(UserWarning, match="Recover"):
        fit(model, x, y, recover)
    assert {variable.dtype for variable in model.trainable_variables} == {"bfloat16"}
    alone = regression()
    good = [0, 1, 2, 5, 6, 7]
    fit(alone, x[good], y[good])
    same([value.astype("float32") for value in state(model)], [value.astype("float32") for value in state(alone)])


def test_what_cannot_be(tmp_path):
    for arguments, message in (
        ({"factor": 0}, "factor multiplies the rate"),
        ({"factor": 2}, "factor multiplies the rate"),
        ({"spike": 1}, "spike is how many times"),
        ({"every": 0}, "every must be at least 1"),
        ({"limit": -1}, "limit at least 0"),
    ):
        with pytest.raises(ValueError, match=message):
            Recover(**arguments)
    x, y = batches(2)
    with pytest.raises(TypeError, match="cannot be lowered"):
        fit(regression(optimizer("sgd", lambda: 0.1)), x, y, Recover())
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"good.npz could not be written"):
        fit(regression(), x, y, Recover(path=tmp_path / "file" / "good.npz"))


# ---- two replicas: these run in the process of `replicas` -----------------------------------------------------

X = np.random.default_rng(0).standard_normal((12, 4, 3)).astype("float32")
Y = X.sum(-1, keepdims=True)
GOOD = [i for i in range(12) if i not in (6, 7)]


def averaged(base=keras.Model, **options):
    """A model whose optimizer keeps averages."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((3,))
    model = base(inputs, keras.layers.Dense(1)(keras.layers.Dense(6, activation="tanh")(inputs)))
    made = optimizer("adamw", 0.01, global_clipnorm=None, use_ema=True, ema_momentum=0.5, **options)
    model.compile(made, "mse", jit_compile=False)
    return model


def copies(model, strategy):
    """Every weight and average, as each replica has it."""
    for variable in (*model.trainable_variables, *model.optimizer._model_variables_moving_average):
        yield [copy.numpy() for copy in strategy.experimental_local_results(variable.value)]


def recovered(strategy, updates, base=keras.Model, **options):
    """A model trained under two replicas over a bad batch, compared with one device without it."""
    bad = Y.copy()
    bad[7] = np.nan
    with strategy.scope():
        model = averaged(base, **options)
    alone = averaged(base, **options)
    with pytest.warns(UserWarning, match=f"back to the state after {updates} updates"):
        fit(model, X, bad, Recover(factor=1.0, every=1))
    fit(alone, X[GOOD], Y[GOOD])
    for (a, b), (c,) in zip(copies(model, strategy), copies(alone, tf.distribute.get_strategy()), strict=True):
        np.testing.assert_array_equal(a, b)
        np.testing.assert_allclose(a, c, rtol=1e-5, atol=1e-6)
    return model


def accumulation_goes_back(strategy):
    recovered(strategy, 1, DistributedModel, gradient_accumulation_steps=5)


def averages_are_swapped_and_put_back(strategy):
    model = recovered(strategy, 6)
    for variable in model.trainable_variables:
        variable.assign(variable + 1.0)
    before = list(copies(model, strategy))
    model.evaluate(dataset(X, Y), verbose=0, callbacks=[SwapEMAWeights()])
    assert len(find_learning_rate(model, dataset(X, Y), steps=20).rates) >= 8
    for a, b in zip(copies(model, strategy), before, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.slow
@pytest.mark.parametrize("case", [accumulation_goes_back, averages_are_swapped_and_put_back])
def test_under_two_replicas_states_and_averages_go_back_on_both(case):
    replicas.run(case)
