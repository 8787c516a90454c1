"""SentencePiece model files as `Tokenizer`s: the ids of the package `sentencepiece` for hard texts and for any."""

import functools
import tempfile
from pathlib import Path

import pytest
import spm_cases as cases
from hypothesis import given, settings
from hypothesis import strategies as st

from tfxformer.text import Tokenizer
from tfxformer.text.sentencepieces.charsmap import Charsmap
from tfxformer.text.sentencepieces.model_file import BYTE, CONTROL, NORMAL, UNKNOWN, USER_DEFINED, read_model

pytest.importorskip("sentencepiece")
ANY = st.text(st.characters(codec="utf-8"), max_size=40)
# Marks, joiners and parts of syllables, which the rules of a normalizer are about.
MARKED = st.text(
    st.sampled_from("aAeB \u0301\u0302\u0323\u0308\ufb01Åﾊﾞ가\u1100\u1161\u11a8\u200d\u00a8\r\n▁<>s/"), max_size=12
)
RULES = ("nmt_nfkc", "identity", "nmt_nfkc_cf")


@functools.cache
def opened(kind, rule, byte_fallback=False, **options):
    """A T5 tokenizer on a newly trained model, and the model in the package `sentencepiece`."""
    folder = Path(tempfile.mkdtemp())
    size = 900 if byte_fallback else 420
    reference = cases.train(
        folder / "spiece.model", size, model_type=kind, normalization_rule_name=rule, byte_fallback=byte_fallback,
        **cases.T5, **options,
    )  # fmt: skip
    return Tokenizer.from_pretrained(cases.settings(folder, "T5Tokenizer", extra_ids=0)), reference


def check(tokenizer, reference, texts):
    """Equal ids and texts; two ways to cut a text whose scores differ by a rounding only are one."""
    for text, ids in zip(texts, tokenizer.ids(texts, special_tokens=False), strict=True):
        wanted = reference.encode(text)
        if ids != wanted and tokenizer.kind == "Unigram" and reference.decode(ids) == reference.decode(wanted):
            scores = [sum(map(reference.get_score, row)) for row in (ids, wanted)]
            assert abs(scores[0] - scores[1]) < 1e-4, text  # sums of float32 there, of float64 here
            continue
        assert ids == wanted, text
        if reference.unk_id() not in wanted and not text.replace("▁", " ").startswith(" "):
            assert tokenizer.decode([ids]) == [reference.decode(wanted)], text


@pytest.mark.parametrize("byte_fallback", [False, True])
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("kind", ["unigram", "bpe"])
def test_hard_texts_have_sentencepieces_ids(kind, rule, byte_fallback):
    check(*opened(kind, rule, byte_fallback), [*cases.NASTY, *cases.CORPUS])


@pytest.mark.parametrize(
    "options",
    [
        {"add_dummy_prefix": False},
        {"remove_extra_whitespaces": False, "normalization_rule_name": "identity"},
        {"split_by_whitespace": False},
        {"character_coverage": 0.98},
    ],
)
@pytest.mark.parametrize("kind", ["unigram", "bpe"])
def test_settings_of_the_model_count(kind, options):
    options = dict(options)
    rule = options.pop("normalization_rule_name", "nmt_nfkc")
    check(*opened(kind, rule, **options), [*cases.NASTY, *cases.CORPUS])


@settings(max_examples=150, deadline=None)
@given(st.one_of(ANY, MARKED))
def test_any_text_has_sentencepieces_ids(text):
    for kind in ("unigram", "bpe"):
        for rule in RULES:
            tokenizer, reference = opened(kind, rule)
            if not any(token in text for token in ("</s>", "<pad>", "<unk>")):
                check(tokenizer, reference, [text])


def test_user_defined_pieces_stay_whole_and_unnormalized():
    for kind in ("unigram", "bpe"):
        tokenizer, reference = opened(kind, "nmt_nfkc", user_defined_symbols=("<ud>", "①x"))
        check(tokenizer, reference, ["a<ud>b", "<ud>", "the <ud> cat<ud><ud>", "①x ①", "cat①xcat", *cases.NASTY])


def test_a_file_is_read_as_protobuf_reads_it(tmp_path):
    reference = cases.train(tmp_path / "m", 900, byte_fallback=True, user_defined_symbols=["<ud>"], pad_id=3)
    model = read_model(tmp_path / "m")
    assert [piece.text for piece in model.pieces] == reference.id_to_piece([*range(len(reference))])
    assert [piece.score for piece in model.pieces] == reference.get_score([*range(len(reference))])
    kinds = {UNKNOWN: reference.is_unknown, CONTROL: reference.is_control, BYTE: reference.is_byte}
    for index, piece in enumerate(model.pieces):
        assert [kind for kind, is_it in kinds.items() if is_it(index)] == [
            kind for kind in [piece.kind] if kind not in (NORMAL, USER_DEFINED)
        ]
    assert {piece.text for piece in model.pieces if piece.kind == USER_DEFINED} == {"<ud>"}
    assert (model.kind, model.unknown_id, model.byte_fallback) == ("Unigram", reference.unk_id(), True)
    assert (model.add_dummy_prefix, model.remove_extra_whitespaces) == (True, True)


