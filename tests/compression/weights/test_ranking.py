import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from tfxformer.compression.weights.ranking import keep_largest

FLOATS = st.floats(allow_nan=False, width=32)
FEW_VALUES = st.sampled_from([0.0, -0.0, -1.0, -1e-45, -np.inf, 1e-45, 1e-40, 0.25, 0.25000003, 1.0, 3e38, np.inf])


@settings(max_examples=50, deadline=None)
@given(st.data(), st.integers(1, 40), st.booleans(), st.sampled_from(["float32", "float64"]))
def test_keep_largest_is_a_stable_sort(data, size, ties, dtype):
    values = data.draw(arrays.arrays("float32", size, elements=FEW_VALUES if ties else FLOATS)).astype(dtype)
    kept = data.draw(st.integers(1, size))
    threshold, mask = keep_largest(tf.constant(values), tf.constant(kept))
    wanted = np.argsort(-values.astype("float64"), kind="stable")[:kept]
    assert np.flatnonzero(mask).tolist() == sorted(wanted.tolist())
    assert threshold.numpy() == values[wanted[-1]]


@pytest.mark.parametrize("jit", [False, True])
def test_keep_largest_agrees_with_tfmots_own_sort(jit):
    values = np.random.default_rng(0).normal(size=5000).astype("float32")
    threshold, mask = tf.function(keep_largest, jit_compile=jit)(tf.constant(values), tf.constant(1700))
    assert threshold.numpy() == tf.math.top_k(values, 1700).values[-1].numpy()
    assert (mask.numpy() == (values >= threshold.numpy())).all()
