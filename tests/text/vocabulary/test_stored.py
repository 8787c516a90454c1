"""vocab.json with merges.txt, read as transformers' own classes read them; files that are none are refused."""

import json

import pytest

from tfxformer.text import Tokenizer
from tfxformer.text.vocabulary import stored

CORPUS = [
    "the cat sat on the mat, and the dog's tail wagged",
    "1234 é 你好 \U0001f600\n\n  two  spaces\t<mask> end",
] * 4
NASTY = [
    *(
        "",
        " ",
        "the cat",
        " the cat",
        "the  cat\n\n sat",
        "é e\u0301 你好\U0001f600",
        "dog's DOG'S 12345",
        "\x00\u200b\ufffd",
    ),
    *("<s>the</s> cat<mask> on <mask>", "[MASK] cat [SEP]", "a<|endoftext|>b", "<extra>x<tool>"),
]


def write(folder, name, added=None, **settings):
    """A folder as older versions wrote it."""
    backend = json.loads(Tokenizer.train_byte_level_bpe(CORPUS, 320, special_tokens=()).tokenizer_json())
    special = dict.fromkeys(stored.BYTE_LEVEL[name or "RobertaTokenizer"].values())
    vocabulary = {token: index for index, token in enumerate([*special, *backend["model"]["vocab"]])}
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in backend["model"]["merges"]]
    (folder / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False), encoding="utf-8")
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n", encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": name, **settings}), encoding="utf-8")
    if added:
        ids = {token: len(vocabulary) + index for index, token in enumerate(added)}
        (folder / "added_tokens.json").write_text(json.dumps(ids), encoding="utf-8")
    return folder


@pytest.mark.reference
@pytest.mark.parametrize("settings", [{}, {"add_prefix_space": True}, {"added": ["<extra>", "<tool>"]}])
@pytest.mark.parametrize("name", [name for name in stored.BYTE_LEVEL if name not in ("LEDTokenizer", "BartTokenizer")])
def test_ids_equal_the_class_of_transformers(name, settings, tmp_path):
    import transformers

    folder = write(tmp_path, name, **settings)
    theirs = getattr(transformers, name).from_pretrained(folder)
    ours = Tokenizer.from_pretrained(folder)
    assert ours.ids(NASTY) == [theirs(text)["input_ids"] for text in NASTY]
    if ours.sep_id is not None:
        pairs = ours.encode(["the cat"], ["a mat"])
        assert pairs.token_ids[0].tolist() == theirs("the cat", "a mat")["input_ids"]
    assert ours.decode(ours.ids(NASTY[2:]), False) == [theirs.decode(theirs(text)["input_ids"]) for text in NASTY[2:]]
    for ours_id, role in ((ours.padding_id, "pad"), (ours.eos_id, "eos"), (ours.mask_id, "mask")):
        assert ours_id == getattr(theirs, f"{role}_token_id"), role
    ours.save_pretrained(tmp_path / "saved")
    assert Tokenizer.from_pretrained(tmp_path / "saved").ids(NASTY) == ours.ids(NASTY)


@pytest.mark.reference
@pytest.mark.parametrize("name", ["GPT2Tokenizer", "CodeGenTokenizer", "Qwen2Tokenizer"])
@pytest.mark.parametrize("asked", [("bos",), ("eos",), ("bos", "eos")])
def test_what_the_settings_put_around_a_text(name, asked, tmp_path):
    import transformers

    told = {"bos_token": "<|endoftext|>", **{f"add_{role}_token": True for role in asked}}
    folder = write(tmp_path, name, **told)
    theirs = getattr(transformers, name).from_pretrained(folder)
    ours = Tokenizer.from_pretrained(folder)
    assert ours.ids(NASTY) == [theirs(text)["input_ids"] for text in NASTY]
    assert ours.encode(["the cat"], ["a mat"]).token_ids[0].tolist() == theirs("the cat", "a mat")["input_ids"]


@pytest.mark.parametrize("kind", ["gpt2", "roberta", "qwen3"])
def test_the_class_is_that_of_the_model_where_none_is_named(kind, tmp_path):
    folder = write(tmp_path, None)
    (folder / "config.json").write_text(json.dumps({"model_type": kind}), encoding="utf-8")
    ids = Tokenizer.from_pretrained(folder).ids(["the cat"])[0]
    assert (ids[0] == 0) == (kind == "roberta")  # <s>


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("vocab.json", '{"a": "1"}', "gives 'a' the id '1'"),
        ("vocab.json", '{"a": -1}', "gives 'a' the id -1"),
        ("vocab.json", '{"a": 0, "b": 1}', "does not fit vocab.json"),
        ("merges.txt", "#version: 0.2\nonlyone\n", "line 2: 'onlyone' is no pair"),
        ("merges.txt", "a b c\n", "line 1: 'a b c' is no pair"),
        ("merges.txt", "zzz qqq\n", "does not fit vocab.json"),
    ],
)
def test_files_that_are_no_vocabulary_are_refused(file, content, message, tmp_path):
    folder = write(tmp_path, "GPT2Tokenizer")
    (folder / file).write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        Tokenizer.from_pretrained(folder)


def test_what_stands_around_a_text_must_be_there(tmp_path):
    folder = write(tmp_path, "RobertaTokenizer", cls_token="<none>")
    with pytest.raises(ValueError, match="lacks '<none>' or '</s>' of RobertaTokenizer"):
        Tokenizer.from_pretrained(folder)
