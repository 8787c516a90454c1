"""Spans taken out, masks for spans, sentences in disorder: nothing is lost, and chance is what the papers say."""

import itertools
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfxformer.data.targets import denoising
from tfxformer.text import Tokenizer

SENTINELS = tuple(range(2100, 2000, -1))
MASK = 3000


def drawn(seed: int, lengths, width: int):
    """Rows of different ids, and a generator."""
    generator = np.random.default_rng(seed)
    return generator.integers(0, 2000, (len(lengths), width), np.int32), np.array(lengths), generator


def row(rows, index):
    return rows.ids[index, : rows.lengths[index]].tolist()


def filled(source, target):
    """A source with what the target says behind each of its sentinels."""
    spans = {}
    for token in target:
        if token > 2000:
            spans[token] = content = []
        else:
            content.append(token)
    return [token for one in source for token in spans.get(one, [one])]


def counts_of(length, rate, mean):
    """T5's `random_spans_noise_mask`, as its words have it: numbers of noise tokens and of spans."""
    tokens = min(max(round(length * rate), 1), length - 1)
    return tokens, min(max(round(tokens / mean), 1), length - tokens)


@given(
    st.integers(0, 2**32 - 1),
    st.lists(st.integers(2, 60), min_size=1, max_size=5),
    st.floats(0.02, 0.9),
    st.floats(1.0, 6.0),
)
@settings(deadline=None, max_examples=80)
def test_targets_fill_sources_to_the_text(seed, lengths, rate, mean):
    ids, lengths, generator = drawn(seed, lengths, 60)
    sources, targets = denoising.span_corruption(
        ids, lengths, SENTINELS, rate=rate, mean_span=mean, generator=generator
    )
    for index, length in enumerate(lengths.tolist()):
        source, target = row(sources, index), row(targets, index)
        tokens, spans = counts_of(length, rate, mean)
        assert filled(source, target) == ids[index, :length].tolist()
        assert (len(source), len(target)) == (length - tokens + spans, tokens + spans)
        assert denoising.corrupted_lengths(length, rate, mean) == (len(source), len(target))
        for found in (source, target):
            assert [token for token in found if token > 2000] == list(SENTINELS[:spans])
        assert source[0] < 2000 and source[-1] == SENTINELS[spans - 1] and target[0] == SENTINELS[0]
        assert not sources.ids[index, len(source) :].any() and not targets.ids[index, len(target) :].any()


def test_every_mask_of_the_definition_is_as_probable_as_any_other():
    # 12 tokens, 4 of them noise in 2 spans: all ways of cutting 8 and 4 into two each.
    wanted = set()
    for text, noise in itertools.product(range(1, 8), range(1, 4)):
        wanted.add((0,) * text + (1,) * noise + (0,) * (8 - text) + (1,) * (4 - noise))
    draws = 21_000
    masks = denoising.span_noise(np.full(draws, 12), 12, rate=1 / 3, mean_span=2.0, generator=np.random.default_rng(0))
    found = Counter(map(tuple, masks.astype(int).tolist()))
    assert set(found) == wanted and len(wanted) == 21
    chi_squared = sum((count - 1000) ** 2 / 1000 for count in found.values())
    assert chi_squared < 45.3  # of 20 degrees of freedom, 99.9 %


def test_lengths_are_those_of_the_reference():
    """568 tokens become 512 and 114 (with an end each): what T5's configs and logs say of 15 % and 3."""
    assert denoising.uncorrupted_length(511, 0.15, 3.0) == 568
    assert denoising.corrupted_lengths(568, 0.15, 3.0) == (511, 113)
    # Its `random_spans_helper`, in words: one more token would be too many. (Of texts so short that a span is longer
    # than all noise it counts no span, where its mask has one; here the source has room for that.)
    for size, (rate, mean) in itertools.product((64, 128, 1024), ((0.15, 3.0), (0.15, 8.0), (0.5, 3.0))):
        length = size
        while (length + 1) - round((length + 1) * rate) + round(round((length + 1) * rate) / mean) + 1 <= size:
            length += 1
        target = round(length * rate) + round(round(length * rate) / mean) + 1
        assert denoising.uncorrupted_length(size - 1, rate, mean) == length - (rate == 0.5 and target > size)
    ids, lengths, generator = drawn(0, [568] * 3, 568)
    sources, targets = denoising.span_corruption(ids, lengths, SENTINELS, generator=generator)
    assert sources.ids.shape == (3, 511) and targets.ids.shape == (3, 113)
    assert (sources.lengths == 511).all() and (targets.lengths == 113).all()


