"""`TextStream`: the pieces together are the text of all ids, and no piece ends within a character."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models

from tfxformer.text import TextStream, Tokenizer

TRAINING = ["the cat sat on the mat, the dog ran", "naïve café", "你好，世界", "🚀🦙", "नमस्ते"]
BPE = Tokenizer.train_byte_level_bpe(TRAINING * 3, 300)
UNIGRAM = Tokenizer.from_json(
    Backend(models.Unigram([("<unk>", 0.0), ("▁", -2.0), ("▁the", -1.0), ("▁cat", -1.0), ("s", -2.0)], 0)).to_str()
)


def with_decoder(tokenizer, decoder):
    backend = Backend.from_str(tokenizer.tokenizer_json())
    backend.decoder = decoder
    return Tokenizer(backend.to_str())


METASPACE = with_decoder(UNIGRAM, decoders.Metaspace())


def streamed(tokenizer, ids, **arguments):
    stream = TextStream(tokenizer, **arguments)
    return [*(stream.feed(index) for index in ids), stream.end()]


@settings(max_examples=200, deadline=None)
@given(st.text(st.characters(codec="utf-8"), max_size=40))
def test_any_text_comes_out_whole_and_in_whole_characters(text):
    (ids,) = BPE.ids([text])
    pieces = streamed(BPE, ids, skip_special_tokens=False)
    assert "".join(pieces) == text
    if "\ufffd" not in text:
        assert not any("\ufffd" in piece for piece in pieces)
        assert pieces[-1] == ""  # nothing waits for an end that has come


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, BPE.vocabulary_size - 1), max_size=40))
def test_any_ids_give_the_text_of_them_all(ids):
    assert "".join(streamed(BPE, ids)) == BPE.decode([ids])[0]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 4), max_size=20))
def test_spaces_between_pieces_are_kept(ids):
    assert "".join(streamed(METASPACE, ids)) == METASPACE.decode([ids])[0]


def test_a_character_of_several_tokens_waits_for_its_last():
    (ids,) = BPE.ids(["a𐍈b"])
    assert len(ids) == 6  # a letter that was never seen: four bytes
    assert streamed(BPE, ids) == ["a", "", "", "", "𐍈", "b", ""]
    assert streamed(BPE, ids[:4]) == ["a", "", "", "", "\ufffd"]


def test_ids_may_come_in_handfuls_and_a_stream_can_be_used_again():
    stream = TextStream(BPE)
    (ids,) = BPE.ids(["the café 你好"])
    for _ in range(2):
        pieces = [stream.feed(ids[:5]), stream.feed(ids[5:]), stream.end()]
        assert "".join(pieces) == "the café 你好"


def test_special_tokens_are_left_out_or_shown():
    ids = [0, *BPE.ids(["cat"])[0], BPE.eos_id]
    assert "".join(streamed(BPE, ids)) == "cat"
    assert "".join(streamed(BPE, ids, skip_special_tokens=False)) == "<|endoftext|>cat<|endoftext|>"


@pytest.mark.parametrize("count", [3000])
def test_a_long_stream_decodes_a_few_tokens_a_time(count):
    generator = random.Random(0)
    (alphabet,) = BPE.ids(["the cat sat on the mat "])
    ids = [generator.choice(alphabet) for _ in range(count)]
    decoded = []
    stream = TextStream(BPE)
    stream._text = lambda kept: decoded.append(len(kept)) or BPE.decode([kept])[0]
    assert "".join(map(stream.feed, ids)) == BPE.decode([ids])[0]
    assert max(decoded) <= 3
