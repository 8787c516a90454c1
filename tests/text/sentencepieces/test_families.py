"""Tokenizers of families that come as SentencePiece models, against `sentencepiece` and transformers."""

import functools
import importlib
import json
import re
import shutil
import tempfile
import unicodedata
from pathlib import Path

import pytest
import spm_cases as cases
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import normalizers

from tfxformer.text import Tokenizer
from tfxformer.text.sentencepieces import language_codes as codes
from tfxformer.text.sentencepieces.charsmap import Charsmap
from tfxformer.text.sentencepieces.model_file import read_model

sentencepiece = pytest.importorskip("sentencepiece")
TEXTS = [*cases.NASTY, *cases.CORPUS]
TOKENS = ("</s>", "<pad>", "<unk>")
FAIRSEQ = {"MBartTokenizer": codes.MBART, "MBart50Tokenizer": codes.MBART50, "NllbTokenizer": codes.NLLB}
M2M_TOKENS = {"additional_special_tokens": [f"__{code}__" for code in codes.M2M100["m2m100"]]}  # as its folders say
DEBERTA = "DebertaV2Tokenizer"
SEVERAL = (
    *("T5Tokenizer", "PegasusTokenizer", *FAIRSEQ, "PLBartTokenizer", "M2M100Tokenizer", "MarianTokenizer"),
    DEBERTA,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The folder of a family, made once."""
    made = {}

    def find(name):
        if name not in made:
            more = M2M_TOKENS if name == "M2M100Tokenizer" else {}
            made[name] = cases.folder(tmp_path_factory.mktemp("families") / name, name, **more)
        return made[name]

    return find


def model(folder, name="*.model"):
    (path,) = folder.glob(name)
    return sentencepiece.SentencePieceProcessor(model_file=str(path))


def plain(tokenizer, texts=TEXTS):
    return tokenizer.ids(texts, special_tokens=False)


def test_pegasus_begins_behind_the_tokens_of_its_training(folder):
    tokenizer, reference = Tokenizer.from_pretrained(folder("PegasusTokenizer")), model(folder("PegasusTokenizer"))
    assert plain(tokenizer) == [[index + 103 for index in reference.encode(text)] for text in TEXTS]
    assert tokenizer.vocabulary()[:5] == ["<pad>", "</s>", "<mask_1>", "<mask_2>", "<unk_2>"]
    assert tokenizer.vocabulary()[104:106] == ["<unk_102>", "<unk>"]
    assert tokenizer.ids(["<mask_1> a"])[0][0] == 2
    assert tokenizer.ids([""]) == [[1]]


def test_debertas_pieces_and_what_stands_around_them(folder):
    tokenizer, reference = Tokenizer.from_pretrained(folder(DEBERTA)), model(folder(DEBERTA))
    texts = [*TEXTS, *cases.MARKED, "［CLS］ a", "[ [CLS ] x] a[1]", "＜/s＞ [0]", "\ufdd0 a"]
    assert plain(tokenizer, texts) == [reference.encode(text) for text in texts]
    assert tokenizer.vocabulary() == [*map(reference.id_to_piece, range(len(reference))), "[MASK]"]
    assert (tokenizer.padding_id, tokenizer.cls_id, tokenizer.sep_id, tokenizer.unknown_id) == (0, 1, 2, 3)
    assert tokenizer.mask_id == len(reference)
    first, second = reference.encode("a cat"), reference.encode("the dog")
    encoding = tokenizer.encode(["a cat"], ["the dog"])
    assert encoding.token_ids[0].tolist() == [1, *first, 2, *second, 2]
    assert encoding.segment_ids[0].tolist() == [0] * (len(first) + 2) + [1] * (len(second) + 1)
    assert tokenizer.ids(["a cat[MASK]"]) == [[1, *first, len(reference), 2]]


@pytest.mark.parametrize("key", ["do_lower_case", "split_by_punct"])
def test_what_is_not_read_of_debertas_settings(key, tmp_path):
    path = cases.folder(tmp_path, DEBERTA, **{key: True})
    with pytest.raises(ValueError, match=f"{key}=true, which is not read"):
        Tokenizer.from_pretrained(path)


@pytest.mark.parametrize("name", FAIRSEQ)
def test_fairseqs_rows_and_languages(folder, name):
    tokenizer, reference = Tokenizer.from_pretrained(folder(name)), model(folder(name))
    assert plain(tokenizer) == [[index + 1 if index > 2 else 3 for index in reference.encode(text)] for text in TEXTS]
    assert tokenizer.languages == tuple(FAIRSEQ[name])
    first = len(reference) + 1  # fairseq's four tokens are one more than SentencePiece's three
    vocabulary = tokenizer.vocabulary()
    assert vocabulary[:4] == ["<s>", "<pad>", "</s>", "<unk>"]
    assert vocabulary[first:] == [*FAIRSEQ[name], "<mask>"]


def test_nllbs_and_mbarts_known_ids():
    """Of released models, whose SentencePiece models have 256,000 and 250,000 pieces."""
    assert 256_001 + codes.NLLB.index("eng_Latn") == 256_047
    assert 256_001 + codes.NLLB.index("fra_Latn") == 256_057
    assert 250_001 + codes.MBART.index("en_XX") == 250_004
    assert 250_001 + codes.MBART.index("ro_RO") == 250_020
    assert 128_004 + codes.M2M100["m2m100"].index("en") == 128_022


def around(tokenizer, language):
    """What stands around the text "a" of a language, by the tokens' names."""
    ids = tokenizer.encode(["a"], language=language)
    names = tokenizer.vocabulary()
    return [names[index] for index in ids.token_ids[0]]


@pytest.mark.parametrize(
    ("name", "code", "wanted", "unsaid"),
    [
        ("MBartTokenizer", "fr_XX", ["▁a", "</s>", "fr_XX"], ["▁a", "</s>", "en_XX"]),
        ("MBart50Tokenizer", "fr_XX", ["fr_XX", "▁a", "</s>"], ["en_XX", "▁a", "</s>"]),
        ("NllbTokenizer", "fra_Latn", ["fra_Latn", "▁a", "</s>"], ["eng_Latn", "▁a", "</s>"]),
        ("M2M100Tokenizer", "fr", ["__fr__", "▁a", "</s>"], ["__en__", "▁a", "</s>"]),
        ("PLBartTokenizer", "java", ["▁a", "</s>", "__java__"], ["▁a", "</s>"]),
        ("MarianTokenizer", "fra", ["▁a", "</s>"], ["▁a", "</s>"]),
    ],
)
def test_a_language_stands_where_its_family_wants_it(folder, name, code, wanted, unsaid):
    tokenizer = Tokenizer.from_pretrained(folder(name))
    assert around(tokenizer, code) == wanted
    assert around(tokenizer, None) == unsaid  # the other call left nothing behind
    assert tokenizer.token_counts(["a"], language=code).tolist() == [len(wanted)]
    with pytest.raises(ValueError, match=r"'xx_YY' is no language of this tokenizer, which knows \w+"):
        tokenizer.encode(["a"], language="xx_YY")


def test_a_stated_source_language_counts(tmp_path):
    tokenizer = Tokenizer.from_pretrained(cases.folder(tmp_path, "NllbTokenizer", src_lang="ron_Latn"))
    assert around(tokenizer, None)[0] == "ron_Latn"
    old = cases.settings(tmp_path, "NllbTokenizer", legacy_behaviour=True)
    assert around(Tokenizer.from_pretrained(old), "fra_Latn") == ["▁a", "</s>", "fra_Latn"]


def test_a_tokenizer_of_one_language_takes_no_code(folder):
    tokenizer = Tokenizer.from_pretrained(folder("T5Tokenizer"))
    assert tokenizer.languages == ()
    with pytest.raises(ValueError, match="has no language codes, so 'fr' says nothing to it"):
        tokenizer.encode(["a"], language="fr")


def by_vocabulary(folder, name, text):
    """Ids of a text's pieces by vocab.json, as Marian and M2M-100 look them up."""
    ids = json.loads((folder / "vocab.json").read_text())
    return [ids.get(piece, ids["<unk>"]) for piece in model(folder, name).encode(text, out_type=str)]


def test_marian_cuts_sources_and_targets_by_models_of_their_own(folder):
    path = folder("MarianTokenizer")
    tokenizer = Tokenizer.from_pretrained(path)
    assert plain(tokenizer) == [by_vocabulary(path, "source.spm", text) for text in TEXTS]
    assert plain(tokenizer.of_targets) == [by_vocabulary(path, "target.spm", text) for text in TEXTS]
    assert (
        tokenizer.vocabulary() == tokenizer.of_targets.vocabulary() == [*json.loads((path / "vocab.json").read_text())]
    )
    targets = tokenizer.of_targets.ids(cases.CORPUS)
    assert tokenizer.decode(targets) == tokenizer.of_targets.decode(targets)  # one decoder for both
    assert tokenizer.vocabulary_size == len(tokenizer.vocabulary())  # pieces beyond it are unknown
    assert tokenizer.languages == ("fra", "deu")
    ids = json.loads((path / "vocab.json").read_text())
    assert tokenizer.ids([">>fra<< the cat"]) == [[ids[">>fra<<"], *plain(tokenizer, ["the cat"])[0], ids["</s>"]]]


@settings(max_examples=200, deadline=None)
@given(st.text(st.sampled_from("abteЖшкоШ猫你Ş ▁é.x"), max_size=12))
def test_marians_pieces_of_any_text(text):
    path, tokenizer = marian()
    assert plain(tokenizer, [text]) == [by_vocabulary(path, "source.spm", text)]
    assert plain(tokenizer.of_targets, [text]) == [by_vocabulary(path, "target.spm", text)]


@functools.cache
def marian():
    path = cases.folder(Path(tempfile.mkdtemp()), "MarianTokenizer")
    return path, Tokenizer.from_pretrained(path)


def test_a_tokenizer_json_of_another_tool_does_not_count(folder, tmp_path):
    """Of a class that transformers makes of the model files alone."""
    path = shutil.copytree(folder("MarianTokenizer"), tmp_path / "marian")
    wanted = Tokenizer.from_pretrained(path).ids(TEXTS)
    (path / "tokenizer.json").write_text(Tokenizer.from_pretrained(folder("T5Tokenizer")).tokenizer_json())
    assert Tokenizer.from_pretrained(path).ids(TEXTS) == wanted
    Tokenizer.from_pretrained(path).save_pretrained(path)  # ours, over all of it
    assert Tokenizer.from_pretrained(path).ids(TEXTS) == wanted


def test_a_language_of_a_tokenizer_json(folder, tmp_path):
    """As released folders of mBART and NLLB have one, with the class in either config."""
    made = Tokenizer.from_pretrained(folder("MBart50Tokenizer"))
    made.save_pretrained(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"eos_token": "</s>", "src_lang": "ro_RO"}))
    (tmp_path / "config.json").write_text(json.dumps({"tokenizer_class": "MBart50TokenizerFast"}))
    tokenizer = Tokenizer.from_pretrained(tmp_path)
    assert tokenizer.languages == made.languages
    assert around(tokenizer, None) == ["ro_RO", "▁a", "</s>"]
    assert around(tokenizer, "fr_XX") == ["fr_XX", "▁a", "</s>"]


