"""`Tokenizer` against transformers: stored ids of hard texts, live ids, and properties of any text."""

import copy
import json
import shutil
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfxformer import samples
from tfxformer.text import Tokenizer, files

FIXTURES = Path(__file__).parent / "fixtures"
STORED = json.loads((FIXTURES / "expected.json").read_text(encoding="utf-8"))
FAMILIES = ["bert-uncased", "bert-cased", "roberta", "xlm-roberta", "albert"]
REAL = pytest.param("minilm-l6", marks=pytest.mark.samples)
TEXT = st.text(st.characters(codec="utf-8"), max_size=60)


def folder_of(family: str) -> Path:
    return samples.minilm() if family == "minilm-l6" else FIXTURES / family


def open_family(family: str) -> Tokenizer:
    return Tokenizer.from_pretrained(folder_of(family))


BERT = open_family("bert-uncased")
ROBERTA = open_family("roberta")


def rows(encoding) -> list[list[int]]:
    """Ids without padding, read off the mask."""
    kept = encoding.padding_mask.astype(bool)
    return [ids[mask].tolist() for ids, mask in zip(encoding.token_ids, kept, strict=True)]


@pytest.mark.parametrize("family", [*FAMILIES, REAL])
def test_hard_texts_and_pairs_have_the_stored_ids(family):
    tokenizer, stored = open_family(family), STORED["families"][family]
    for text, expected in zip(STORED["texts"], stored["texts"], strict=True):
        assert rows(tokenizer.encode([text], sequence_length=600)) == [expected], text
    first, second = zip(*STORED["pairs"], strict=True)
    encoding = tokenizer.encode(first, second, sequence_length=400)
    assert rows(encoding) == stored["pairs"]
    for row, segments in zip(encoding.segment_ids, stored["pair_segments"], strict=True):
        assert row.tolist() == segments + [0] * (400 - len(segments))
    assert tokenizer.decode(stored["texts"]) == stored["decoded"]


def test_json_is_read_whatever_its_settings_are_called():
    content = open_family(FAMILIES[0]).tokenizer_json()
    for config in ({}, {"a": 'of ", "config": {}', "config": {"config": 5}}, {"config": [], "z": {"config": {}}}):
        read, settings = files.read_parts(files.write_parts(content, config))
        assert (json.loads(read), settings) == (json.loads(content), config)
    assert files.read_parts(content) == (content, None)


@pytest.mark.parametrize("family", [*FAMILIES, REAL])
def test_saved_folder_and_json_open_equal(family, tmp_path):
    tokenizer = open_family(family)
    tokenizer.save_pretrained(tmp_path / "saved")
    again = Tokenizer.from_pretrained(tmp_path / "saved")
    assert Tokenizer.from_json(tokenizer.to_json()) == tokenizer == copy.deepcopy(tokenizer)
    bare = Tokenizer.from_json(tokenizer.tokenizer_json())
    ids = [t.encode(STORED["texts"], sequence_length=64).token_ids for t in (tokenizer, again, bare)]
    np.testing.assert_array_equal(ids[0], ids[1])
    np.testing.assert_array_equal(ids[0], ids[2])
    assert bare.special_ids == tokenizer.special_ids
    names = ("padding_id", "unknown_id", "mask_id", "cls_id", "sep_id", "model_max_length", "kind")
    assert [getattr(again, name) for name in names] == [getattr(tokenizer, name) for name in names]
    original = json.loads((folder_of(family) / "tokenizer.json").read_text(encoding="utf-8"))
    saved = json.loads((tmp_path / "saved" / "tokenizer.json").read_text(encoding="utf-8"))
    assert saved == original  # with its baked-in lengths
    again.save_pretrained(tmp_path / "twice")
    for path in (tmp_path / "saved").iterdir():
        assert path.read_bytes() == (tmp_path / "twice" / path.name).read_bytes()


