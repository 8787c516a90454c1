"""The schedules against their formulas and against transformers'."""

import keras
import numpy as np
import pytest

from tfxformer.training import WarmupCosine, WarmupLinear


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


@pytest.mark.reference
def test_is_the_schedule_of_transformers():
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=3e-5)
    scheduler = transformers.get_linear_schedule_with_warmup(optimizer, 13, 90)
    expected = []
    for _ in range(100):
        expected.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
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
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1e-3)
    scheduler = transformers.get_cosine_with_min_lr_schedule_with_warmup(optimizer, 13, 90, min_lr=1e-4)
    expected = []
    for _ in range(90):  # theirs rises again after the last step
        expected.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    np.testing.assert_allclose(rates(WarmupCosine(1e-3, 90, 13, 1e-4), range(90)), expected, rtol=1e-5, atol=1e-11)
