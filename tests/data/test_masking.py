"""Dynamic masking."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfxformer.data.masking import mask_tokens

OPTIONS = {"mask_id": 4, "vocabulary_size": 1000, "special_ids": (0, 1, 2, 3, 4)}


def ids(seed: int, shape=(200, 64)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 1000, shape, np.int32)


def test_proportions():
    original = ids(0, (2000, 64))
    masked = mask_tokens(original, generator=np.random.default_rng(1), **OPTIONS)
    chosen = masked.weights == 1
    ordinary = original > 4
    kept = chosen & (masked.token_ids == original)
    hidden = chosen & (masked.token_ids == 4)
    # Four standard errors of each proportion.
    assert abs(chosen[ordinary].mean() - 0.15) < 4 * np.sqrt(0.15 * 0.85 / ordinary.sum())
    assert abs(hidden.sum() / chosen.sum() - 0.8) < 4 * np.sqrt(0.16 / chosen.sum())
    assert abs(kept.sum() / chosen.sum() - 0.1) < 4 * np.sqrt(0.09 / chosen.sum()) + 1e-3
    random = masked.token_ids[chosen & ~kept & ~hidden]
    assert random.min() < 20
    assert random.max() > 980


@given(st.integers(0, 2**32 - 1), st.floats(0.01, 1.0))
@settings(deadline=None, max_examples=40)
def test_only_chosen_tokens_change_and_specials_are_never_chosen(seed, rate):
    original = ids(seed, (8, 16))
    before = original.copy()
    masked = mask_tokens(original, generator=np.random.default_rng(seed), rate=rate, **OPTIONS)
    again = mask_tokens(original, generator=np.random.default_rng(seed), rate=rate, **OPTIONS)
    for first, second in zip(masked, again, strict=True):
        np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(original, before)
    np.testing.assert_array_equal(masked.labels, original)
    np.testing.assert_array_equal(masked.token_ids[masked.weights == 0], original[masked.weights == 0])
    assert not masked.weights[original <= 4].any()
    assert masked.token_ids.dtype == masked.labels.dtype == np.int32
    assert masked.weights.dtype == np.float32
    if rate == 1.0:
        assert masked.weights[original > 4].all()


def test_each_call_masks_anew_and_rates_are_checked():
    generator = np.random.default_rng(0)
    first, second = (mask_tokens(ids(0), generator=generator, **OPTIONS).weights for _ in range(2))
    assert (first != second).any()
    with pytest.raises(ValueError, match="rate"):
        mask_tokens(ids(0), generator=generator, rate=0.0, **OPTIONS)
