"""SentencePiece tokenizers out of GGUF metadata, against the package `sentencepiece` on the models they came from."""

import functools
import tempfile
from pathlib import Path

import pytest
import spm_cases as cases
from hypothesis import given, settings
from hypothesis import strategies as st

from tfxformer.text import Tokenizer
from tfxformer.text.sentencepieces.model_file import USER_DEFINED, read_model

pytest.importorskip("sentencepiece")
WHOLE = ["\n", "\n\n", "\n\n\n", "\t", "▁▁", "▁▁▁", "▁▁▁▁", "<table>", "<td>"]  # as Gemma's
TEXTS = [
    *(
        *cases.NASTY,
        *cases.CORPUS,
        "\n\n\n\n\n",
        "    if x:\n\t\treturn 1\n\n",
        " " * 9 + "a",
        "<table><td>1<td>",
        "<0x41>",
    ),
    *("<table", "a<td>b", "a ▁ b▁▁▁▁▁", "\n \n", "▁<td>"),
]
ANY = st.text(st.sampled_from("ab \n\t▁<td>é猫👍0xA"), max_size=16) | st.text(st.characters(codec="utf-8"), max_size=30)
TURNS = "{{ bos_token }}{% for m in messages %}<turn>{{ m['role'] }}\n{{ m['content'] }}</turn>\n{% endfor %}"


@functools.cache
def opened(prefix):
    """The metadata that llama.cpp's converter would write for a newly trained model, and that model."""
    path = Path(tempfile.mkdtemp()) / "tokenizer.model"
    reference = cases.train(
        path, 900, model_type="bpe", normalization_rule_name="identity", byte_fallback=True, add_dummy_prefix=prefix,
        remove_extra_whitespaces=False, allow_whitespace_only_pieces=True, pad_id=3, unk_id=0, bos_id=1, eos_id=2,
        user_defined_symbols=[] if prefix else WHOLE, control_symbols=["<turn>", "</turn>"],
    )  # fmt: skip
    pieces = read_model(path).pieces
    fields = {
        "model": "llama",
        "pre": "default",
        "tokens": [piece.text.replace("▁", " ") if piece.kind == USER_DEFINED else piece.text for piece in pieces],
        "scores": [piece.score for piece in pieces],
        "token_type": [piece.kind for piece in pieces],
        "bos_token_id": 1,
        "eos_token_id": 2,
        "unknown_token_id": 0,
        "padding_token_id": 3,
        "add_space_prefix": prefix,
    }
    return {f"tokenizer.ggml.{key}": value for key, value in fields.items()}, reference


@functools.cache
def tokenizer(prefix):
    return Tokenizer.from_gguf(opened(prefix)[0])


def check(prefix, texts):
    made, reference = tokenizer(prefix), opened(prefix)[1]
    for text, ids in zip(texts, made.ids(texts, special_tokens=False), strict=True):
        assert ids == reference.encode(text), text
        assert made.decode([ids], skip_special_tokens=False) == [reference.decode(ids)], text


@pytest.mark.parametrize("prefix", [False, True])
def test_hard_texts_have_sentencepieces_ids_and_read_back(prefix):
    check(prefix, TEXTS)


@settings(max_examples=150, deadline=None)
@given(ANY)
def test_any_text_has_sentencepieces_ids_and_reads_back(text):
    check(False, [text])


def test_special_tokens_in_a_text_are_whole_and_each_text_begins_with_one():
    made, reference = tokenizer(False), opened(False)[1]
    turn, end = map(reference.piece_to_id, ("<turn>", "</turn>"))
    wanted = [1, turn, *reference.encode("user\n  Hi 猫"), end, *reference.encode("\n"), 2]
    assert made.ids(["<turn>user\n  Hi 猫</turn>\n</s>"]) == [wanted]  # llama.cpp begins texts unless it is told not to
    assert made.decode([wanted]) == ["user\n  Hi 猫\n"]
    assert (made.bos_id, made.eos_id, made.padding_id, made.unknown_id) == (1, 2, 3, 0)
    without = opened(False)[0] | {"tokenizer.ggml.add_bos_token": False, "tokenizer.ggml.add_eos_token": True}
    assert Tokenizer.from_gguf(without).ids(["<turn>"]) == [[turn, 2]]


def test_phi3s_special_tokens_take_the_blanks_behind_them_along():
    """As its tokenizer.json says (rstrip), and llama.cpp knows by its name: the file does not say it."""
    made, reference = Tokenizer.from_gguf(opened(True)[0] | {"general.architecture": "phi3"}), opened(True)[1]
    turn, end = map(reference.piece_to_id, ("<turn>", "</turn>"))
    wanted = [1, turn, *reference.encode("Hi 猫"), end, turn, *reference.encode("a")]
    assert made.ids(["<turn>\n Hi 猫</turn>\n<turn>  a"]) == [wanted]
    assert made.ids(["<s>\n"], special_tokens=False) == [[1, *reference.encode("\n")]]  # this one does not


def test_the_chat_template_of_the_file_applies():
    made = Tokenizer.from_gguf(opened(False)[0] | {"tokenizer.chat_template": TURNS})
    text = made.apply_chat_template([{"role": "user", "content": "Hi"}])
    assert text == "<s><turn>user\nHi</turn>\n"
    assert Tokenizer.from_json(made.to_json()) == made


def test_it_saves_as_a_folder(tmp_path):
    tokenizer(False).save_pretrained(tmp_path)
    assert Tokenizer.from_pretrained(tmp_path).ids(TEXTS) == tokenizer(False).ids(TEXTS)


@pytest.mark.reference
def test_the_saved_folder_is_the_same_in_transformers(tmp_path):
    transformers = pytest.importorskip("transformers")
    tokenizer(False).save_pretrained(tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert [theirs(text)["input_ids"] for text in TEXTS] == tokenizer(False).ids(TEXTS)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scores": None}, "scores is not a list of numbers"),
        ({"scores": [0.5]}, "tokens, but 1 scores"),
        ({"scores": [float("nan")]}, "not a list of numbers"),
        ({"unknown_token_id": 100_000}, "unk_token has the id 100000"),
        ({"token_type": 7}, "token 0 has the type 7"),
        ({"add_space_prefix": True}, "puts a space before each text and has tokens with spaces"),
    ],
)
def test_what_does_not_fit_is_refused(changes, message):
    fields = opened(False)[0]
    if "token_type" in changes:
        changes = {"token_type": [changes["token_type"], *fields["tokenizer.ggml.token_type"][1:]]}
    with pytest.raises(ValueError, match=message):
        Tokenizer.from_gguf(fields | {f"tokenizer.ggml.{key}": value for key, value in changes.items()})


def test_without_the_id_of_the_unknown_token_it_is_found_by_its_type():
    fields = {key: value for key, value in opened(False)[0].items() if not key.endswith("unknown_token_id")}
    assert Tokenizer.from_gguf(fields).ids(TEXTS) == tokenizer(False).ids(TEXTS)
    no_unknown = [3 if kind == 2 else kind for kind in fields["tokenizer.ggml.token_type"]]
    with pytest.raises(ValueError, match="unknown token has the id None"):
        Tokenizer.from_gguf(fields | {"tokenizer.ggml.token_type": no_unknown})
