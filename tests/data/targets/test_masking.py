"""Dynamic masking."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfxformer.data.targets.masking import by_positions, mask_tokens, most_positions

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


CONTINUATIONS = np.arange(1000) % 3 == 0  # every third id goes on with the word before it


def words_of(row):
    """The words of a row, each a list of positions: a loop, where the package counts in arrays."""
    words, before = [], False
    for position, token in enumerate(row):
        if token > 4 and before and CONTINUATIONS[token]:
            words[-1].append(position)
        elif token > 4:
            words.append([position])
        before = token > 4
    return words


@given(st.integers(0, 2**32 - 1), st.floats(0.05, 0.9), st.sampled_from(["words", "spans"]))
@settings(deadline=None, max_examples=60)
def test_words_are_chosen_whole_and_within_the_budget(seed, rate, masking):
    original = ids(seed, (8, 40))
    original[:, ::7] = 2  # specials between words
    options = {**OPTIONS, "rate": rate, "masking": masking, "continuations": CONTINUATIONS}
    masked = mask_tokens(original, generator=np.random.default_rng(seed), **options)
    for row, chosen in zip(original, masked.weights, strict=True):
        words = words_of(row)
        assert all(chosen[word].min() == chosen[word].max() for word in words)
        assert chosen.sum() == sum(chosen[word].sum() for word in words)
        assert chosen.sum() < rate * sum(map(len, words)) + 1


def test_words_reach_their_share_and_spans_are_longer():
    original = ids(0, (400, 128))
    runs = {}
    for masking in ("words", "spans"):
        masked = mask_tokens(
            original, generator=np.random.default_rng(1), masking=masking, continuations=CONTINUATIONS, **OPTIONS
        )
        assert 0.14 < masked.weights[original > 4].mean() <= 0.151
        edges = np.diff(np.pad(masked.weights, ((0, 0), (1, 1))), axis=1)
        runs[masking] = masked.weights.sum() / (edges > 0).sum()  # the mean length of what is hidden in one piece
    # A word has 1.5 tokens on average, a span of Geo(0.2) cut at 10 has 3.8 words, some cut short by what is left.
    assert runs["words"] < 2.2 and 3.5 < runs["spans"] < 6.0
    one_fate = masked.token_ids == 4
    spans = np.diff(np.pad(masked.weights, ((0, 0), (1, 1))), axis=1)[:, :-1] > 0
    inside = (masked.weights == 1) & ~spans
    same = one_fate[:, 1:] == one_fate[:, :-1]
    assert same[inside[:, 1:]].mean() > 0.95  # but for spans that touch


def test_places_are_the_chosen_ones():
    masked = mask_tokens(ids(3), generator=np.random.default_rng(0), **OPTIONS)
    places = by_positions(masked, most_positions(64, 0.15))
    assert places.positions.shape == (200, 10)
    for row in range(200):
        wanted = np.flatnonzero(masked.weights[row])
        count = len(wanted)
        assert places.positions[row].tolist() == [*wanted, *[-1] * (10 - count)]
        assert places.labels[row][:count].tolist() == masked.labels[row][wanted].tolist()
        assert places.weights[row].tolist() == [1.0] * count + [0.0] * (10 - count)


def test_each_call_masks_anew_and_rates_are_checked():
    generator = np.random.default_rng(0)
    first, second = (mask_tokens(ids(0), generator=generator, **OPTIONS).weights for _ in range(2))
    assert (first != second).any()
    with pytest.raises(ValueError, match="rate"):
        mask_tokens(ids(0), generator=generator, rate=0.0, **OPTIONS)
    with pytest.raises(ValueError, match="tokens, words, spans"):
        mask_tokens(ids(0), generator=generator, masking="letters", **OPTIONS)