def test_what_is_not_done_for_them(folder):
    for name in ("T5Tokenizer", "NllbTokenizer"):
        with pytest.raises(ValueError, match="is not trimmed"):
            Tokenizer.from_pretrained(folder(name)).trimmed(["a"])


def test_m2m_has_ids_by_its_vocabulary(folder):
    path = folder("M2M100Tokenizer")
    tokenizer = Tokenizer.from_pretrained(path)
    assert plain(tokenizer) == [by_vocabulary(path, "sentencepiece.bpe.model", text) for text in TEXTS]
    size = len(json.loads((path / "vocab.json").read_text()))
    assert tokenizer.vocabulary()[size:] == [f"__{code}__" for code in codes.M2M100["m2m100"]]
    assert tokenizer.languages[:3] == ("af", "am", "ar")


def test_t5s_sentinels_count_down_and_byt5s_up(folder, tmp_path):
    t5 = Tokenizer.from_pretrained(folder("T5Tokenizer"))
    assert t5.vocabulary()[-100:] == [f"<extra_id_{index}>" for index in reversed(range(100))]
    byt5 = Tokenizer.from_pretrained(cases.folder(tmp_path / "byt5", "ByT5Tokenizer"))
    assert byt5.vocabulary()[259:] == [f"<extra_id_{index}>" for index in range(125)]
    for text in [*TEXTS, "\U0010ffff"]:
        assert plain(byt5, [text]) == [[byte + 3 for byte in text.encode()]]
    assert byt5.decode(byt5.ids(TEXTS)) == TEXTS
    assert (byt5.padding_id, byt5.eos_id, byt5.unknown_id) == (0, 1, 2)
    assert byt5.ids(["a"]) == [[100, 1]]


