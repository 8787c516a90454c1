"""The graph of a BERT tokenizer writes what the Rust tokenizer writes, bit for bit, or is not made."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optional_tensorflow import tf

from tfxformer import samples
from tfxformer.text import Tokenizer

pytest.importorskip("tensorflow_text", reason='tensorflow-text is not installed: pip install -e ".[text]"')
pytestmark = pytest.mark.extra

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
LETTERS = [*"abcdefghijklmnopqrstuvwxyzéüßσς", *"天气猫한국", ".", "!", "’", "„", "ing", "the"]
STRINGS = st.lists(
    st.one_of(
        st.text(max_size=12),
        st.sampled_from(
            [*SPECIAL, "[MASK", "the", "Ding", " ", "\n", "\u0301", "\u200b", "İ", "猫", "\U000f0001", "x" * 99]
        ),
    ),
    max_size=12,
).map("".join)


def wordpiece(folder, **options):
    vocabulary = [*SPECIAL, *LETTERS, *(f"##{letter}" for letter in LETTERS), "A", "B", "É", "##Z"]
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n", encoding="utf-8")
    return Tokenizer.from_vocabulary(folder / "vocab.txt", **options)


@pytest.fixture(scope="module")
def lowercase(tmp_path_factory):
    tokenizer = wordpiece(tmp_path_factory.mktemp("lowercase"))
    return tokenizer, tokenizer.in_graph(12)


@pytest.fixture(scope="module")
def cased(tmp_path_factory):
    tokenizer = wordpiece(tmp_path_factory.mktemp("cased"), lowercase=False, tokenize_chinese_chars=False)
    return tokenizer, tokenizer.in_graph(200)


@pytest.fixture(scope="module")
def minilm():
    tokenizer = Tokenizer.from_pretrained(samples.minilm())
    return tokenizer, tokenizer.in_graph(48)


def check(pair, texts, length):
    tokenizer, graph = pair
    wanted, found = tokenizer.encode(texts, sequence_length=length), graph(tf.constant(texts, tf.string))
    assert list(found) == ["token_ids", "padding_mask", "segment_ids"]
    for name, value in found.items():
        assert value.dtype == tf.int32 and value.shape == (len(texts), length)
        np.testing.assert_array_equal(value.numpy(), getattr(wanted, name), name)


@settings(max_examples=200, deadline=None)
@given(st.lists(STRINGS, min_size=1, max_size=6))
def test_any_strings_come_out_alike(lowercase, cased, texts):
    check(lowercase, texts, 12)  # most are cut
    check(cased, texts, 200)


@pytest.mark.slow
@pytest.mark.samples
def test_every_character_and_real_text_come_out_alike(minilm):
    characters = [chr(code) for code in range(0x110000) if not 0xD800 <= code < 0xE000]
    check(minilm, [f"ab{character}cd" for character in characters[::7]], 48)
    packed = ["".join(characters[begin : begin + 16]) for begin in range(0, len(characters), 16)]
    check(minilm, packed, 48)
    lines = [line for line in samples.austen_novels()["Emma"].split("\n") if line.strip()]
    check(minilm, lines[:6000], 48)
    check(minilm, list(samples.vader_movies().test_texts), 48)


def test_no_texts_are_an_empty_batch(lowercase):
    assert {
        name: tuple(value.shape) for name, value in lowercase[1](tf.constant([], tf.string)).items()
    } == dict.fromkeys(("token_ids", "padding_mask", "segment_ids"), (0, 12))


def test_in_a_dataset_shapes_are_static(lowercase):
    texts = ["the cat", "a [MASK] ding"]
    data = tf.data.Dataset.from_tensor_slices(texts).batch(2, drop_remainder=True).map(lowercase[1])
    assert {name: tuple(spec.shape)[1] for name, spec in data.element_spec.items()} == dict.fromkeys(
        ("token_ids", "padding_mask", "segment_ids"), 12
    )
    (batch,) = data.as_numpy_iterator()
    np.testing.assert_array_equal(batch["token_ids"], lowercase[0].encode(texts, sequence_length=12).token_ids)


def test_bytes_that_are_no_utf8_are_refused(lowercase):
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"[Ii]nvalid"):
        lowercase[1](tf.constant([b"ok", b"\xff"]))


def test_a_saved_model_takes_text(lowercase, tmp_path):
    """In another process, which has neither the tokenizer nor this package."""
    tokenizer, graph = lowercase
    tf.saved_model.save(graph, str(tmp_path / "saved"))
    texts = ["The [MASK] cat’s", "a\u0301 猫 ding"]
    script = f"""
