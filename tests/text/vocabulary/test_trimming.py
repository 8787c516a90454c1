"""A trimmed vocabulary writes its texts with the same tokens, and opens wherever the whole one did."""

import json
from pathlib import Path

import numpy as np
import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st

from tfxformer.text import Tokenizer
from tfxformer.text.vocabulary.trimming import trimmed_parts

FIXTURES = Path(__file__).parents[1] / "fixtures"
CORPUS = ["a good film", "not a bad plot, was it?", "good cats ran", "who é sat"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return tiny.tokenizer(tmp_path_factory.mktemp("vocabulary"))


def tokens(tokenizer, texts):
    names = tokenizer.vocabulary()
    return [[names[index] for index in row] for row in tokenizer.ids(texts)]


def test_texts_keep_their_tokens_and_other_words_are_spelled(whole):
    small, kept = whole.trimmed(CORPUS)
    assert small.vocabulary_size == len(kept) < whole.vocabulary_size
    assert small.vocabulary() == [whole.vocabulary()[index] for index in kept]
    assert [[kept[index] for index in row] for row in small.ids(CORPUS)] == whole.ids(CORPUS)
    assert "engine" in whole.vocabulary() and "engine" not in small.vocabulary()
    assert tokens(small, ["ada"]) == [["[CLS]", "a", "##d", "##a", "[SEP]"]]  # letters of the corpus spell
    for role in ("padding_id", "unknown_id", "mask_id", "cls_id", "sep_id"):
        assert small.vocabulary()[getattr(small, role)] == whole.vocabulary()[getattr(whole, role)]
    pair = small.encode(["good film"], ["bad plot"]), whole.encode(["good film"], ["bad plot"])
    np.testing.assert_array_equal(kept[pair[0].token_ids], pair[1].token_ids)
    np.testing.assert_array_equal(pair[0].segment_ids, pair[1].segment_ids)


PIECES = ["ab", "a", "b", "c", "##b", "##c", "##bc", "##bcd", "abc", "##d", "bcd"]


@settings(max_examples=100, deadline=None)
@given(st.sets(st.sampled_from(PIECES)), st.lists(st.text("abcd ", max_size=12), min_size=1, max_size=4))
def test_unknown_words_stay_unknown(tmp_path_factory, pieces, texts):
    """Whatever the vocabulary: without what it begins with, a word may be cut otherwise and become known."""
    path = tmp_path_factory.mktemp("pieces") / "vocab.txt"
    path.write_text("".join(f"{token}\n" for token in ["[UNK]", "[CLS]", "[SEP]", "[PAD]", *sorted(pieces)]))
    whole = Tokenizer.from_vocabulary(path)
    small, kept = whole.trimmed(texts)
    assert [[kept[index] for index in row] for row in small.ids(texts)] == whole.ids(texts)


def test_a_word_that_would_become_known(tmp_path):
    """Greedy matching takes "ab" and finds no "##c"; without "ab" it would find "a" and "##bc"."""
    path = tmp_path / "vocab.txt"
    path.write_text("[UNK]\n[CLS]\n[SEP]\n[PAD]\nab\na\n##bc\nd\n")
    whole = Tokenizer.from_vocabulary(path)
    small, _ = whole.trimmed(["abc", "a dbc", "a"])
    assert tokens(whole, ["abc"]) == tokens(small, ["abc"]) == [["[CLS]", "[UNK]", "[SEP]"]]


SENTENCES = [
    "the cat sat on the mat",
    "the dog sat on the log, the end",
    "naïve café, 你好",
    "def f(x):\n\treturn x  # 1234\n",
    "It's what they're saying: don't!",
]
BPE = Tokenizer.train_byte_level_bpe(SENTENCES * 4, 420, ["<|endoftext|>", "<|user|>"])


def assert_same_tokens(whole, small, kept, texts):
    assert [[kept[index] for index in row] for row in small.ids(texts)] == whole.ids(texts)
    names = whole.vocabulary()
    assert small.vocabulary() == [names[index] for index in kept]


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.sampled_from(SENTENCES),
            st.lists(st.sampled_from(BPE.vocabulary()[2:300]), max_size=6).map(
                lambda tokens: BPE.decode([[BPE.vocabulary().index(token) for token in tokens]])[0]
            ),
            st.text(max_size=12),
        ),
        min_size=1,
        max_size=4,
    ),
    st.text(max_size=20),
)
def test_byte_level_bpe_keeps_tokens_and_writes_every_text(texts, other):
    small, kept = BPE.trimmed(texts)
    assert_same_tokens(BPE, small, kept, texts)
    assert small.decode(small.ids([other]), skip_special_tokens=False) == [other]
    assert small.vocabulary_size <= BPE.vocabulary_size and small.eos_id == 0