@pytest.mark.parametrize("name", [*SEVERAL, "ByT5Tokenizer"])
def test_they_travel(folder, name, tmp_path):
    tokenizer = Tokenizer.from_pretrained(folder(name))
    tokenizer.save_pretrained(tmp_path)
    for again in (Tokenizer.from_pretrained(tmp_path), Tokenizer.from_json(tokenizer.to_json())):
        assert again.ids(TEXTS) == tokenizer.ids(TEXTS)
        assert again.of_targets.ids(TEXTS) == tokenizer.of_targets.ids(TEXTS)
        assert again.decode(tokenizer.ids(TEXTS)) == tokenizer.decode(tokenizer.ids(TEXTS))
        assert (again.languages, again.vocabulary()) == (tokenizer.languages, tokenizer.vocabulary())
        assert again.fingerprint == tokenizer.fingerprint
    assert not list(tmp_path.glob("*.model")) + list(tmp_path.glob("*.spm"))


# ---- transformers ---------------------------------------------------------------------------------------------


@pytest.fixture
def transformers(monkeypatch):
    """transformers, which reads model files by protobuf messages of its own: sentencepiece's want a newer protobuf."""
    library = pytest.importorskip("transformers")
    from transformers.utils import sentencepiece_model_pb2_new

    module = importlib.import_module("transformers.convert_slow_tokenizer")  # its function has the same name
    monkeypatch.setattr(module, "import_protobuf", lambda *_: sentencepiece_model_pb2_new)
    return library