@pytest.mark.reference
@pytest.mark.parametrize("family", [*FAMILIES, REAL])
def test_live_transformers_agrees_before_and_after_saving(family, tmp_path):
    transformers = pytest.importorskip("transformers")
    tokenizer = open_family(family)
    tokenizer.save_pretrained(tmp_path)
    for folder in (folder_of(family), tmp_path):
        reference = transformers.AutoTokenizer.from_pretrained(folder)
        options = {"max_length": 20, "truncation": True, "padding": "max_length", "return_tensors": "np"}
        theirs = reference(STORED["texts"], return_token_type_ids=True, **options)
        ours = tokenizer.encode(STORED["texts"], sequence_length=20)
        np.testing.assert_array_equal(ours.token_ids, theirs["input_ids"])
        np.testing.assert_array_equal(ours.padding_mask, theirs["attention_mask"])
        np.testing.assert_array_equal(ours.segment_ids, theirs["token_type_ids"])
        roles = ("pad", "unk", "mask", "cls", "sep")
        assert [getattr(reference, f"{role}_token_id") for role in roles] == [
            *(tokenizer.padding_id, tokenizer.unknown_id, tokenizer.mask_id),
            *(tokenizer.cls_id, tokenizer.sep_id),
        ]


@pytest.mark.reference
@pytest.mark.parametrize("family", FAMILIES)
def test_live_transformers_agrees_on_windows_offsets_and_words(family):
    transformers = pytest.importorskip("transformers")
    tokenizer = open_family(family)
    prefix = {"add_prefix_space": True} if family == "roberta" else {}
    reference = transformers.AutoTokenizer.from_pretrained(folder_of(family), **prefix)
    words = [text.split() for text in STORED["texts"] if text.strip()]
    theirs = reference(words, is_split_into_words=True, truncation=True, max_length=24, padding="max_length")
    ours = tokenizer.encode(words, is_split_into_words=True, sequence_length=24, return_offsets=True)
    np.testing.assert_array_equal(ours.token_ids, theirs["input_ids"])
    word_ids = [[-1 if i is None else i for i in theirs.word_ids(row)] for row in range(len(words))]
    np.testing.assert_array_equal(ours.word_ids, word_ids)

    reference = transformers.AutoTokenizer.from_pretrained(folder_of(family))
    questions = ["who?", "what is it?"] * 20
    contexts = [text for text in STORED["texts"] if len(text) > 60][:1] * 20 + STORED["texts"][-20:]
    options = {"max_length": 32, "truncation": "only_second", "stride": 5, "padding": "max_length"}
    windows = reference(questions, contexts, return_overflowing_tokens=True, return_offsets_mapping=True, **options)
    ours = tokenizer.encode(
        questions,
        contexts,
        sequence_length=32,
        truncation="only_second",
        return_overflow=True,
        overlap=5,
        return_offsets=True,
    )
    np.testing.assert_array_equal(ours.token_ids, windows["input_ids"])
    np.testing.assert_array_equal(ours.offsets, windows["offset_mapping"])
    np.testing.assert_array_equal(ours.overflow_to_sample, windows["overflow_to_sample_mapping"])
    sides = [[-1 if i is None else i for i in windows.sequence_ids(r)] for r in range(len(ours.token_ids))]
    np.testing.assert_array_equal(ours.sequence_ids, sides)


@pytest.mark.parametrize("family", ["bert-uncased", "bert-cased"])
def test_vocabulary_alone_gives_the_same_tokenizer(family, tmp_path):
    full = open_family(family)
    lowercase = family == "bert-uncased"
    shutil.copy(folder_of(family) / "vocab.txt", tmp_path)
    settings_file = {"do_lower_case": lowercase, "tokenizer_class": "BertTokenizer"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings_file), encoding="utf-8")
    for tokenizer in (
        Tokenizer.from_vocabulary(tmp_path / "vocab.txt", lowercase=lowercase),
        Tokenizer.from_pretrained(tmp_path),
    ):
        assert tokenizer.vocabulary() == full.vocabulary()
        assert tokenizer.lowercase == lowercase
        assert tokenizer.mask_id == full.mask_id
        ours, theirs = (t.encode(STORED["texts"], sequence_length=600) for t in (tokenizer, full))
        np.testing.assert_array_equal(ours.token_ids, theirs.token_ids)
        tokenizer.save_pretrained(tmp_path / "saved")
        assert (tmp_path / "saved" / "vocab.txt").read_bytes() == (tmp_path / "vocab.txt").read_bytes()


