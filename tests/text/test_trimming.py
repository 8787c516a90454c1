"""A trimmed vocabulary writes its texts with the same tokens, and opens wherever the whole one did."""

import json

import numpy as np
import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st

from tfxformer.text import Tokenizer

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
    with pytest.raises(ValueError, match=r"Only a WordPiece vocabulary.*BPE"):
        Tokenizer.train_byte_level_bpe(CORPUS, 280).trimmed(CORPUS)
    with pytest.raises(ValueError, match="corpus is empty"):
        whole.trimmed([])
    with pytest.raises(TypeError, match="must be a list"):
        whole.trimmed("one text")
    with pytest.raises(TypeError, match="not str"):
        whole.trimmed(["a", 3])
    parts = json.loads(whole.to_json())
    parts["tokenizer"]["post_processor"] = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True}
    parts["tokenizer"]["post_processor"]["use_regex"] = True
    with pytest.raises(ValueError, match="by a ByteLevel, which is not known"):
        Tokenizer.from_json(json.dumps(parts)).trimmed(CORPUS)