def reads_alike(name, charsmap, text):
    """Whether the class of transformers 5.24 follows the model's rules for a text, as SentencePiece does.

    Its `tokenizers` normalizer loses marks of some characters (see `sentencepieces.charsmap`), and makes tokens of
    "＜/s＞"; MBartTokenizer has no normalizer; others keep spaces at ends.
    """
    written = Charsmap(charsmap)(text)
    if any((token in written) != (token in text) for token in TOKENS):
        return False
    if name == "MBartTokenizer":
        return written.split() == text.split() and "▁" not in text
    if written != normalizers.Precompiled(charsmap).normalize_str(text):
        return False
    return name == "T5Tokenizer" or not re.search(r" (<|\Z)|▁", written)


@pytest.mark.reference
@pytest.mark.parametrize("name", ["T5Tokenizer", "PegasusTokenizer", "MBartTokenizer", "MBart50Tokenizer"])
def test_ids_of_transformers_where_it_follows_the_model(folder, transformers, name):
    path = folder(name)
    tokenizer, reference = Tokenizer.from_pretrained(path), getattr(transformers, name).from_pretrained(path)
    (file,) = path.glob("*.model")
    charsmap = read_model(file).charsmap
    texts = [text for text in [*TEXTS, *cases.MARKED] if reads_alike(name, charsmap, text)]
    assert len(texts) > 0.7 * len(TEXTS)
    texts += ["<extra_id_0> a <extra_id_99>b", "<mask_1> a<mask_2>b", "<mask> a<mask>b", "en_XX hello.fr_XX"]
    for text, ids in zip(texts, tokenizer.ids(texts), strict=True):
        assert ids == reference(text)["input_ids"], text
        assert tokenizer.decode([ids]) == [reference.decode(ids, skip_special_tokens=True)]
    assert len(tokenizer.vocabulary()) == len(reference)
    if tokenizer.languages:
        reference.src_lang = "fr_XX"
        assert tokenizer.encode(["a cat"], language="fr_XX").token_ids[0].tolist() == reference("a cat")["input_ids"]