@st.composite
def random_bpe(draw):
    """A BPE over a few letters with any merges in any order, also such whose parts come later; words it knows whole."""
    tokens, merges = list("abc "), []
    for _ in range(draw(st.integers(0, 14))):
        first, second = draw(st.sampled_from(tokens)), draw(st.sampled_from(tokens))
        if first + second not in tokens:
            tokens.append(first + second)
        if [first, second] not in merges:
            merges.append([first, second])
    merges = draw(st.permutations(merges))
    whole_words = draw(st.lists(st.text("abc", min_size=2, max_size=4), max_size=3))
    names = ["<unk>", *dict.fromkeys([*tokens, *whole_words])]
    content = json.loads(Tokenizer.characters("abc ").tokenizer_json())
    content["model"] |= {
        "vocab": {token: index for index, token in enumerate(names)},
        "merges": [" ".join(pair) for pair in merges] if draw(st.booleans()) and " " not in "".join(tokens) else merges,
        "unk_token": "<unk>",
        "ignore_merges": draw(st.booleans()),
    }
    if draw(st.booleans()):
        content["pre_tokenizer"] = {"type": "WhitespaceSplit"}
    return Tokenizer(json.dumps(content), {"unk_token": "<unk>"})


@settings(max_examples=300, deadline=None)
@given(random_bpe(), st.lists(st.text("abcd ", max_size=14), min_size=1, max_size=4))
def test_any_merges_in_any_order(whole, texts):
    small, kept = whole.trimmed(texts)
    assert_same_tokens(whole, small, kept, texts)


def test_bytes_of_a_fallback_stay():
    """As Llama 2 has it: no words, spaces as "▁", and bytes for characters without a token."""
    bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
    names = ["<unk>", "<s>", *bytes_, "▁", *"abcdeж", "▁a", "ab", "▁ab", "cd", "de"]
    content = {
        "version": "1.0",
        "added_tokens": [],
        "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
        "pre_tokenizer": None,
        "post_processor": None,
        "decoder": None,
        "model": {
            "type": "BPE",
            "vocab": {token: index for index, token in enumerate(names)},
            "merges": ["a b", "▁ a", "▁ ab", "c d", "d e"],
            "byte_fallback": True,
            "fuse_unk": True,
            "unk_token": "<unk>",
        },
    }
    whole = Tokenizer(json.dumps(content))
    texts = [" ab é", "a ab"]
    small, kept = whole.trimmed(texts)
    assert_same_tokens(whole, small, kept, texts)
    assert set(names) - set(small.vocabulary()) == {"▁a", "cd", "de", "ж"}
    assert tokens(whole, ["cdж"]) == [["cd", "ж"]]
    assert tokens(small, ["cdж"]) == [["c", "d", "<0xD0>", "<0xB6>"]]


def test_a_checkpoint_of_byte_level_bpe(tmp_path):
    """RoBERTa's kind: a post-processor with ids, a mask token that eats the space before it."""
    whole = Tokenizer.from_pretrained(FIXTURES / "roberta")
    texts = ["a good film", "not a <mask> plot", *SENTENCES]
    small, kept = whole.trimmed(texts)
    assert len(kept) < whole.vocabulary_size
    assert_same_tokens(whole, small, kept, texts)
    small.save_pretrained(tmp_path)
    assert Tokenizer.from_pretrained(tmp_path).ids(texts) == small.ids(texts)
    for role in ("padding_id", "unknown_id", "mask_id", "cls_id", "sep_id"):
        assert small.vocabulary()[getattr(small, role)] == whole.vocabulary()[getattr(whole, role)]


