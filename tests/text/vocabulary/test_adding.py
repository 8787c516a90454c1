"""Further tokens: the ids that transformers gives them, and texts without them as before."""

import pytest
import tiny

from tfxformer.text import Tokenizer

MARKS = ("[E1]", "[/E1]")


def tokenizers(folder):
    yield "WordPiece", tiny.tokenizer(folder)
    yield "BPE", Tokenizer.train_byte_level_bpe(tiny.TEXTS, 280)


def test_new_tokens_are_found_whole(tmp_path):
    for kind, before in tokenizers(tmp_path):
        after = before.with_tokens(MARKS)
        count = len(before.vocabulary())
        assert after.vocabulary() == [*before.vocabulary(), *MARKS], kind
        (ids,) = after.ids(["a [E1] good [/E1] film"], special_tokens=False)
        assert ids.count(count) == ids.count(count + 1) == 1, kind
        assert before.ids(tiny.TEXTS) == after.ids(tiny.TEXTS), kind
        assert Tokenizer.from_json(after.to_json()) == after, kind
        assert before.vocabulary() == after.vocabulary()[:count], kind


def test_known_tokens_stay(tmp_path):
    before = tiny.tokenizer(tmp_path)
    assert before.with_tokens(["[MASK]", "good"]) == before
    assert before.with_tokens(["[E1]", "[E1]"]).vocabulary()[-1] == "[E1]"
    with pytest.raises(ValueError, match="a token of no letters"):
        before.with_tokens(["[E1]", " "])


@pytest.mark.reference
def test_ids_are_those_of_transformers(tmp_path):
    import transformers

    text = "a [E1] good [/E1] film [E1]bad"
    for kind, before in tokenizers(tmp_path):
        before.save_pretrained(tmp_path / kind)
        theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / kind)
        theirs.add_special_tokens({"additional_special_tokens": list(MARKS)})
        after = before.with_tokens(MARKS)
        assert after.ids([text]) == [theirs(text)["input_ids"]], kind
        after.save_pretrained(tmp_path / f"{kind}-after")
        again = transformers.AutoTokenizer.from_pretrained(tmp_path / f"{kind}-after")
        assert again(text)["input_ids"] == theirs(text)["input_ids"], kind