def test_a_single_token_and_no_token_have_no_noise():
    ids, lengths, generator = drawn(0, [1, 0], 4)
    sources, targets = denoising.span_corruption(ids, lengths, SENTINELS, generator=generator)
    assert [row(sources, 0), row(sources, 1)] == [[ids[0, 0]], []]
    assert [row(targets, 0), row(targets, 1)] == [[SENTINELS[0]], []]  # as the reference has it


def is_a_hiding_of(masked, text) -> bool:
    """Whether the tokens that are left of a text, all different, stand in their order, with masks where some lack."""
    before = -1
    masks = 0
    for token in [*masked, None]:
        if token == MASK:
            masks += 1
            continue
        place = len(text) if token is None else text.index(token)
        if place <= before or (place > before + 1 and not masks):
            return False
        before, masks = place, 0
    return True


@given(
    st.integers(0, 2**32 - 1),
    st.lists(st.integers(0, 50), min_size=1, max_size=5),
    st.floats(0.05, 1.0),
    st.floats(0.5, 6.0),
)
@settings(deadline=None, max_examples=80)
def test_masks_stand_for_the_share_of_the_text(seed, lengths, rate, mean):
    _, lengths, generator = drawn(seed, lengths, 50)
    ids = np.stack([generator.permutation(1000)[:50] for _ in lengths]).astype(np.int32)
    masked = denoising.text_infilling(ids, lengths, MASK, rate=rate, mean_span=mean, generator=generator)
    assert masked.ids.shape == ids.shape and (masked.lengths <= 50).all()
    for index, length in enumerate(lengths.tolist()):
        found = row(masked, index)
        assert sum(token != MASK for token in found) == length - int(np.ceil(rate * length - 1e-9))
        assert (MASK in found) == (length > 0) and is_a_hiding_of(found, ids[index, :length].tolist())
        assert not masked.ids[index, len(found) :].any()
    again = np.random.default_rng(seed)
    other = denoising.text_infilling(ids, lengths, MASK, rate=rate, mean_span=mean, generator=again)
    once_more = denoising.text_infilling(
        ids, lengths, MASK, rate=rate, mean_span=mean, generator=np.random.default_rng(seed)
    )
    np.testing.assert_array_equal(other.ids, once_more.ids)


def test_spans_are_poissons_with_masks_between_tokens_and_stand_anywhere():
    draws, length = 400, 400
    ids = np.tile(np.arange(length, dtype=np.int32), (draws, 1))
    masked = denoising.text_infilling(ids, np.full(draws, length), MASK, generator=np.random.default_rng(1))
    # A renewal process of Poisson(3) needs 40.5 draws on average to reach 120: (120 + E[overshoot]) / 3, where the
    # overshoot is (variance + mean ** 2) / (2 * mean) - 1 / 2 = 1.5 of a lattice of step one.
    counts = (masked.ids == MASK).sum(axis=1)
    assert abs(counts.mean() - 121.5 / 3) < 4 * counts.std() / np.sqrt(draws)
    # What is behind a mask between two kept tokens is a span of its own; the last span of a row is cut to its share.
    hidden = []
    for one in masked.ids:
        places = np.flatnonzero(one == MASK)
        inside = places[(places > 0) & (places < np.flatnonzero(one)[-1])]
        alone = inside[(one[inside - 1] != MASK) & (one[inside + 1] != MASK)]
        hidden += (one[alone + 1] - one[alone - 1] - 1).tolist()
    frequencies = np.bincount(hidden, minlength=10)[:10] / len(hidden)
    poisson = np.exp(-3.0) * 3.0 ** np.arange(10) / np.cumprod([1, *range(1, 10)])
    assert np.abs(frequencies - poisson).max() < 4 * np.sqrt(0.25 * 0.75 / len(hidden)) + 0.5 / counts.mean()
    kept = np.array([np.isin(np.arange(length), one) for one in masked.ids])
    thirds = kept.reshape(draws, 4, 100).mean(axis=(0, 2))
    np.testing.assert_allclose(thirds, 0.7, atol=0.02)  # no part of a text is hidden more than another