@pytest.mark.reference
def test_transformers_reads_the_same_ids_of_bpe(tmp_path):
    import transformers

    small, _ = BPE.trimmed(SENTENCES[:2])
    small.save_pretrained(tmp_path)
    reference = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert reference(SENTENCES)["input_ids"] == small.ids(SENTENCES)


def test_files_are_read_again(whole, tmp_path):
    small, _ = whole.trimmed(CORPUS)
    small.save_pretrained(tmp_path)
    again = Tokenizer.from_pretrained(tmp_path)
    assert again.ids(CORPUS) == small.ids(CORPUS)
    assert (tmp_path / "vocab.txt").read_text(encoding="utf-8").splitlines() == small.vocabulary()
    assert Tokenizer.from_json(small.to_json()) == small


@pytest.mark.reference
def test_transformers_reads_the_same_ids(whole, tmp_path):
    import transformers

    small, _ = whole.trimmed(CORPUS)
    small.save_pretrained(tmp_path)
    reference = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert reference(CORPUS)["input_ids"] == small.ids(CORPUS)
    assert reference.pad_token_id == small.padding_id


def test_ids_in_settings_and_processors_are_renumbered(whole):
    """What files of the hub have: baked-in padding, BERT's own processor, tokens that are added and declared."""
    parts = json.loads(whole.to_json())
    names = whole.vocabulary()
    content, config = parts["tokenizer"], parts["config"]
    content["post_processor"] = {
        "type": "BertProcessing",
        "sep": ["[SEP]", names.index("[SEP]")],
        "cls": ["[CLS]", names.index("[CLS]")],
    }
    content["padding"] = {
        "strategy": {"Fixed": 16},
        "direction": "Right",
        "pad_to_multiple_of": None,
        "pad_id": names.index("[PAD]"),
        "pad_type_id": 0,
        "pad_token": "[PAD]",
    }
    added = {"content": "<film>", "single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    content["added_tokens"].append({"id": len(names), **added, "special": False})
    config["added_tokens_decoder"] = {str(len(names)): {**added, "special": False}}
    # Where the special tokens are not the first, as in BERT's own vocabulary.
    order = [*names[5:], *names[:5]]
    content["model"]["vocab"] = {token: index for index, token in enumerate(order)}
    for token in content["added_tokens"][:-1]:
        token["id"] = order.index(token["content"])
    for role, name in (("sep", "[SEP]"), ("cls", "[CLS]")):
        content["post_processor"][role] = [name, order.index(name)]
    content["padding"]["pad_id"] = order.index("[PAD]")
    whole = Tokenizer.from_json(json.dumps(parts))
    small, kept = whole.trimmed(CORPUS)
    texts = [*CORPUS, "good <film>"]
    assert [[kept[index] for index in row] for row in small.ids(texts)] == whole.ids(texts)
    assert "<film>" in small.vocabulary()
    parts = json.loads(small.to_json())
    assert parts["tokenizer"]["padding"]["pad_id"] == small.padding_id
    assert list(parts["config"]["added_tokens_decoder"]) == [str(small.vocabulary().index("<film>"))]


def test_what_cannot_be_trimmed_is_refused(whole):
    with pytest.raises(ValueError, match=r"Only WordPiece and BPE vocabularies.*this one is Unigram"):
        Tokenizer.from_pretrained(FIXTURES / "albert").trimmed(CORPUS)
    for setting, value in (("end_of_word_suffix", "</w>"), ("dropout", 0.1)):
        parts = json.loads(BPE.to_json())
        parts["tokenizer"]["model"][setting] = value
        with pytest.raises(ValueError, match=f"BPE with {setting}={value!r} cannot be trimmed"):
            Tokenizer.from_json(json.dumps(parts)).trimmed(CORPUS)
    with pytest.raises(ValueError, match="corpus is empty"):
        whole.trimmed([])
    with pytest.raises(TypeError, match="must be a list"):
        whole.trimmed("one text")
    with pytest.raises(TypeError, match="not str"):
        whole.trimmed(["a", 3])
    content = json.loads(whole.to_json())["tokenizer"]
    content["post_processor"] = {"type": "Unheard"}  # of a later version of the library
    with pytest.raises(ValueError, match="by a Unheard, which is not known"):
        trimmed_parts(content, {}, list(range(whole.vocabulary_size)))
