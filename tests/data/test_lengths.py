"""The default sequence length."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfxformer.data.lengths import default_sequence_length, round_length


@given(st.lists(st.integers(2, 600), min_size=1, max_size=60), st.sampled_from([64, 100, 512, 10_000]))
def test_it_is_the_smallest_multiple_that_holds_the_percentile(lengths, maximum):
    ordered = sorted(lengths)
    place = 0.95 * (len(ordered) - 1)
    below, above = ordered[int(place)], ordered[min(int(place) + 1, len(ordered) - 1)]
    length = default_sequence_length(lengths, maximum)
    if length == maximum:
        assert above > maximum - 16
    else:
        assert length % 16 == 0
        assert below <= length < above + 16


def test_known_values():
    assert default_sequence_length(np.arange(1, 101), 512) == 96
    assert default_sequence_length([16], 512) == 16
    assert default_sequence_length([17], 512) == 32
    assert default_sequence_length([500], 128) == 128
    assert [round_length(n, 100) for n in (0, 1, 16, 17, 97)] == [16, 16, 16, 32, 100]
    with pytest.raises(ValueError, match="no texts"):
        default_sequence_length([], 512)