@pytest.mark.reference
@pytest.mark.parametrize(
    ("source", "settings_file"),
    [
        *(
            (source, settings_file)
            for source in ("tokenizer.json", "vocab.txt")
            for settings_file in (
                {"do_lower_case": False},
                {"strip_accents": False},
                {"do_lower_case": False, "strip_accents": True},
                {"tokenize_chinese_chars": False},
                {"tokenizer_class": "DistilBertTokenizer", "model_max_length": int(1e30)},
            )
        ),
        ("tokenizer.json", {"tokenizer_class": "PreTrainedTokenizerFast", "do_lower_case": False}),
    ],
)
def test_settings_win_over_the_file_as_in_transformers(source, settings_file, tmp_path):
    transformers = pytest.importorskip("transformers")
    shutil.copy(FIXTURES / "bert-uncased" / source, tmp_path)
    settings_file = {"tokenizer_class": "BertTokenizer"} | settings_file
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings_file), encoding="utf-8")
    reference = transformers.AutoTokenizer.from_pretrained(tmp_path)
    tokenizer = Tokenizer.from_pretrained(tmp_path)
    assert rows(tokenizer.encode(STORED["texts"])) == reference(STORED["texts"], verbose=False)["input_ids"]
    assert tokenizer.model_max_length is None
    tokenizer.save_pretrained(tmp_path / "saved")
    reference = transformers.AutoTokenizer.from_pretrained(tmp_path / "saved")
    assert rows(tokenizer.encode(STORED["texts"])) == reference(STORED["texts"], verbose=False)["input_ids"]


@given(st.lists(TEXT, min_size=1, max_size=5), st.integers(3, 40))
@settings(deadline=None, max_examples=60)
def test_truncation_keeps_the_start_and_the_closing_token(texts, length):
    full = [row[1:-1] for row in rows(BERT.encode(texts, sequence_length=600))]
    encoding = BERT.encode(texts, sequence_length=length)
    assert encoding.token_ids.shape == encoding.padding_mask.shape == (len(texts), length)
    assert {array.dtype for array in (encoding.token_ids, encoding.padding_mask, encoding.segment_ids)} == {
        np.dtype(np.int32)
    }
    assert rows(encoding) == [[BERT.cls_id, *ids[: length - 2], BERT.sep_id] for ids in full]
    assert (encoding.token_ids[encoding.padding_mask == 0] == BERT.padding_id).all()
    assert encoding.truncated == sum(len(ids) > length - 2 for ids in full)
    np.testing.assert_array_equal(BERT.token_counts(texts), [len(ids) + 2 for ids in full])


@given(TEXT, st.integers(8, 20), st.integers(0, 5))
@settings(deadline=None, max_examples=60)
def test_windows_walk_over_the_whole_text(text, length, overlap):
    full = rows(BERT.encode([text], sequence_length=600))[0][1:-1]
    encoding = BERT.encode([text, "b"], sequence_length=length, return_overflow=True, overlap=overlap)
    room, step = length - 2, length - 2 - overlap
    starts = [0, *range(step, max(len(full) - overlap, 0), step)] if len(full) > room else [0]
    windows = [[BERT.cls_id, *full[start : start + room], BERT.sep_id] for start in starts]
    assert rows(encoding)[:-1] == windows
    assert encoding.overflow_to_sample.tolist() == [0] * len(windows) + [1]
    assert encoding.truncated == 0


