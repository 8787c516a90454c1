"""Tokenizers out of GGUF metadata: against llama.cpp's ids, the tokenizer the metadata came from, and transformers."""

import json
from pathlib import Path

import pytest
from tokenizers import Regex, pre_tokenizers

from tfxformer import samples
from tfxformer.tasks.base.tokenizer import open_tokenizer
from tfxformer.text import Tokenizer
from tfxformer.text.gguf import PRE_TOKENIZERS

STORED = json.loads((Path(__file__).parent / "fixtures" / "smollm2-llama-cpp.json").read_text(encoding="utf-8"))
SOURCE = Tokenizer.train_byte_level_bpe([*STORED["texts"], "the cat sat on the mat " * 9], 400, ["<|end|>", "<|turn|>"])
MESSAGES = [{"role": "user", "content": 'Is 1 < 2 & "é"?'}, {"role": "assistant", "content": "Yes."}]


def fields(pre="gpt-2", **changes):
    """The metadata that llama.cpp's converter would write for `SOURCE`."""
    model = json.loads(SOURCE.tokenizer_json())["model"]
    tokens = SOURCE.vocabulary()
    written = {
        "model": "gpt2",
        "pre": pre,
        "tokens": tokens,
        "token_type": [3, 3] + [1] * (len(tokens) - 2),
        "merges": [" ".join(merge) for merge in model["merges"]],
        "bos_token_id": 0,
        "eos_token_id": 0,
        **changes,
    }
    return {f"tokenizer.ggml.{key}": value for key, value in written.items() if value is not None}


@pytest.mark.samples
def test_smollm2_has_llama_cpps_ids_and_reads_back():
    tokenizer = open_tokenizer(samples.smollm2())
    assert tokenizer.ids(STORED["texts"]) == STORED["ids"]
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.padding_id, tokenizer.unknown_id) == (1, 2, 2, 0)
    assert tokenizer.vocabulary_size == 49152
    assert tokenizer.model_max_length == 8192
    kept = [text for text in STORED["texts"] if all(character < "\u0250" for character in text) and "\x00" not in text]
    assert tokenizer.decode(tokenizer.ids(kept), skip_special_tokens=False) == kept
    assert tokenizer.apply_chat_template(MESSAGES[:1]) == (
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
        '<|im_start|>user\nIs 1 < 2 & "é"?<|im_end|>\n<|im_start|>assistant\n'
    )


@pytest.mark.samples
def test_smollm2s_tokenizer_saves_as_a_folder(tmp_path):
    tokenizer = open_tokenizer(samples.smollm2())
    tokenizer.save_pretrained(tmp_path)
    again = open_tokenizer(tmp_path)
    assert again.ids(STORED["texts"]) == STORED["ids"]
    assert again.chat_template == tokenizer.chat_template
    assert (again.bos_id, again.eos_id, again.padding_id) == (1, 2, 2)


@pytest.mark.samples
@pytest.mark.reference
def test_smollm2s_saved_tokenizer_is_the_same_in_transformers(tmp_path):
    transformers = pytest.importorskip("transformers")
    tokenizer = open_tokenizer(samples.smollm2())
    tokenizer.save_pretrained(tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert [theirs(text)["input_ids"] for text in STORED["texts"]] == STORED["ids"]
    for generation in (True, False):
        rendered = theirs.apply_chat_template(MESSAGES, tokenize=False, add_generation_prompt=generation)
        assert tokenizer.apply_chat_template(MESSAGES, generation) == rendered
    assert (theirs.bos_token_id, theirs.eos_token_id, theirs.pad_token_id, theirs.unk_token_id) == (1, 2, 2, 0)


def test_metadata_give_the_tokenizer_they_came_from():
    tokenizer = Tokenizer.from_gguf(fields())
    texts = [*STORED["texts"], "a<|end|>b", "the cat<|turn|>"]
    assert tokenizer.ids(texts) == SOURCE.ids(texts)
    assert tokenizer.decode(tokenizer.ids(texts)) == SOURCE.decode(SOURCE.ids(texts))
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.padding_id) == (0, 0, None)
    assert Tokenizer.from_json(tokenizer.to_json()) == tokenizer


def words(name, text):
    """The words of a text, as the pre-tokenizer of a name cuts it."""
    return [word for word, _ in PRE_TOKENIZERS[name](False).pre_tokenize_str(text)]


