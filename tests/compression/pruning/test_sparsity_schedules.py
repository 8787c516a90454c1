import json
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pruning_cases import last_acting, polynomial

from tfxformer.compression import ConstantSparsity, PolynomialDecay

SPARSITIES = st.floats(0, 0.984375, width=32)
STEPS = st.integers(0, 60)


@settings(max_examples=60, deadline=None)
@given(SPARSITIES, SPARSITIES, STEPS, st.integers(1, 5), st.integers(1, 9), st.sampled_from([0.5, 1, 3]), STEPS)
def test_polynomial_decay_is_tfmots_and_the_papers(initial, final, begin, times, frequency, power, step):
    from tfxformer.compression.pruning.tfmot_engine import tfmot_schedule

    end = begin + times * frequency
    ours = PolynomialDecay(initial, final, begin, end, power, frequency)
    acts, sparsity = tfmot_schedule(ours)(np.int64(step))
    assert bool(acts) == (last_acting(step, begin, end, frequency) == step)
    assert ours.last_acting_step(step) == last_acting(step, begin, end, frequency)
    if acts:
        wanted = polynomial(step, initial, final, begin, end, power, frequency)
        np.testing.assert_allclose(float(sparsity), wanted, rtol=1e-6, atol=1e-6)


@settings(max_examples=60, deadline=None)
@given(SPARSITIES, STEPS, st.integers(-1, 60), st.integers(1, 9), STEPS)
def test_constant_sparsity_is_tfmots(target, begin, length, frequency, step):
    from tfxformer.compression.pruning.tfmot_engine import tfmot_schedule

    end = -1 if length < 0 else begin + length
    ours = ConstantSparsity(target, begin, end, frequency)
    acts, sparsity = tfmot_schedule(ours)(np.int64(step))
    wanted = last_acting(step, begin, step if end < 0 else end, frequency)
    assert ours.last_acting_step(step) == wanted
    assert bool(acts) == (wanted == step)
    assert float(sparsity) == np.float32(target)


def test_config_round_trip_through_json():
    for schedule in (PolynomialDecay(0.0, 0.5, np.int64(3), 503), ConstantSparsity(0.5, 2, 9, frequency=7)):
        config = json.loads(json.dumps(schedule.get_config()))
        assert type(schedule).from_config(config) == schedule


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PolynomialDecay(0.0, 50, 0, 100), "For 50 percent write 0.5"),
        (lambda: PolynomialDecay(-0.1, 0.5, 0, 100), "initial_sparsity"),
        (lambda: PolynomialDecay(0.0, 1.0, 0, 100), "final_sparsity"),
        (lambda: PolynomialDecay(0.0, float("nan"), 0, 100), "final_sparsity"),
        (lambda: PolynomialDecay(0.0, 0.5, 100, 100), "end_step must come after"),
        (lambda: PolynomialDecay(0.0, 0.5, 0, -1), "end_step must come after"),
        (lambda: PolynomialDecay(0.0, 0.5, -5, 100), "begin_step"),
        (lambda: PolynomialDecay(0.0, 0.5, 0, 100, power=0), "power"),
        (lambda: PolynomialDecay(0.0, 0.5, 0, 100.5), "must be an integer"),
        (lambda: ConstantSparsity(0.5, 0, frequency=0), "frequency"),
        (lambda: ConstantSparsity(0.5, 10, 5), "end_step"),
        (lambda: ConstantSparsity("half", 0), "target_sparsity"),
    ],
)
def test_bad_values_say_what_is_wrong(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_schedule_that_misses_its_end_warns():
    with pytest.warns(UserWarning, match="last mask is chosen at step 400"):
        PolynomialDecay(0.0, 0.5, 0, 437)


@pytest.mark.road
def test_importing_loads_no_tfmot_and_pruning_leaves_tf_keras_alone():
    code = (
        "import os, sys, tfxformer.compression as c; "
        "assert not any('tensorflow_model_optimization' in m or m == 'tf_keras' for m in sys.modules); "
        "import tfxformer.compression.pruning.tfmot_engine, tensorflow as tf; "
        "assert 'tf_keras' in sys.modules and 'TF_USE_LEGACY_KERAS' not in os.environ; "
        "assert tf.keras.Model is __import__('keras').Model"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