@given(st.lists(st.text("abc XYZ,éüñ中文\u0301", max_size=30), min_size=1, max_size=4))
@settings(deadline=None, max_examples=60)
def test_offsets_point_at_the_pieces(texts):
    vocabulary = BERT.vocabulary()
    encoding = BERT.encode(texts, sequence_length=128, return_offsets=True)
    assert (encoding.offsets[encoding.word_ids < 0] == 0).all()
    np.testing.assert_array_equal(encoding.sequence_ids, np.where(encoding.word_ids < 0, -1, 0))
    for text, ids, offsets in zip(texts, encoding.token_ids, encoding.offsets, strict=True):
        for index, (start, end) in zip(ids, offsets.tolist(), strict=True):
            if end and vocabulary[index] != "[UNK]":
                slice_ = unicodedata.normalize("NFD", text[start:end].lower())
                bare = "".join(c for c in slice_ if unicodedata.category(c) != "Mn")
                assert bare == vocabulary[index].removeprefix("##")


@given(st.lists(TEXT, min_size=1, max_size=5))
@settings(deadline=None, max_examples=60)
def test_byte_level_ids_decode_to_the_text(texts):
    texts = [text.replace("<", "") for text in texts]  # no special token inside
    assert ROBERTA.decode(rows(ROBERTA.encode(texts, sequence_length=400))) == texts


def test_words_of_byte_level_tokenizers_are_not_glued():
    glued, spaced = ([["river", "evening"]], ["river evening"])
    words = ROBERTA.encode(glued, is_split_into_words=True, return_offsets=True)
    assert ROBERTA.decode(words.token_ids) == [" river evening"]
    assert sorted(set(words.word_ids[0])) == [-1, 0, 1]
    assert ROBERTA.decode(ROBERTA.encode(spaced).token_ids) == spaced


def test_inputs_of_every_kind_and_none():
    pandas_like = type("Series", (), {"tolist": lambda self: ["one", "two"]})()
    expected = BERT.encode(["one", "two"]).token_ids
    for texts in (("one", "two"), np.array(["one", "two"]), np.array(["one", "two"], object), pandas_like):
        np.testing.assert_array_equal(BERT.encode(texts).token_ids, expected)
    np.testing.assert_array_equal(BERT.encode([np.str_("one"), "two"]).token_ids, expected)
    assert BERT.encode([], sequence_length=16).token_ids.shape == (0, 16)
    assert BERT.encode([]).token_ids.shape == (0, 0)
    assert BERT.encode([[]], is_split_into_words=True).token_ids.tolist() == [[BERT.cls_id, BERT.sep_id]]


def test_long_lists_go_in_chunks_and_tell_progress():
    told = []
    encoding = BERT.encode(["a"] * 5000, progress=lambda done, total: told.append((done, total)))
    assert encoding.token_ids.shape[0] == 5000
    assert told[-1] == (5000, 5000)
    assert told == sorted(told)
    assert len(told) > 1


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        (["text"], {}, TypeError, r"pass \[texts\]"),
        ([[b"bytes"]], {}, TypeError, r"texts\[0\] is bytes.*decode"),
        ([["a", None]], {}, TypeError, r"texts\[1\] is NoneType"),
        ([[["a", "b"]]], {}, TypeError, "is_split_into_words"),
        ([["a"], ["b", float("nan")]], {}, TypeError, r"pairs\[1\] is float"),
        ([["a"], ["b", "c"]], {}, ValueError, "1 texts but 2 pairs"),
        ([["a", "\ud800"]], {}, ValueError, r"texts\[1\] holds a lone surrogate"),
        ([["a"]], {"sequence_length": 2}, ValueError, "leaves room for 0 tokens"),
        ([["a"], ["b"]], {"sequence_length": 3}, ValueError, "leaves room for 0 tokens"),
        (
            [["a", "b c d e"]],
            {"sequence_length": 5, "truncation": False},
            ValueError,
            r"texts\[1\] has 6 tok",
        ),
        ([["a " * 99]], {"truncation": False}, ValueError, "has 101 tokens.*more than 64"),
        ([["a"]], {"truncation": "longest"}, ValueError, "truncation must be"),
        ([["a"]], {"truncation": "only_second"}, ValueError, "no pairs"),
        ([["a"], ["b"]], {"return_overflow": True}, ValueError, "only_second"),
        ([["a"]], {"overlap": 2}, ValueError, "return_overflow"),
        (
            [["a", "a b c d e"], ["b", "a b c d"]],
            {"sequence_length": 10, "truncation": "only_second", "return_overflow": True, "overlap": 2},
            ValueError,
            r"texts\[1\] has 5 tokens.*leaves 2 for the other",
        ),
    ],
)
def test_bad_input_is_refused_with_the_way_out(arguments, options, error, message):
    with pytest.raises(error, match=message):
        BERT.encode(*arguments, **options)
    assert BERT.encode(["a b c"]).token_ids.shape == (1, 5)  # and leaves no truncation behind


