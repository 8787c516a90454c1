"""A text on its way through a decoder's file: which signature is called with which tokens at which slots."""

import numpy as np
import pytest

from tfxformer.runtime.generation.decoding import PADDING, DecodingSession


class Calls:
    """Stands for a file: writes down what it is asked, and says by its logits how often it was."""

    def __init__(self):
        self.made = []

    def __call__(self, signature, tokens, positions):
        self.made.append((signature, tokens.tolist(), positions.tolist()))
        assert tokens.dtype == positions.dtype == np.int32
        return np.array([len(self.made)], "float32")


def test_a_prompt_goes_in_chunks_and_tokens_follow_one_by_one():
    """A second chunk of four would end behind the cache of seven slots, where LiteRT would write over the first."""
    calls = Calls()
    session = DecodingSession(calls, lengths=(4,), cache_length=7, slots=(6,))
    session.prefill([10, 11, 12, 13, 14])
    assert calls.made == [("prefill_4", [[10, 11, 12, 13]], [0, 1, 2, 3]), ("decode", [[14]], [4])]
    assert session.decode(15) == [3.0]  # in slot 5, the last of the first six
    session.decode(16)
    assert calls.made[2:] == [("decode_6", [[15]], [5]), ("decode", [[16]], [6])]
    assert session.position == 7


def test_a_short_rest_is_padded_and_its_padding_overwritten():
    calls = Calls()
    session = DecodingSession(calls, lengths=(4,), cache_length=8)
    session.prefill([10, 11, 12])
    assert calls.made == [("prefill_4", [[10, 11, 12, PADDING]], [0, 1, 2, 3])]
    session.decode(13)
    assert calls.made[-1] == ("decode", [[13]], [3])


def test_the_last_slot_is_written_and_none_behind_it():
    calls = Calls()
    session = DecodingSession(calls, lengths=(2,), cache_length=3)
    session.prefill([10, 11])
    session.decode(12)
    with pytest.raises(ValueError, match="The cache of 3 slots is full"):
        session.decode(13)
    with pytest.raises(ValueError, match="1 tokens from slot 3 on do not fit into a cache of 3 slots"):
        session.prefill([13])
    assert [positions for _, _, positions in calls.made] == [[0, 1], [2]] and session.position == 3


def test_what_is_no_token_is_refused():
    session = DecodingSession(Calls(), lengths=(2,), cache_length=3)
    for tokens in ([1.5], [-1], [2**31]):
        with pytest.raises(ValueError, match="Tokens are integers from 0"):
            session.prefill(tokens)


def test_a_state_reads_no_padding():
    """Five tokens by prefills of four: the rest goes one by one where a chunk may not be filled up."""
    called = []
    session = DecodingSession(lambda name, *_: called.append(name), lengths=(4,), cache_length=12, whole=True)
    session.prefill(range(7))
    assert called == ["prefill_4", "decode", "decode", "decode"] and session.position == 7