import json, tensorflow as tf, tensorflow_text
found = tf.saved_model.load({str(tmp_path / "saved")!r})(tf.constant({texts!r}))
print(json.dumps({{name: value.numpy().tolist() for name, value in found.items()}}))
"""
    environment = {**os.environ, "PYTHONPATH": ""}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    found, wanted = json.loads(done.stdout), tokenizer.encode(texts, sequence_length=12)
    assert found == {name: getattr(wanted, name).tolist() for name in found}
    size = sum(path.stat().st_size for path in Path(tmp_path / "saved").rglob("*") if path.is_file())
    assert size < 4e6


def changed(tokenizer, change):
    """A tokenizer whose tokenizer.json is another one."""
    parts = json.loads(tokenizer.tokenizer_json())
    change(parts)
    return Tokenizer(json.dumps(parts))


def added(content, **flags):
    def change(parts):
        identity = len(parts["model"]["vocab"])
        token = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized", "special"), False)
        parts["added_tokens"].append({**token, "id": identity, "content": content, **flags})

    return change


def test_added_tokens_beyond_the_vocabulary(lowercase):
    tokenizer = changed(lowercase[0], added("<user>"))
    texts = ["the<user>cat <USER> <user", "<user>"]
    check((tokenizer, tokenizer.in_graph(20)), texts, 20)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (added("<user>", lstrip=True), "'<user>' is matched by rules that a graph does not have"),
        (added("]x["), "can overlap"),
        (added("[MASK]x"), "can overlap"),
        (lambda parts: parts.update(normalizer={"type": "Lowercase"}), "exact for WordPiece with BERT's normalizer"),
        (lambda parts: parts["model"]["vocab"].update({"x\U0001d165": 999}), "combining mark that may change places"),
        (lambda parts: parts["model"]["vocab"].update({"\U000f0005": 999}), "private use characters"),
    ],
)
def test_what_no_graph_can_follow_is_refused(lowercase, change, message):
    with pytest.raises(ValueError, match=message):
        changed(lowercase[0], change).in_graph(16)


def test_other_kinds_and_no_room_are_refused(lowercase):
    with pytest.raises(ValueError, match=r"this tokenizer is \['BPE'.* operations for Unigram and BPE differ"):
        Tokenizer.train_byte_level_bpe(["text"], 260).in_graph(8)
    with pytest.raises(ValueError, match="leaves room for 0 tokens besides the special ones"):
        lowercase[0].in_graph(2)
    with pytest.raises(ValueError, match="cuts them at their beginning"):
        Tokenizer(lowercase[0].tokenizer_json(), {"truncation_side": "left"}).in_graph(8)


def test_a_difference_is_an_error(lowercase, monkeypatch):
    """The self-test compares in earnest: a graph that errs is not made."""
    from tfxformer.text.graph import character_tables
    from tfxformer.text.graph import tokenizers as graph

    right = character_tables.character_tables

    def wrong(backend):
        tables = right(backend)
        changes = tables.changes.copy()
        changes[tables.pages[0] * 256 + ord(",")] = changes[tables.pages[0] * 256 + ord("a")]
        return tables._replace(changes=changes)

    monkeypatch.setattr(graph.character_tables, "character_tables", wrong)
    with pytest.raises(
        ValueError, match=r'would not be exact: .* test strings come out differently, the first is "Hello'
    ):
        lowercase[0].in_graph(16)


def test_the_hard_strings_are_many():
    from tfxformer.text.graph import hard_strings  # its package needs TensorFlow

    assert len(set(hard_strings.HARD_STRINGS)) == len(hard_strings.HARD_STRINGS) > 45
