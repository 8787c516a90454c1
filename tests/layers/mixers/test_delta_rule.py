"""The gated delta rule by chunks, against its definition token by token."""

import batteries
import numpy as np
import pytest
from optional_tensorflow import tf

from tfxformer.layers import GatedDeltaRule
from tfxformer.layers.mixers import delta_rule
from tfxformer.layers.mixers.delta_rule import gated_delta_rule, unit_lower_inverse

B, N, HK, HV = 2, 3, 6, 5


def drawn(length, seed=0):
    """query, key, value, fading, rate, state, and begins."""
    g = np.random.default_rng(seed)
    query, key = g.normal(size=(B, N, length, HK)), g.normal(size=(B, N, length, HK))
    key /= np.linalg.norm(key, axis=-1, keepdims=True)
    value, fading = g.normal(size=(B, N, length, HV)), -g.uniform(0, 2, (B, N, length))
    rate, begins = g.uniform(0, 1, (B, N, length)), g.uniform(size=(B, N, length)) < 0.1
    arrays = (query, key, value, fading, rate, g.normal(size=(B, N, HK, HV)), begins)
    return tuple(array.astype("float32") for array in arrays)


def by_hand(query, key, value, fading, rate, state, begins=None):
    state, read = state.astype("float64"), np.zeros(value.shape)
    for t in range(query.shape[2]):
        state = state * np.exp(fading[:, :, t, None, None])
        if begins is not None:
            state = state * (1 - begins[:, :, t, None, None])
        wrong = value[:, :, t] - np.einsum("bnk,bnkv->bnv", key[:, :, t], state)
        state = state + np.einsum("bnk,bnv->bnkv", key[:, :, t], rate[:, :, t, None] * wrong)
        read[:, :, t] = np.einsum("bnk,bnkv->bnv", query[:, :, t], state)
    return read, state


# One token; less than a chunk; some chunks, unrolled; more of them than are.
@pytest.mark.parametrize("length", [1, 7, 150, 64 * 9])
@pytest.mark.parametrize("with_begins", [False, True])
def test_equals_the_definition(length, with_begins):
    *arrays, begins = drawn(length)
    begins = begins if with_begins else None
    for found, wanted in zip(gated_delta_rule(*arrays, begins), by_hand(*arrays, begins), strict=True):
        np.testing.assert_allclose(np.asarray(found), wanted, atol=2e-5)


def test_lengths_that_no_graph_knows():
    *arrays, _ = drawn(70)
    specs = [tf.TensorSpec((None, N, None, *array.shape[3:])) for array in arrays[:5]]
    function = tf.function(gated_delta_rule, input_signature=[*specs, tf.TensorSpec((None, N, HK, HV))])
    for found, wanted in zip(function(*arrays), by_hand(*arrays), strict=True):
        np.testing.assert_allclose(np.asarray(found), wanted, atol=2e-5)


def test_gradients_of_a_loop_are_those_of_what_is_unrolled(monkeypatch):
    *arrays, _ = drawn(130)

    def gradients():
        tensors = [tf.constant(array) for array in arrays]
        with tf.GradientTape() as tape:
            tape.watch(tensors)
            read, state = gated_delta_rule(*tensors)
            loss = tf.reduce_sum(read**2) + tf.reduce_sum(state**2)
        return tape.gradient(loss, tensors)

    unrolled = gradients()
    monkeypatch.setattr(delta_rule, "_MOST_UNROLLED", 1)
    for found, wanted in zip(gradients(), unrolled, strict=True):
        np.testing.assert_allclose(np.asarray(found), np.asarray(wanted), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("size", [1, 2, 32])
def test_inverse(size):
    lower = np.tril(np.random.default_rng(0).uniform(-0.5, 0.5, (3, size, size)), -1).astype("float32")
    wanted = np.linalg.inv(np.eye(size) + lower.astype("float64"))
    np.testing.assert_allclose(np.asarray(unit_lower_inverse(lower)), wanted, atol=1e-5)


def test_same_keys_again_and_again_lose_nothing():
    """The system's powers would grow beyond float32's digits; its inverse does not."""
    *arrays, _ = drawn(64)
    arrays[1] = np.broadcast_to(arrays[1][:, :, :1], arrays[1].shape)
    arrays[3], arrays[4] = np.zeros_like(arrays[3]), np.ones_like(arrays[4])
    for found, wanted in zip(gated_delta_rule(*arrays), by_hand(*arrays), strict=True):
        np.testing.assert_allclose(np.asarray(found), wanted, atol=2e-5)


def test_layer():
    x = np.random.default_rng(0).normal(size=(2, 9, 8)).astype("float32")
    mask = np.array([[1] * 4 + [2] * 4 + [0], [0, 0] + [1] * 7], "int32")
    batteries.check_layer(lambda dtype: GatedDeltaRule(2, 4, 6, 5, dtype=dtype), x, padding_mask=mask)
    layer = GatedDeltaRule(2, 4, 6, 5)
    together = np.asarray(layer(x, padding_mask=mask))
    for row, rows in ((0, slice(0, 4)), (0, slice(4, 8)), (1, slice(2, 9))):  # documents, and a padded row
        np.testing.assert_allclose(together[row, rows], np.asarray(layer(x[row : row + 1, rows]))[0], atol=1e-5)
    with pytest.raises(ValueError, match=r"value_heads \(3\) must be a multiple of key_heads \(2\)"):
        GatedDeltaRule(2, 3, 4, 4)