@pytest.mark.reference
@pytest.mark.parametrize(
    ("name", "code"), [("PLBartTokenizer", "java"), ("M2M100Tokenizer", "fr"), ("MarianTokenizer", None)]
)
def test_ids_of_transformers_where_it_runs_sentencepiece(folder, transformers, name, code):
    path = folder(name)
    tokenizer, reference = Tokenizer.from_pretrained(path), getattr(transformers, name).from_pretrained(path)
    texts = [*TEXTS, *cases.MARKED, ">>fra<< the cat", ">>fra<<the cat", "__en__ a __java__ b", "<mask> a"]
    for text, ids in zip(texts, tokenizer.ids(texts), strict=True):
        assert ids == reference(text)["input_ids"], text
        assert tokenizer.decode([ids]) == [reference.decode(ids, skip_special_tokens=True)], text
    if name == "MarianTokenizer":
        for text, ids in zip(texts, tokenizer.of_targets.ids(texts), strict=True):
            assert ids == reference(text_target=text)["input_ids"], text
            assert tokenizer.of_targets.decode([ids]) == [reference.decode(ids, skip_special_tokens=True)], text
    if code:
        reference.src_lang = code
        assert tokenizer.encode(["a cat"], language=code).token_ids[0].tolist() == reference("a cat")["input_ids"]


@pytest.mark.reference
def test_ids_of_transformers_where_debertas_class_follows_the_model(folder, transformers):
    """It composes characters (NFC), and has not the rules of the model's file: those that make "，" a comma."""
    path = folder(DEBERTA)
    tokenizer, reference = Tokenizer.from_pretrained(path), getattr(transformers, DEBERTA).from_pretrained(path)
    charsmap = Charsmap(read_model(path / "spm.model").charsmap)

    def words(text):
        return [word for word in re.split("[ \\n\\r\\t]", text) if word]

    texts = [text for text in TEXTS if words(charsmap(text)) == words(unicodedata.normalize("NFC", text))]
    texts = [*(text for text in texts if "▁" not in text and "\x00" not in text), "a [MASK] b[SEP]c"]
    assert len(texts) > 0.7 * len(TEXTS)
    for text, ids in zip(texts, tokenizer.ids(texts), strict=True):
        assert ids == reference(text)["input_ids"], text
    pair = reference("a cat", "the dog")
    encoding = tokenizer.encode(["a cat"], ["the dog"])
    assert encoding.token_ids[0].tolist() == pair["input_ids"]
    assert encoding.segment_ids[0].tolist() == pair["token_type_ids"]


@pytest.mark.reference
def test_byt5_is_transformers(folder, transformers):
    tokenizer, reference = Tokenizer.from_pretrained(folder("ByT5Tokenizer")), transformers.ByT5Tokenizer()
    texts = [*TEXTS, *cases.MARKED, "<extra_id_0> a <extra_id_124>b"]
    texts.remove("</s>")  # transformers puts no second end token behind one that was written
    for text, ids in zip(texts, tokenizer.ids(texts), strict=True):
        assert ids == reference(text)["input_ids"], text
        assert tokenizer.decode([ids]) == [reference.decode(ids, skip_special_tokens=True)]


