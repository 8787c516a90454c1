"""Masks against loops over every pair of tokens."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfxformer.layers.attention.masks import (
    cached_visibility,
    causal_visibility,
    counted_positions,
    hidden_bias,
    row_slots,
    windowed,
)
from tfxformer.layers.attention.positions import positions_seen

masks = st.integers(1, 9).flatmap(
    lambda length: st.lists(st.lists(st.integers(0, 2), min_size=length, max_size=length), min_size=1, max_size=3)
)


def as_mask(rows):
    return np.array(rows, "int32")


@settings(deadline=None)
@given(masks)
def test_causal_visibility(rows):
    """A token sees itself and the earlier ones of its document: equal numbers."""
    mask = as_mask(rows)
    visible = np.asarray(causal_visibility(mask))
    for row in range(mask.shape[0]):
        for i in range(mask.shape[1]):
            for j in range(mask.shape[1]):
                assert visible[row, i, j] == (j <= i and mask[row, i] == mask[row, j])


@settings(deadline=None)
@given(masks)
def test_positions_count_the_tokens_of_the_document(rows):
    mask = as_mask(rows)
    positions = np.asarray(positions_seen(causal_visibility(mask)))
    for row in range(mask.shape[0]):
        for i in range(mask.shape[1]):
            assert positions[row, i] == sum(mask[row, :i] == mask[row, i])


@settings(deadline=None)
@given(masks)
def test_counted_positions(rows):
    mask = as_mask(rows)
    counted = np.asarray(counted_positions(mask))
    for row in range(mask.shape[0]):
        for i in range(mask.shape[1]):
            assert counted[row, i] == max(np.count_nonzero(mask[row, : i + 1]) - 1, 0)


@pytest.mark.parametrize("with_mask", [False, True])
def test_cached_visibility(with_mask):
    mask = np.array([[0, 0, 1, 1, 1, 1], [1, 1, 1, 0, 1, 1]], "int32") if with_mask else None
    slots = np.array([2, 3], "int32")
    visible = np.asarray(cached_visibility(slots, 6, mask))
    assert visible.shape == (2 if with_mask else 1, 2, 6)
    for row in range(visible.shape[0]):
        for s, slot in enumerate(slots):
            for t in range(6):
                assert visible[row, s, t] == (t <= slot and (mask is None or mask[row, t] == 1))


@pytest.mark.parametrize("window", [1, 3, 100])
def test_windowed(window):
    visible = np.ones((1, 3, 8), bool)
    queries, keys = np.array([4, 5, 6], "int32"), np.arange(8, dtype="int32")
    seen = np.asarray(windowed(visible, queries, keys, window))
    for s, query in enumerate(queries):
        for t in keys:
            assert seen[0, s, t] == (query - t < window)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_hidden_bias_is_finite(dtype):
    bias = np.asarray(hidden_bias(np.array([[[True, False]]]), -1e9, dtype)).astype("float32")
    assert bias.shape == (1, 1, 1, 2)
    assert bias[0, 0, 0, 0] == 0 and -1.1e9 < bias[0, 0, 0, 1] < -3e4


def test_row_slots():
    np.testing.assert_array_equal(np.asarray(row_slots(np.zeros((2, 5), "int32"))), np.arange(5))
