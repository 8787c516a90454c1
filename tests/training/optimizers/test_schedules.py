"""The schedules against their formulas and against transformers'."""

import keras
import numpy as np
import pytest

from tfxformer.training import (
    WarmupCosine,
    WarmupInverseSqrt,
    WarmupLinear,
    WarmupPolynomial,
    WarmupStableDecay,
    schedule,
)
from tfxformer.training.optimizers.schedules import SCHEDULES, Scaled


def rates(schedule, steps):
    return np.array([float(schedule(step)) for step in steps])


def test_rises_falls_and_stays_at_zero():
    schedule = WarmupLinear(2e-4, 100, warmup=0.1)
    expected = np.interp(range(120), [0, 10, 100, 120], [0.0, 2e-4, 0.0, 0.0])
    np.testing.assert_allclose(rates(schedule, range(120)), expected, rtol=1e-5, atol=1e-11)


@pytest.mark.parametrize(("warmup", "steps"), [(0, 0), (0.0, 0), (7, 7), (0.33, 16), (50, 50), (1, 1)])
def test_warmup_is_a_count_or_a_share(warmup, steps):
    schedule = WarmupLinear(1.0, 50, warmup)
    assert schedule.warmup_steps == steps
    assert float(schedule(steps)) == (1.0 if steps < 50 else 0.0)


@pytest.mark.parametrize("warmup", [-1, 51, 1.5, -0.1])
def test_impossible_warmup_is_an_error(warmup):
    with pytest.raises(ValueError, match="warmup must be"):
        WarmupLinear(1.0, 50, warmup)


def test_total_steps_is_positive():
    with pytest.raises(ValueError, match="total_steps"):
        WarmupLinear(1.0, 0)


def test_serializes():
    schedule = WarmupLinear(1e-4, 77, 5)
    again = keras.optimizers.schedules.deserialize(keras.optimizers.schedules.serialize(schedule))
    assert again.get_config() == schedule.get_config()


