"""Vocabularies made from texts: nothing is lost, and what is saved opens the same."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfxformer.text import Tokenizer

TEXTS = ["the cat sat on the mat", "the dog sat on the log", "naïve café, 你好", "def f(x):\n\treturn x\n"] * 3
BPE = Tokenizer.train_byte_level_bpe(TEXTS, 290)
NOVEL = "It is a truth universally acknowledged,\nthat a “single” man — é 你\t"
CHARACTERS = Tokenizer.characters(NOVEL)


@settings(max_examples=300, deadline=None)
@given(st.text(st.characters(codec="utf-8"), max_size=60))
def test_byte_level_bpe_reads_back_any_text(text):
    assert BPE.decode(BPE.ids([text]), skip_special_tokens=False) == [text]


@settings(max_examples=100, deadline=None)
@given(st.text(st.sampled_from(sorted(set(NOVEL))), max_size=60))
def test_characters_read_back_any_text_of_them(text):
    (ids,) = CHARACTERS.ids([text])
    assert len(ids) == len(text)
    assert CHARACTERS.decode([ids]) == [text]


def test_bpe_learns_words_and_keeps_its_size():
    assert BPE.vocabulary_size == 290
    assert "Ġthe" in BPE.vocabulary()
    assert len(BPE.ids(["the cat sat"])[0]) <= 4
    assert (BPE.bos_id, BPE.eos_id, BPE.padding_id, BPE.unknown_id) == (0, 0, 0, None)
    assert BPE.ids(["<|endoftext|>"]) == [[0]]
    assert Tokenizer.train_byte_level_bpe(TEXTS, 290) == BPE  # the same every time
    assert Tokenizer.train_byte_level_bpe(["ab"], 5000).vocabulary_size == 257  # nothing comes twice


def test_bpe_without_special_tokens_or_with_several():
    bare = Tokenizer.train_byte_level_bpe(TEXTS, 300, [])
    assert (bare.bos_id, bare.eos_id, bare.padding_id) == (None, None, None)
    chat = Tokenizer.train_byte_level_bpe(TEXTS, 300, ["<|end|>", "<|user|>"])
    assert (chat.eos_id, chat.ids(["<|user|>x<|end|>"])[0][0]) == (0, 1)
    assert chat.decode(chat.ids(["<|user|>x<|end|>"])) == ["x"]


def test_word_piece_is_learned_from_texts():
    trained = Tokenizer.train_word_piece([*TEXTS, "walking talking walked talked"] * 5, 90)
    assert trained.vocabulary_size <= 90 and trained.vocabulary()[:5] == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    assert {"##ing", "the"} <= set(trained.vocabulary())
    (row,) = trained.ids(["The log talking"])  # lowercase, and what no text had is spelled out
    assert (row[0], row[-1]) == (trained.cls_id, trained.sep_id) and trained.decode([row]) == ["the log talking"]
    cased = Tokenizer.train_word_piece(["Cat cat"] * 3, 90, lowercase=False)
    assert cased.ids(["Cat"]) != cased.ids(["cat"])
    with pytest.raises(ValueError, match="cannot hold"):
        Tokenizer.train_word_piece(TEXTS, 12)


def test_tokens_that_continue_a_word():
    trained = Tokenizer.train_word_piece([*TEXTS, "walking talking walked talked"] * 5, 90)
    marked = trained.continuations()
    assert all(token.startswith("##") == marked[i] for i, token in enumerate(trained.vocabulary()))
    (row,) = BPE.ids(["on the catlog"])
    words = [len(word) for word in ("on", " the", " catlog")]
    begins = np.cumsum([0, *words[:-1]])
    starts = np.cumsum([0, *(len(BPE.decode([[token]])[0]) for token in row)])[:-1]
    assert [start in begins for start in starts[1:]] == (~BPE.continuations()[row[1:]]).tolist()
    assert not CHARACTERS.continuations().any()
    assert not BPE.continuations()[BPE.eos_id]


def test_characters_have_their_order_and_one_id_for_all_others():
    assert CHARACTERS.vocabulary() == [*sorted(set(NOVEL)), "<unk>"]
    last = CHARACTERS.vocabulary_size - 1
    assert CHARACTERS.ids(["aßa"])[0] == [CHARACTERS.ids(["a"])[0][0], last, CHARACTERS.ids(["a"])[0][0]]
    assert (CHARACTERS.unknown_id, CHARACTERS.padding_id, CHARACTERS.eos_id) == (last, last, None)
    batch = CHARACTERS.encode(["It", "is a truth"])
    assert batch.padding_mask.sum(axis=1).tolist() == [2, 10]


def test_characters_may_come_from_several_texts():
    assert Tokenizer.characters(["bah", "", "cab"]).to_json() == Tokenizer.characters("bahcab").to_json()


def test_characters_may_have_special_tokens_in_front():
    tokenizer = Tokenizer.characters("bah", ("</s>", "[X]"))
    assert tokenizer.vocabulary() == ["</s>", "[X]", "a", "b", "h", "<unk>"]
    assert (tokenizer.eos_id, tokenizer.bos_id, tokenizer.padding_id, tokenizer.unknown_id) == (0, 0, 0, 5)
    assert tokenizer.ids(["haz"]) == [[4, 2, 5]]
    assert tokenizer.decode([[4, 2, 0]]) == ["ha"]
    assert Tokenizer.from_json(tokenizer.to_json()).ids(["[X]ab</s>"]) == [[1, 2, 3, 0]]


@pytest.mark.parametrize("tokenizer", [BPE, CHARACTERS], ids=["bpe", "characters"])
def test_saved_ones_open_equal(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    again = Tokenizer.from_pretrained(tmp_path)
    assert again.ids([NOVEL]) == tokenizer.ids([NOVEL])
    assert again.decode(again.ids([NOVEL])) == [NOVEL]
    names = ("bos_id", "eos_id", "padding_id", "unknown_id", "vocabulary_size", "kind")
    assert [getattr(again, name) for name in names] == [getattr(tokenizer, name) for name in names]
    assert Tokenizer.from_json(tokenizer.to_json()) == tokenizer


@pytest.mark.reference
@pytest.mark.parametrize("tokenizer", [BPE, CHARACTERS], ids=["bpe", "characters"])
def test_transformers_opens_what_is_saved(tokenizer, tmp_path):
    transformers = pytest.importorskip("transformers")
    tokenizer.save_pretrained(tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    for text in [NOVEL, *TEXTS[:4]]:
        assert theirs(text)["input_ids"] == tokenizer.ids([text])[0]
    assert (theirs.eos_token_id, theirs.pad_token_id) == (tokenizer.eos_id, tokenizer.padding_id)


@pytest.mark.parametrize(
    ("texts", "size", "special", "error", "message"),
    [
        ("one text", 300, [], TypeError, "must be a list"),
        (["a", 3], 300, [], TypeError, r"texts\[1\] is int"),
        (["\ud800"], 300, [], ValueError, "lone surrogate"),
        ([], 300, [], ValueError, "no text to learn"),
        (["", ""], 300, [], ValueError, "no text to learn"),
        (["a"], 256, ["<end>"], ValueError, "at least 257"),
        (["a"], 300, ["<a>", "<a>"], ValueError, "must be different"),
        (["a"], 300, "<a>", TypeError, "special_tokens must be a list"),
    ],
)
def test_what_no_vocabulary_can_be_learned_from(texts, size, special, error, message):
    with pytest.raises(error, match=message):
        Tokenizer.train_byte_level_bpe(texts, size, special)


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [("", ValueError, "no text"), (["a", 3], TypeError, r"texts\[1\]"), ("a\udfff", ValueError, "lone surrogate")],
)
def test_what_has_no_characters(text, error, message):
    with pytest.raises(error, match=message):
        Tokenizer.characters(text)


@pytest.mark.parametrize("special", [("a",), ("<unk>",), ("</s>", "</s>"), ("",)])
def test_special_tokens_are_none_of_the_characters(special):
    with pytest.raises(ValueError, match="Special tokens must be"):
        Tokenizer.characters("abc", special)
