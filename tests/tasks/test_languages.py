"""Seq2SeqLM of many languages: where codes stand, what is forced, and transformers' ids, texts and losses with them."""

import threading

import keras
import numpy as np
import pytest
import spm_cases as cases
import tiny

from tfxformer import export, generation, tasks
from tfxformer.text import Tokenizer

pytest.importorskip("sentencepiece")
pytestmark = pytest.mark.usefixtures("plain_kernels")
SOURCES, TARGETS = ["The cat sat on the mat.", "Numbers like 12"], ["Le chat est assis.", "La maison"]
CODES = {
    "MBartTokenizer": ("en_XX", "fr_XX"),
    "MBart50Tokenizer": ("en_XX", "fr_XX"),
    "NllbTokenizer": ("eng_Latn", "fra_Latn"),
    "M2M100Tokenizer": ("en", "fr"),
    "PLBartTokenizer": ("en_XX", "java"),
    "MarianTokenizer": (None, "deu"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The tokenizer folder of a family, made once."""
    made = {}

    def find(name):
        if name not in made:
            made[name] = cases.folder(tmp_path_factory.mktemp("languages") / name, name)
        return made[name]

    return find


def model(tokenizer, **arguments):
    sizes = {"num_layers": 1, "max_positions": 48}
    stacks = {f"{stack}__{name}": value for stack in ("encoder", "decoder") for name, value in sizes.items()}
    backbone = tiny.backbone("marian", vocabulary_size=len(tokenizer.vocabulary()) + 2, **stacks)
    arguments.setdefault("decoder_start_token_id", tokenizer.eos_id)
    return tiny.perturb(tasks.Seq2SeqLM(backbone, tokenizer=tokenizer, **arguments))


def rows(batch, name):
    return [
        row[mask > 0].tolist()
        for row, mask in zip(batch[f"{name}_token_ids"], batch[f"{name}_padding_mask"], strict=True)
    ]


@pytest.mark.parametrize("name", CODES)
def test_codes_stand_where_the_family_has_them(folder, name):
    tokenizer = Tokenizer.from_pretrained(folder(name))
    source, target = CODES[name]
    lm = model(tokenizer, source_language=source, target_language=target)
    batch = lm.encode(SOURCES[:1], TARGETS[:1])
    (text,), (written,) = tokenizer.ids(SOURCES[:1], False), tokenizer.of_targets.ids(TARGETS[:1], False)
    index = {code: tokenizer.known_languages.ids[code] for code in (source, target) if code}
    end, (read,), (shifted,) = tokenizer.eos_id, rows(batch, "encoder"), rows(batch, "decoder")
    if name in ("MBartTokenizer", "PLBartTokenizer"):
        assert (read, shifted) == ([*text, end, index[source]], [index[target], *written, end])
    elif name == "MarianTokenizer":
        assert (read, shifted) == ([index[target], *text, end], [end, *written])
    else:
        assert (read, shifted) == ([index[source], *text, end], [end, index[target], *written])
    assert len(read) == lm._counts(type("", (), {"texts": SOURCES[:1]}))[0]


def test_what_is_written_begins_with_the_language(folder):
    tokenizer = Tokenizer.from_pretrained(folder("NllbTokenizer"))
    lm = model(tokenizer, source_language="eng_Latn", target_language="fra_Latn")
    codes = tokenizer.known_languages.ids
    seen = []
    rules = lm.settings_of_call
    lm.settings_of_call = lambda settings: seen.append(rules(settings).forced_bos_token_id) or rules(settings)
    texts = lm.generate(SOURCES, 6)
    other = lm.generate(SOURCES, 6, target_language="deu_Latn")
    "".join(lm.stream(SOURCES[0], 3, source_language="ron_Latn", target_language="ron_Latn"))
    assert seen == [codes["fra_Latn"], codes["deu_Latn"], codes["ron_Latn"]]
    assert lm.generate(SOURCES, 6) == texts  # a call's languages end with it
    assert not any(code in text for text in [*texts, *other] for code in ("fra_Latn", "deu_Latn"))
    assert (lm.source_language, lm.target_language) == ("eng_Latn", "fra_Latn")


def test_threads_speak_their_own_languages(folder):
    tokenizer = Tokenizer.from_pretrained(folder("MBart50Tokenizer"))
    lm = model(tokenizer)
    alone = {
        code: lm.generate(SOURCES, 5, source_language="en_XX", target_language=code) for code in ("fr_XX", "de_DE")
    }
    found = {}

    def write(code):
        found[code] = lm.generate(SOURCES, 5, source_language="en_XX", target_language=code)

    threads = [threading.Thread(target=write, args=(code,)) for code in alone]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == alone


def test_what_is_not_said_or_not_known(folder):
    lm = model(Tokenizer.from_pretrained(folder("NllbTokenizer")))
    with pytest.raises(ValueError, match=r"knows 202 languages: say source_language= \(ace_Arab, ace_Latn, acm_Arab"):
        lm.generate(SOURCES)
    with pytest.raises(ValueError, match=r"knows 202 languages: say target_language="):
        lm.generate(SOURCES, source_language="eng_Latn")
    with pytest.raises(ValueError, match=r"'french' is no language of this tokenizer, which knows ace_Arab"):
        lm.generate(SOURCES, source_language="eng_Latn", target_language="french")
    with pytest.raises(ValueError, match=r"say source_language="):
        lm.fit(SOURCES, TARGETS, epochs=1)
    with pytest.raises(ValueError, match=r"'fr' is no language"):
        model(lm.tokenizer, target_language="fr")
    t5 = model(Tokenizer.from_pretrained(folder("T5Tokenizer")))
    with pytest.raises(ValueError, match=r"has no language codes, so 'fr_XX' says nothing"):
        t5.generate(SOURCES, target_language="fr_XX")
    t5.tokenizer = None
    with pytest.raises(ValueError, match=r"target_language='fr_XX' is told by a tokenizer, and this model has none"):
        t5.generate([[5, 6]], target_language="fr_XX")


def test_marian_is_told_in_the_text(folder, tmp_path):
    lm = model(Tokenizer.from_pretrained(folder("MarianTokenizer")))
    with pytest.raises(
        ValueError, match=r"sources\[1\] does not say into which language: .*\(fra, deu, \.\.\.\), .*>>fra<<"
    ):
        lm.generate([">>fra<< a", "b"])
    with pytest.raises(ValueError, match=r"'>>xyz<<' is no language of this tokenizer, which knows fra, deu"):
        lm.generate([">>xyz<< a"])
    with pytest.raises(ValueError, match="told the language of targets only: leave source_language out"):
        lm.generate(SOURCES, source_language="fra")
    assert lm.generate(SOURCES, 6, target_language="fra") == lm.generate([f">>fra<< {text}" for text in SOURCES], 6)
    single = model(Tokenizer.from_pretrained(cases.folder(tmp_path, "MarianTokenizer", languages=[])))
    assert len(single.generate(SOURCES, 3)) == 2
    with pytest.raises(ValueError, match="has no language codes"):
        single.generate(SOURCES, target_language="fra")


@pytest.mark.parametrize("name", ["MBartTokenizer", "M2M100Tokenizer"])
def test_the_checkpoint_may_say_the_language_of_targets(folder, name):
    tokenizer = Tokenizer.from_pretrained(folder(name))
    source, target = CODES[name]
    index = tokenizer.known_languages.ids[target]
    stated = (
        {"decoder_start_token_id": index}
        if name == "MBartTokenizer"
        else {"generation_config": {"forced_bos_token_id": index}}
    )
    lm, told = (
        model(tokenizer, source_language=source, **stated),
        model(tokenizer, source_language=source, target_language=target),
    )
    np.testing.assert_equal(lm.encode(SOURCES, TARGETS), told.encode(SOURCES, TARGETS))


def test_it_learns_and_is_saved_with_its_languages(folder, tmp_path, eager):
    tokenizer = Tokenizer.from_pretrained(folder("MBartTokenizer"))
    lm = model(tokenizer, source_language="en_XX", target_language="fr_XX")
    lm.compile()
    lm.fit(SOURCES, TARGETS, epochs=1, verbose=0)
    scores = lm.score(SOURCES, TARGETS)
    lm.save(tmp_path / "lm.keras")
    again = keras.saving.load_model(tmp_path / "lm.keras")
    folders = tasks.Seq2SeqLM.from_pretrained(lm.save_pretrained(tmp_path / "lm"))
    for other in (again, folders):
        assert (other.source_language, other.target_language) == ("en_XX", "fr_XX")
        np.testing.assert_allclose(other.score(SOURCES, TARGETS), scores, rtol=1e-5)
        assert other.generate(SOURCES, 5) == lm.generate(SOURCES, 5)
    changed = tasks.Seq2SeqLM.from_pretrained(tmp_path / "lm", target_language="ro_RO")
    assert (changed.source_language, changed.target_language) == ("en_XX", "ro_RO")


def test_a_model_with_fewer_rows_than_pieces_is_refused(folder):
    tokenizer = Tokenizer.from_pretrained(folder("T5Tokenizer"))
    backbone = tiny.backbone("t5", vocabulary_size=len(tokenizer.vocabulary()) - 3)
    with pytest.raises(
        ValueError, match=r"tokens, the model rows for \d+: they do not belong together \('<extra_id_2>'"
    ):
        tasks.Seq2SeqLM(backbone, tokenizer=tokenizer)


# ---- transformers ---------------------------------------------------------------------------------------------

SIZES = {
    **{
        "d_model": 24,
        "encoder_layers": 1,
        "decoder_layers": 2,
        "encoder_attention_heads": 4,
        "max_position_embeddings": 40,
    },
    **{
        "decoder_attention_heads": 2,
        "encoder_ffn_dim": 30,
        "decoder_ffn_dim": 40,
        "pad_token_id": 1,
        "eos_token_id": 2,
    },
}
MODELS = {
    "MBartTokenizer": ("MBart", "MBartForConditionalGeneration", {}),
    "MBart50Tokenizer": ("MBart", "MBartForConditionalGeneration", {"decoder_start_token_id": 2}),
    "M2M100Tokenizer": ("M2M100", "M2M100ForConditionalGeneration", {"decoder_start_token_id": 2}),
    "MarianTokenizer": ("Marian", "MarianMTModel", {}),
}


def theirs(name, folder, tmp_path, transformers):
    """A tiny model of transformers beside the tokenizer files of a family, its tokenizer, and our model of both."""
    import shutil

    import torch

    path = shutil.copytree(folder, tmp_path / "checkpoint")
    reference = getattr(transformers, name).from_pretrained(path)
    family, architecture, more = MODELS[name]
    size = len(Tokenizer.from_pretrained(path).vocabulary())
    keys = {**SIZES, **more, "vocab_size": size}
    if name == "MarianTokenizer":
        keys |= {
            "pad_token_id": size - 1,
            "eos_token_id": 0,
            "decoder_start_token_id": size - 1,
            "forced_eos_token_id": None,
        }
    torch.manual_seed(0)
    made = getattr(transformers, architecture)(getattr(transformers, f"{family}Config")(**keys)).eval()
    with torch.no_grad():
        for parameter_name, parameter in made.named_parameters():
            if "embed_positions" not in parameter_name or family == "MBart":
                parameter.add_(torch.randn_like(parameter) * 0.2)
    made.save_pretrained(path)
    return made, reference, tasks.Seq2SeqLM.from_pretrained(path)


@pytest.mark.reference
@pytest.mark.parametrize("name", MODELS)
def test_transformers_writes_and_weighs_the_same(folder, tmp_path, name, monkeypatch):
    transformers = pytest.importorskip("transformers")
    import importlib

    import torch
    from transformers.utils import sentencepiece_model_pb2_new

    module = importlib.import_module("transformers.convert_slow_tokenizer")
    monkeypatch.setattr(module, "import_protobuf", lambda *_: sentencepiece_model_pb2_new)
    made, reference, lm = theirs(name, folder(name), tmp_path, transformers)
    source, target = CODES[name]
    lm.source_language, lm.target_language = source, target  # the file is of this pair
    sources = SOURCES
    if name == "MarianTokenizer":
        sources = [f">>{target}<< {text}" for text in SOURCES]
        forced = {}
    else:
        reference.src_lang, reference.tgt_lang = source, target
        index = lm.tokenizer.known_languages.ids[target]
        forced = {"decoder_start_token_id" if name == "MBartTokenizer" else "forced_bos_token_id": index}
    inputs = reference(sources, return_tensors="pt", padding=True)
    for beams in (1, 3):
        with torch.inference_mode():
            ids = made.generate(**inputs, max_new_tokens=9, num_beams=beams, do_sample=False, **forced)
        wanted = reference.batch_decode(ids, skip_special_tokens=True)
        assert lm.generate(SOURCES, 9, sampler=generation.Beams(beams) if beams > 1 else None) == [
            text.replace(f"__{target}__", "").strip() if name == "M2M100Tokenizer" else text for text in wanted
        ]
    for number, (text, written) in enumerate(zip(sources, TARGETS, strict=True)):
        pair = reference([text], text_target=[written], return_tensors="pt")
        with torch.inference_mode():
            loss = made(**pair).loss.item()
        score = lm.score(SOURCES[number : number + 1], TARGETS[number : number + 1])
        np.testing.assert_allclose(score, [-loss], rtol=2e-5)


@pytest.mark.parametrize("name", ["MBartTokenizer", "M2M100Tokenizer"])
def test_a_file_speaks_the_languages_of_its_task(folder, tmp_path, name):
    source, target = CODES[name]
    lm = model(Tokenizer.from_pretrained(folder(name)))
    with pytest.raises(ValueError, match="say source_language="):
        export.export_litert(lm, tmp_path / "m.tflite", "float32", sequence_length=24, cache_length=16)
    lm.source_language, lm.target_language = source, target  # the file is of this pair
    export.export_litert(lm, tmp_path / "m.tflite", "float32", sequence_length=24, cache_length=16)
    writer = export.LiteRTGenerator(tmp_path / "m.tflite")
    assert writer.generate(SOURCES, 8) == lm.generate(SOURCES, 8, jit_compile=False)
    np.testing.assert_allclose(writer.score(SOURCES, TARGETS), lm.score(SOURCES, TARGETS), rtol=1e-4)