def theirs(peak, steps, name, *args, **kwargs):
    """The rates of a schedule of transformers."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=peak)
    scheduler = getattr(transformers, name)(optimizer, *args, **kwargs)
    expected = []
    for _ in range(steps):
        expected.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    return expected


@pytest.mark.reference
def test_is_the_schedule_of_transformers():
    expected = theirs(3e-5, 100, "get_linear_schedule_with_warmup", 13, 90)
    np.testing.assert_allclose(rates(WarmupLinear(3e-5, 90, 13), range(100)), expected, rtol=1e-5, atol=1e-12)


# ---- cosine ---------------------------------------------------------------------------------------------------


def test_cosine_rises_falls_and_stays_at_the_floor():
    schedule = WarmupCosine(1e-3, 100, warmup=10, floor=1e-4)
    expected = [1e-3 * step / 10 for step in range(10)]
    expected += [1e-4 + 9e-4 * (1 + np.cos(np.pi * (step - 10) / 90)) / 2 for step in range(10, 100)]
    np.testing.assert_allclose(rates(schedule, range(120)), expected + [1e-4] * 20, rtol=1e-5, atol=1e-11)
    np.testing.assert_allclose(rates(WarmupCosine(1.0, 8, 0), [0, 4, 8]), [1.0, 0.5, 0.0], atol=1e-6)


@pytest.mark.parametrize("floor", [-1e-9, 1.1])
def test_impossible_floor_is_an_error(floor):
    with pytest.raises(ValueError, match="floor must be a rate from 0 to the peak"):
        WarmupCosine(1.0, 50, floor=floor)


def test_cosine_serializes():
    schedule = WarmupCosine(1e-4, 77, 5, floor=1e-5)
    again = keras.optimizers.schedules.deserialize(keras.optimizers.schedules.serialize(schedule))
    assert type(again) is WarmupCosine and again.get_config() == schedule.get_config()


@pytest.mark.reference
def test_cosine_is_the_schedule_of_transformers():
    # Theirs rises again after the last step.
    expected = theirs(1e-3, 90, "get_cosine_with_min_lr_schedule_with_warmup", 13, 90, min_lr=1e-4)
    np.testing.assert_allclose(rates(WarmupCosine(1e-3, 90, 13, 1e-4), range(90)), expected, rtol=1e-5, atol=1e-11)


# ---- polynomial, inverse square root, stable then decay -------------------------------------------------------


def test_polynomial_by_hand():
    found = rates(WarmupPolynomial(1.0, 10, 2, power=3, floor=0.5), [0, 1, 2, 6, 10, 50])
    np.testing.assert_allclose(found, [0, 0.5, 1, 0.5 + 0.5 / 8, 0.5, 0.5], rtol=1e-6)
    line = rates(WarmupPolynomial(1.0, 50, 5, power=1), range(60))
    np.testing.assert_allclose(line, rates(WarmupLinear(1.0, 50, 5), range(60)), rtol=1e-6)


def test_inverse_square_root_is_that_of_the_first_transformer():
    width, warmup = 512, 40
    expected = [width**-0.5 * min(step**-0.5, step * warmup**-1.5) for step in range(1, 300)]
    found = rates(WarmupInverseSqrt((width * warmup) ** -0.5, 100, warmup), range(1, 300))
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    without = rates(WarmupInverseSqrt(1.0, 100, 0), [0, 30_000])
    np.testing.assert_allclose(without, [1.0, 0.5], rtol=1e-6)


@pytest.mark.parametrize(("shape", "half"), [("linear", 0.5), ("cosine", 0.5), ("1-sqrt", 1 - 0.5**0.5)])
def test_stable_then_decay_by_hand(shape, half):
    made = WarmupStableDecay(2.0, 100, warmup=0.1, decay=0.2, shape=shape, floor=0.2)
    found = rates(made, [0, 5, 10, 45, 79, 80, 90, 100, 500])
    np.testing.assert_allclose(found, [0, 1, 2, 2, 2, 2, 0.2 + 1.8 * half, 0.2, 0.2], rtol=1e-6)
    no_decay = rates(WarmupStableDecay(2.0, 100, 10, decay=0), [10, 99, 100])
    np.testing.assert_allclose(no_decay, [2, 2, 0])


@pytest.mark.parametrize("name", SCHEDULES)
def test_every_schedule_by_name(name):
    made = schedule(name, 1e-3, 40, warmup=0.25)
    assert type(made) is SCHEDULES[name] and made.warmup_steps == 10
    found = rates(made, range(60))
    assert found[0] == 0 and found.max() == found[10] == np.float32(1e-3) and (np.diff(found[10:]) <= 0).all()
    for one in (made, Scaled(made, 0.25)):
        again = keras.optimizers.schedules.deserialize(keras.optimizers.schedules.serialize(one))
        assert type(again) is type(one) and again.get_config() == one.get_config()
    np.testing.assert_allclose(rates(Scaled(made, 0.25), range(60)), found / 4, rtol=1e-6)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: schedule("step", 1.0, 10), "No schedule is named 'step'; there are linear, cosine"),
        (lambda: WarmupPolynomial(1.0, 10, power=0), "power must be above 0"),
        (lambda: WarmupPolynomial(1.0, 10, floor=2), "floor must be a rate from 0 to the peak"),
        (lambda: WarmupStableDecay(1.0, 10, 6, 5), "6 steps. and decay .5. are more than all 10"),
        (lambda: WarmupStableDecay(1.0, 10, decay=1.5), "decay must be a share"),
        (lambda: WarmupStableDecay(1.0, 10, shape="sqrt"), "shape must be one of linear, cosine, 1-sqrt; got 'sqrt'"),
    ],
)
def test_what_is_no_schedule(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.reference
def test_the_others_are_the_schedules_of_transformers():
    cases = [
        (WarmupPolynomial(1e-3, 90, 13, 2.0, 1e-5), "get_polynomial_decay_schedule_with_warmup", (13, 90, 1e-5, 2))
    ]
    cases += [(WarmupInverseSqrt(1e-3, 90, 13), "get_inverse_sqrt_schedule", (13,))]
    cases += [(WarmupInverseSqrt(1e-3, 90, 0), "get_inverse_sqrt_schedule", (0,))]
    for made, name, arguments in cases:
        np.testing.assert_allclose(rates(made, range(100)), theirs(1e-3, 100, name, *arguments), rtol=2e-5, atol=1e-11)
    for shape in ("linear", "cosine", "1-sqrt"):
        made = WarmupStableDecay(1e-3, 90, 13, 30, shape, floor=1e-4)
        options = {"num_training_steps": 90, "decay_type": shape, "min_lr_ratio": 0.1}
        expected = theirs(1e-3, 100, "get_wsd_schedule", 13, 30, **options)
        # Their warmup begins at the floor.
        np.testing.assert_allclose(rates(made, range(13, 100)), expected[13:], rtol=2e-5)
        floorless = theirs(1e-3, 100, "get_wsd_schedule", 13, 30, num_training_steps=90, decay_type=shape)
        found = rates(WarmupStableDecay(1e-3, 90, 13, 30, shape), range(100))
        np.testing.assert_allclose(found, floorless, rtol=2e-5, atol=1e-9)