@pytest.mark.reference
@pytest.mark.parametrize("name", [*SEVERAL, "ByT5Tokenizer"])
def test_a_saved_folder_opens_in_transformers(folder, transformers, name, tmp_path):
    tokenizer = Tokenizer.from_pretrained(folder(name))
    tokenizer.save_pretrained(tmp_path)
    reference = transformers.AutoTokenizer.from_pretrained(tmp_path)
    texts = ["The cat sat on the mat.", "a b", "Où est-ce?"]
    assert [reference(text)["input_ids"] for text in texts] == tokenizer.ids(texts)


# ---- what is missing or does not fit ----------------------------------------------------------------------------


def test_missing_and_foreign_files_are_named(folder, tmp_path):
    path = shutil.copytree(folder("MarianTokenizer"), tmp_path / "marian")
    (path / "target.spm").unlink()
    with pytest.raises(FileNotFoundError, match=r"lacks target\.spm"):
        Tokenizer.from_pretrained(path)
    shutil.copy(folder("M2M100Tokenizer") / "sentencepiece.bpe.model", path / "target.spm")
    cases.vocabulary(path, ["</s>", "<unk>", "a", "b", "<pad>"])
    with pytest.raises(
        ValueError, match=r"source\.spm' and the vocab\.json beside it do not belong together: it has \d%"
    ):
        Tokenizer.from_pretrained(path)
    cases.vocabulary(path, ["</s>", "a", "<pad>"])
    with pytest.raises(ValueError, match=r"vocab\.json' lacks <unk>"):
        Tokenizer.from_pretrained(path)
    (path / "vocab.json").write_text('{"</s>": 0, "<unk>": 0, "<pad>": "x"}')
    with pytest.raises(ValueError, match=r"vocab\.json' must have an id for each token, 0 to 2, each once"):
        Tokenizer.from_pretrained(path)
    (path / "vocab.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"lacks vocab\.json"):
        Tokenizer.from_pretrained(path)
    path = cases.folder(tmp_path / "two", "MarianTokenizer", separate_vocabs=True)
    shutil.copy(path / "vocab.json", path / "target_vocab.json")
    with pytest.raises(ValueError, match=r"target\.spm' and the target_vocab\.json beside it do not belong together"):
        Tokenizer.from_pretrained(path)
    (path / "target_vocab.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"lacks target_vocab\.json"):
        Tokenizer.from_pretrained(path)


def test_a_model_of_another_family_is_refused(folder, tmp_path):
    shutil.copy(folder("T5Tokenizer") / "spiece.model", tmp_path / "sentencepiece.bpe.model")
    cases.settings(tmp_path, "MBartTokenizer")
    with pytest.raises(ValueError, match=r"begins with \['<pad>', '</s>', '<unk>'\], where fairseq's models have"):
        Tokenizer.from_pretrained(tmp_path)
    cases.train(tmp_path / "sentencepiece.bpe.model")
    cases.settings(tmp_path, "T5Tokenizer")
    with pytest.raises(ValueError, match=r"lacks '<pad>': it is no model of this family"):
        Tokenizer.from_pretrained(tmp_path)
    cases.settings(tmp_path, "LlamaTokenizer")
    with pytest.raises(
        FileNotFoundError, match=r"tokenizer class 'LlamaTokenizer'\. SentencePiece models are read of T5"
    ):
        Tokenizer.from_pretrained(tmp_path)
    for key, value in (("extra_ids", -1), ("extra_ids", "many"), ("offset", True)):
        cases.settings(tmp_path, "T5Tokenizer" if key == "extra_ids" else "PegasusTokenizer", **{key: value})
        with pytest.raises(ValueError, match=f"says {key}={value!r}: wanted a whole number"):
            Tokenizer.from_pretrained(tmp_path)
    for name in ("M2M100Tokenizer", "PLBartTokenizer"):
        cases.vocabulary(tmp_path, ["<s>", "<pad>", "</s>", "<unk>"])
        cases.settings(tmp_path, name, language_codes="klingon")
        with pytest.raises(ValueError, match="says language_codes='klingon': wanted one of"):
            Tokenizer.from_pretrained(tmp_path)