@pytest.mark.reference
def test_patterns_are_those_of_transformers():
    transformers = pytest.importorskip("transformers")
    from transformers.convert_slow_tokenizer import TikTokenConverter

    qwen2 = transformers.Qwen2Tokenizer().backend_tokenizer
    pattern = Regex(TikTokenConverter().pattern)  # Llama 3's
    llama3 = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(pattern, "isolated"), pre_tokenizers.ByteLevel(False, use_regex=False)]
    )
    assert type(qwen2.normalizer).__name__ == "NFC"
    for text in STORED["texts"]:
        assert words("qwen2", text) == [word for word, _ in qwen2.pre_tokenizer.pre_tokenize_str(text)], text
        assert words("llama-bpe", text) == [word for word, _ in llama3.pre_tokenize_str(text)], text


def test_numbers_are_cut_as_the_names_say():
    text = "It's 12345 IT'S"
    assert words("gpt-2", text) == ["It", "'s", "Ġ12345", "ĠIT", "'", "S"]
    assert words("smollm", text) == ["It", "'s", "Ġ", "1", "2", "3", "4", "5", "ĠIT", "'", "S"]
    assert words("llama-bpe", text) == ["It", "'s", "Ġ", "123", "45", "ĠIT", "'S"]
    assert words("qwen2", text) == ["It", "'s", "Ġ", "1", "2", "3", "4", "5", "ĠIT", "'S"]


def test_begin_and_end_tokens_are_added_where_the_file_says_so():
    (plain,) = SOURCE.ids(["the cat"])
    assert Tokenizer.from_gguf(fields(add_bos_token=True)).ids(["the cat"]) == [[0, *plain]]
    both = Tokenizer.from_gguf(fields(add_bos_token=True, add_eos_token=True, bos_token_id=1))
    assert both.ids(["the cat"]) == [[1, *plain, 0]]
    assert both.ids(["the cat"], special_tokens=False) == [plain]
    assert both.encode(["a"], ["b"]).segment_ids.tolist() == [[0, 0, 0, 1, 1, 1]]
    assert Tokenizer.from_gguf(fields("llama-bpe")).ids([""]) == [[0]]  # Llama 3's do without saying it
    assert Tokenizer.from_gguf(fields("llama-bpe", add_bos_token=False)).ids([""]) == [[]]


def test_llama3_takes_whole_words_from_the_vocabulary_and_qwen2_composes_accents():
    tokens = [*SOURCE.vocabulary(), "zqj", "Ã©"]  # no merges lead to either
    more = {"tokens": tokens, "token_type": [3, 3] + [1] * (len(tokens) - 2)}
    assert Tokenizer.from_gguf(fields("llama-bpe", add_bos_token=False, **more)).ids(["zqj"]) == [[len(tokens) - 2]]
    assert len(Tokenizer.from_gguf(fields("qwen2", **more)).ids(["zqj"])[0]) == 3
    qwen2 = Tokenizer.from_gguf(fields("qwen2"))
    assert qwen2.ids(["e\u0301"]) == qwen2.ids(["é"])


def test_kinds_of_tokens():
    tokens = [*SOURCE.vocabulary(), "<tool>", "[PAD403]"]
    types = [3, 3] + [1] * (len(tokens) - 4) + [4, 5]
    tokenizer = Tokenizer.from_gguf(fields(tokens=tokens, token_type=types))
    assert tokenizer.ids(["<tool>"]) == [[len(tokens) - 2]]
    assert tokenizer.decode([[0, len(tokens) - 2]]) == ["<tool>"]  # special ones are skipped, user's are text
    assert len(tokenizer.ids(["[PAD403]"])[0]) > 1  # a row without a token
    assert tokenizer.vocabulary_size == len(tokens) - 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "t5"}, "of the kind 't5'"),
        ({"model": None}, "of the kind None"),
        ({"pre": "tekken"}, "pre-tokenizer is 'tekken'"),
        ({"pre": None}, "pre-tokenizer is None"),
        ({"tokens": None}, "tokens is not a list of str"),
        ({"token_type": [1]}, "1 types"),
        ({"token_type": "all plain"}, "token_type is not a list of int"),
        ({"merges": ["a b", "abc"]}, "merge 1 is 'abc', not two tokens"),
        ({"merges": ["a qqq"]}, "merges do not fit its tokens"),
        ({"eos_token_id": 10_000}, "eos_token has the id 10000"),
        ({"eos_token_id": "0"}, "eos_token has the id '0'"),
        ({"bos_token_id": None, "add_bos_token": True}, "adds a bos token to each text, but has none"),
    ],
)
def test_what_does_not_fit_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        Tokenizer.from_gguf(fields(**changes))


def test_a_token_that_comes_twice_is_refused():
    tokens = SOURCE.vocabulary()
    with pytest.raises(ValueError, match=f"{len(tokens)} tokens, {len(tokens) - 1} different"):
        Tokenizer.from_gguf(fields(tokens=[*tokens[:-1], tokens[2]]))
