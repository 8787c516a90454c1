"""Mixtures: shares as the formula has them, and nothing lost or repeated too early."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfxformer.data.targets.mixing import mixed_order, mixing_rates


def test_rates_are_those_of_the_formula():
    np.testing.assert_allclose(mixing_rates([900, 100]), [0.9, 0.1])
    np.testing.assert_allclose(mixing_rates([900, 100], temperature=2.0), [0.75, 0.25])  # roots 30 and 10
    np.testing.assert_allclose(mixing_rates([900, 100], limit=300), [0.75, 0.25])
    np.testing.assert_allclose(mixing_rates([900, 1], temperature=1e9), [0.5, 0.5], atol=1e-6)
    for bad in ({"sizes": [1, 0]}, {"sizes": []}, {"sizes": [1], "temperature": 0}, {"sizes": [1], "limit": 0}):
        with pytest.raises(ValueError, match="positive"):
            mixing_rates(**bad)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.integers(1, 20), min_size=1, max_size=5), st.floats(0.5, 20), st.integers(1, 120), st.integers(0, 99)
)
def test_every_set_has_its_share_and_goes_through_its_rows(sizes, temperature, count, seed):
    rates = mixing_rates(sizes, temperature)
    which, rows = mixed_order(sizes, rates, count, seed)
    assert len(which) == len(rows) == count
    for number, size in enumerate(sizes):
        own = rows[which == number]
        assert abs(len(own) - rates[number] * count) < 1 + 1e-9
        times = np.bincount(own, minlength=size)
        assert times.max() - times.min() <= 1 and len(times) == size
    again = mixed_order(sizes, rates, count, seed)
    assert (which == again[0]).all() and (rows == again[1]).all()


def test_by_size_an_epoch_is_every_row_once():
    sizes = [7, 3, 11]
    which, rows = mixed_order(sizes, mixing_rates(sizes), sum(sizes), 5)
    assert len(set(zip(which.tolist(), rows.tolist(), strict=True))) == sum(sizes)
