"""Caches that keep the windows of their layers only, against the whole row without a cache."""

import functools

import keras
import numpy as np
import pytest
import tiny
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tfxformer.layers import Cache, Ring

LENGTH, SLOTS, LONGEST = 20, 40, 5
STACKS = {
    "beside full ones": {
        "decoder__attention": {"full": {}, "sliding": {"window": 4}},
        "decoder__pattern": ("sliding", "full", "sliding"),
        "decoder__num_layers": 3,
    },
    "alone": {"decoder__attention__window": 3},
    "of two widths": {
        "decoder__attention": {"near": {"window": 2}, "far": {"window": 9}},
        "decoder__pattern": ("far", "near"),
    },
    "beside convolutions": {
        "decoder__convolution": 3,
        "decoder__attention__window": 4,
        "decoder__pattern": ("convolution", "full"),
    },
}


@functools.cache
def model(stack):
    """A decoder, made once for all tests: none changes it."""
    return tiny.backbone("gpt2", **STACKS[stack], decoder__max_positions=SLOTS)


@functools.cache
def whole(stack):
    """A row and the sequence output without a cache: int32 [1, S], [1, S, D]."""
    ids = np.random.default_rng(3).integers(5, 95, (1, LENGTH)).astype("int32")
    return ids, np.asarray(
        model(stack).forward({"token_ids": ids, "padding_mask": np.ones_like(ids)})["sequence_output"]
    )


def filled(cache: Cache) -> Cache:
    """A cache whose slots hold numbers already, which nobody may see."""
    return cache._replace(self_attention=keras.tree.map_structure(lambda x: x + 7.0, cache.self_attention))


def slots_of(cache: Cache) -> list[int]:
    return [entry[0].shape[2] for entry in cache.self_attention]


def run(stack, chunks, padded=()):
    """The sequence output of a row in chunks; those at the places `padded` are filled up to LONGEST by padding."""
    ids, _ = whole(stack)
    decoder = model(stack)
    cache, parts, start = filled(decoder.new_cache(1, SLOTS, LONGEST)), [], 0
    for index, count in enumerate(chunks):
        tokens = ids[:, start : start + count]
        count = tokens.shape[1]
        if index in padded:
            tokens = np.pad(tokens, ((0, 0), (0, LONGEST - count)), constant_values=1)
        positions = np.arange(start, start + tokens.shape[1], dtype="int32")
        outputs = decoder.step({"token_ids": tokens, "cache_positions": positions}, cache)
        assert list(map(type, outputs["cache"].self_attention)) == list(map(type, cache.self_attention))
        cache = outputs["cache"]
        parts.append(np.asarray(outputs["sequence_output"])[:, :count])
        start += count
    return np.concatenate(parts, axis=1)


def test_layers_keep_as_much_as_a_step_sees_of_their_windows():
    kept = model("beside full ones").new_cache(2, SLOTS, LONGEST)
    assert slots_of(kept) == [4 + LONGEST - 1, SLOTS, 4 + LONGEST - 1]
    assert [isinstance(entry, Ring) for entry in kept.self_attention] == [True, False, True]
    assert kept.length == SLOTS
    assert slots_of(model("of two widths").new_cache(1, SLOTS, LONGEST)) == [13, 6]
    assert slots_of(model("of two widths").new_cache(1, 12, LONGEST)) == [12, 6]  # 13 of 12 would not pay
    assert slots_of(model("beside full ones").new_cache(2, SLOTS)) == [SLOTS] * 3


@settings(max_examples=6, deadline=None)
@example("beside full ones", [5] * 4, 0)
@example("alone", [1] * 20, 0)
@example("alone", [4, 1, 3, 2, 5, 5], 0b101101)
@given(
    st.sampled_from([name for name in STACKS if name != "beside convolutions"]),
    st.lists(st.integers(1, LONGEST), min_size=LENGTH, max_size=LENGTH),
    st.integers(0, 2**LENGTH - 1),
)
def test_steps_of_any_length_equal_the_whole_row(stack, lengths, padded):
    """Padding behind the tokens of a step is never seen, though it stands in slots of other tokens."""
    ends = np.minimum(np.cumsum(lengths), LENGTH)
    chunks = [int(count) for count in np.diff([0, *ends]) if count]
    places = [index for index in range(len(chunks)) if padded >> index & 1]
    found = run(stack, chunks, places)
    np.testing.assert_allclose(found, whole(stack)[1], atol=2e-5)


def test_beside_layers_with_a_state():
    np.testing.assert_allclose(run("beside convolutions", [5, 1, 4] * 2), whole("beside convolutions")[1], atol=2e-5)


def test_the_first_slots_alone_are_read_while_they_suffice():
    ids, wanted = whole("of two widths")
    decoder = model("of two widths")
    cache, parts = filled(decoder.new_cache(1, SLOTS, LONGEST)), []
    for position in range(LENGTH):
        step = {"token_ids": ids[:, [position]], "cache_positions": np.array([position], "int32")}
        slots = next(slots for slots in (4, 11, 20, SLOTS) if position < slots)
        outputs = decoder.step(step, cache, slots=slots)
        cache = outputs["cache"]
        parts.append(np.asarray(outputs["sequence_output"]))
    np.testing.assert_allclose(np.concatenate(parts, axis=1), wanted, atol=2e-5)


def test_steps_that_it_was_not_made_for_are_refused():
    decoder = model("alone")
    cache, ids = decoder.new_cache(1, SLOTS, LONGEST), whole("alone")[0]
    step = {"token_ids": ids[:, :6], "cache_positions": np.arange(6, dtype="int32")}
    with pytest.raises(ValueError, match=r"6 new tokens, but this cache was made for steps of 5.*longest_step"):
        decoder.step(step, cache)
    step = {"token_ids": ids[:, :2], "cache_positions": np.arange(2, dtype="int32")}
    with pytest.raises(ValueError, match="no cache_mask"):
        decoder.step({**step, "cache_mask": np.ones((1, SLOTS), "int32")}, cache)