@given(st.integers(0, 2**32 - 1), st.lists(st.integers(0, 30), min_size=1, max_size=4))
@settings(deadline=None, max_examples=60)
def test_sentences_stay_whole(seed, lengths):
    _, lengths, generator = drawn(seed, lengths, 30)
    ids = np.stack([generator.permutation(1000)[:30] for _ in lengths]).astype(np.int32)
    ends = np.arange(1000) % 4 == 0
    moved = denoising.sentence_permutation(ids, lengths, ends, generator=generator)
    for index, length in enumerate(lengths.tolist()):
        parts = {part[0]: part for part in sentences(ids[index, :length].tolist(), ends)}
        found = moved[index, :length].tolist()
        while found:
            part = parts.pop(found[0])  # every token is another, so this tells which one it is
            assert found[: len(part)] == part
            found = found[len(part) :]
        assert not parts
        np.testing.assert_array_equal(moved[index, length:], ids[index, length:])


def sentences(ids, ends) -> list[list[int]]:
    """The sentences of a row: each goes up to the last of its end tokens, or to the end of the row."""
    found = [[]]
    for token in ids:
        if found[-1] and ends[found[-1][-1]] and not ends[token]:
            found.append([])
        found[-1].append(token)
    return [one for one in found if one]


def test_all_orders_of_sentences_are_as_probable():
    ids = np.tile(np.array([[5, 0, 6, 7, 0, 8, 0]], np.int32), (6000, 1))
    ends = np.arange(10) == 0
    moved = denoising.sentence_permutation(ids, np.full(6000, 7), ends, generator=np.random.default_rng(0))
    found = Counter(map(tuple, moved.tolist()))
    parts = ((5, 0), (6, 7, 0), (8, 0))
    assert set(found) == {sum(order, ()) for order in itertools.permutations(parts)}
    assert sum((count - 1000) ** 2 / 1000 for count in found.values()) < 20.5  # of 5 degrees of freedom, 99.9 %


def test_pieces_hold_a_text_whole():
    pieces = denoising.text_pieces(np.arange(1, 11), 4)
    assert pieces.ids.tolist() == [[1, 2, 3, 4], [5, 6, 7, 8], [9, 10, 0, 0]] and pieces.lengths.tolist() == [4, 4, 2]
    assert denoising.text_pieces(np.zeros(0, int), 4).ids.shape == (0, 4)


def test_what_a_vocabulary_says():
    special = ("</s>", "<mask>", "<extra_id_0>", "<extra_id_1>", "<extra_id_3>")
    tokenizer = Tokenizer.train_byte_level_bpe(['He said "no." Why? Oh!'] * 3, 290, special)
    assert denoising.sentinel_ids(tokenizer) == (2, 3)
    ends = {tokenizer.vocabulary()[i] for i in np.flatnonzero(denoising.sentence_ends(tokenizer))}
    assert {".", "?", "!"} <= ends and not ends & {",", "e", "</s>"}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: denoising.noise_counts(9, 1.0, 3.0), r"A share of 1\.0 of noise: wanted one above 0 and below 1"),
        (lambda: denoising.noise_counts(9, 0.1, 0.5), r"Spans of 0\.5 tokens on average: wanted 1 or more"),
        (lambda: denoising.uncorrupted_length(1, 0.15, 3.0), "A source of 1 tokens has no room"),
        (
            lambda: denoising.span_corruption([[1] * 40], [40], (8,), generator=np.random.default_rng(0)),
            r"A row has 2 spans of noise, and the vocabulary 1 sentinels",
        ),
        (
            lambda: denoising.text_infilling([[1]], [1], 2, rate=0.0, generator=np.random.default_rng(0)),
            r"A share of 0\.0 of hidden tokens: wanted one above 0 and at most 1",
        ),
        (
            lambda: denoising.text_infilling([[1]], [1], 2, mean_span=0.0, generator=np.random.default_rng(0)),
            r"Spans of 0\.0 tokens on average: wanted more than 0",
        ),
    ],
)
def test_what_cannot_be_corrupted(call, message):
    with pytest.raises(ValueError, match=message):
        call()