def test_a_first_text_that_fills_the_room_is_fine_while_the_pair_fits():
    encoding = BERT.encode(["a b c d e"], ["a"], sequence_length=9, truncation="only_second")
    assert encoding.padding_mask.sum() == 9
    assert encoding.truncated == 0


def test_missing_and_broken_files(tmp_path):
    with pytest.raises(FileNotFoundError, match="No tokenizer folder"):
        Tokenizer.from_pretrained(tmp_path / "nothing")
    (tmp_path / "spiece.model").write_bytes(b"\0")
    with pytest.raises(FileNotFoundError, match=r"spiece\.model.*tokenizer class None.*AutoTokenizer"):
        Tokenizer.from_pretrained(tmp_path)
    with pytest.raises(FileNotFoundError, match="No tokenizer file"):
        Tokenizer.from_file(tmp_path / "tokenizer.json")
    (tmp_path / "tokenizer.json").write_text('{"version": "1.0"', encoding="utf-8")
    with pytest.raises(ValueError, match="not a readable tokenizer"):
        Tokenizer.from_pretrained(tmp_path)
    (tmp_path / "vocab.txt").write_text("hello\nworld\n", encoding="utf-8")
    with pytest.raises(ValueError, match="lacks"):
        Tokenizer.from_vocabulary(tmp_path / "vocab.txt")


def test_without_padding_token_only_equal_lengths_make_a_batch():
    parts = json.loads(BERT.to_json())
    parts["config"]["pad_token"] = None
    tokenizer = Tokenizer.from_json(json.dumps(parts))
    assert tokenizer.padding_id is None
    assert tokenizer.encode(["a", "b"]).token_ids.shape == (2, 3)
    with pytest.raises(ValueError, match="no padding token"):
        tokenizer.encode(["a", "b c"])


def test_added_tokens_beside_a_vocabulary(tmp_path):
    size = len(BERT.vocabulary())
    shutil.copy(FIXTURES / "bert-uncased" / "vocab.txt", tmp_path)
    added = {str(size): {"content": "<ent>", "special": True}, str(size + 1): {"content": "foobar"}}
    config = tmp_path / "tokenizer_config.json"
    config.write_text(json.dumps({"added_tokens_decoder": added}), encoding="utf-8")
    ids = rows(Tokenizer.from_pretrained(tmp_path).encode(["a <ent> foobar"]))[0]
    assert ids[2:4] == [size, size + 1]
    config.write_text(json.dumps({"added_tokens_decoder": {"7": {"content": "<ent>"}}}), encoding="utf-8")
    with pytest.raises(ValueError, match="declared with id 7"):
        Tokenizer.from_pretrained(tmp_path)


def test_a_vocabulary_with_a_repeated_line_keeps_the_ids(tmp_path):
    lines = (FIXTURES / "bert-uncased" / "vocab.txt").read_text(encoding="utf-8").split("\n")[:-1]
    (tmp_path / "vocab.txt").write_text("\n".join([*lines, lines[20], "zebra"]) + "\n", encoding="utf-8")
    tokenizer = Tokenizer.from_pretrained(tmp_path)
    assert tokenizer.vocabulary()[20] == "[unused-20]"
    assert tokenizer.vocabulary()[-2:] == [lines[20], "zebra"]
    tokenizer.save_pretrained(tmp_path / "saved")
    again = Tokenizer.from_vocabulary(tmp_path / "saved" / "vocab.txt")
    assert rows(again.encode(["zebra"])) == rows(tokenizer.encode(["zebra"]))