@settings(max_examples=300, deadline=None)
@given(st.one_of(ANY, MARKED))
def test_rules_write_what_sentencepieces_normalizer_writes(text):
    for rule in ("nmt_nfkc", "nmt_nfkc_cf"):
        written, reference = normalizer(rule)
        assert written(text).replace(" ", "▁") == reference.normalize(text)


@functools.cache
def normalizer(rule):
    path = Path(tempfile.mkdtemp()) / "m"
    options = {"add_dummy_prefix": False, "remove_extra_whitespaces": False}
    reference = cases.train(path, normalization_rule_name=rule, **options)
    return Charsmap(read_model(path).charsmap), reference


def test_a_file_that_is_none_says_so(tmp_path):
    path = tmp_path / "spiece.model"
    cases.train(path, **cases.T5)
    cases.settings(tmp_path, "T5Tokenizer")
    whole = path.read_bytes()
    for content in (b"\0", b"", b"hello, this is text", whole[: len(whole) // 2], whole[:1000], b"<html>" * 90):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"spiece\.model"):
            Tokenizer.from_pretrained(tmp_path)
    for kind in ("word", "char"):
        cases.train(path, 200, model_type=kind, **cases.T5)
        with pytest.raises(ValueError, match=rf"spiece\.model.* cuts texts into {kind}"):
            Tokenizer.from_pretrained(tmp_path)
    cases.train(path, treat_whitespace_as_suffix=True, **cases.T5)
    with pytest.raises(ValueError, match="spaces behind words"):
        Tokenizer.from_pretrained(tmp_path)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_damaged_bytes_never_do_more_than_say_so(data):
    path = damaged_source()
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    broken = path.with_name("broken")
    broken.write_bytes(content[: data.draw(st.integers(1, len(content)))])
    try:
        read_model(broken)
    except ValueError as error:
        assert "broken" in str(error)


@functools.cache
def damaged_source():
    path = Path(tempfile.mkdtemp()) / "m"
    cases.train(path, 200, normalization_rule_name="identity")
    return path


def test_lone_surrogates_are_refused():
    tokenizer, _ = opened("unigram", "nmt_nfkc")
    for call in (tokenizer.ids, tokenizer.encode, tokenizer.token_counts):
        with pytest.raises(ValueError, match=r"texts\[1\] holds a lone surrogate"):
            call(["a", "b\ud800é"])


def test_it_travels_as_any_tokenizer_does(tmp_path):
    for kind in ("unigram", "bpe"):
        tokenizer, _ = opened(kind, "nmt_nfkc")
        tokenizer.save_pretrained(tmp_path / kind)
        wanted = tokenizer.ids(cases.NASTY)
        assert Tokenizer.from_pretrained(tmp_path / kind).ids(cases.NASTY) == wanted
        assert Tokenizer.from_json(tokenizer.to_json()).ids(cases.NASTY) == wanted
        batch = tokenizer.encode(cases.NASTY)
        rows = [row[mask > 0].tolist() for row, mask in zip(batch.token_ids, batch.padding_mask, strict=True)]
        assert rows == wanted
        assert tokenizer.token_counts(cases.NASTY).tolist() == [*map(len, wanted)]


def covered(tokenizer, texts, **options):
    """The part of its text that each token was made of."""
    encoding = tokenizer.encode(texts, return_offsets=True, **options)
    rows = zip(texts, encoding.offsets, encoding.sequence_ids, encoding.word_ids, strict=True)
    return [
        [
            (text if isinstance(text, str) else text[word])[slice(*span)]
            for span, side, word in zip(*row, strict=True)
            if side >= 0
        ]
        for text, *row in rows
    ]


def test_offsets_are_those_of_the_text_that_was_given():
    tokenizer, _ = opened("bpe", "nmt_nfkc")
    texts = ["The cat sat", "ﬁ cat", "e\u0301te\u0301 Vie\u0323\u0302t", "ｆｕ　ﷺ①", "\u1112\u1161\u11ab국", "① </s>ﬁ"]
    for text, parts in zip(texts, covered(tokenizer, texts), strict=True):
        joined = "".join(parts)
        assert set(text) - set(" 　") <= set(joined), text  # nothing of the text is missing
        assert all(part in text for part in parts)
    assert covered(tokenizer, ["ﬁ"])[0][-1] == "ﬁ"
    assert covered(tokenizer, ["e\u0301 a"])[0] == ["e\u0301", " a"]
    assert covered(tokenizer, [["e\u0301", "xﬁ"]], is_split_into_words=True)[0][-1] == "ﬁ"
    plain = tokenizer.encode(["The cat sat", "on the mat"], ["ﬁne", "e\u0301"], return_offsets=True)
    assert plain.offsets[1][plain.sequence_ids[1] == 1][-1].tolist() == [0, 2]
