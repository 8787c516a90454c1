"""A Marian with a vocabulary for sources and one for targets: transformers' ids, texts and losses, folder and file."""

import json

import keras
import numpy as np
import pytest
import spm_cases as cases
import tiny

from tfxformer import compression, export, generation, models, tasks
from tfxformer.text import Tokenizer

pytest.importorskip("sentencepiece")
pytestmark = pytest.mark.usefixtures("plain_kernels")
SOURCES, TARGETS = ["The cat sat on the mat.", "Numbers like 12"], ["Le chat est assis.", "La maison"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The tokenizer files, those of one target language."""
    path = tmp_path_factory.mktemp("two") / "tokenizer"
    return cases.folder(path, "MarianTokenizer", separate_vocabs=True, languages=[])


@pytest.fixture
def lm(folder):
    tokenizer = Tokenizer.from_pretrained(folder)
    sizes = {"num_layers": 1, "max_positions": 48}
    stacks = {f"{stack}__{name}": value for stack in ("encoder", "decoder") for name, value in sizes.items()}
    rows = {
        "source_vocabulary_size": len(tokenizer.vocabulary()),
        "vocabulary_size": len(tokenizer.of_targets.vocabulary()),
    }
    backbone = tiny.backbone("marian", padding_id=tokenizer.padding_id, **rows, **stacks)
    return tiny.perturb(tasks.Seq2SeqLM(backbone, tokenizer=tokenizer))


def test_each_side_has_its_own_ids(folder, lm):
    ours, theirs = (json.loads((folder / name).read_text()) for name in ("vocab.json", "target_vocab.json"))
    assert len(ours) != len(theirs)
    for tokenizer, ids in ((lm.tokenizer, ours), (lm.tokenizer.of_targets, theirs)):
        assert tokenizer.vocabulary() == [*ids]
    batch = lm.encode(SOURCES, TARGETS)
    read = batch["encoder_token_ids"][0][batch["encoder_padding_mask"][0] > 0]
    assert read.tolist() == lm.tokenizer.ids(SOURCES)[0]
    written = lm.tokenizer.of_targets.ids(TARGETS)
    assert batch["decoder_token_ids"][0].tolist()[: len(written[0])] == [lm.decoder_start_token_id, *written[0][:-1]]
    assert lm.tokenizer.of_targets.decode(written)[0].endswith("chat est assis.")  # "L" has no id
    tables = {v.path: v.shape[0] for v in lm.weights if "token_embedding" in v.path}
    assert tables == {
        "encoder_token_embedding/embeddings": len(ours),
        "token_embedding/embeddings": len(theirs),
    }


def test_it_learns_and_is_saved(lm, tmp_path, eager):
    lm.compile(learning_rate=1e-2)
    history = lm.fit(SOURCES, TARGETS, epochs=4, verbose=0).history["loss"]
    assert history[-1] < history[0]
    lm.save(tmp_path / "lm.keras")
    again = keras.saving.load_model(tmp_path / "lm.keras")
    folders = tasks.Seq2SeqLM.from_pretrained(lm.save_pretrained(tmp_path / "lm"))
    for other in (again, folders):
        np.testing.assert_allclose(other.score(SOURCES, TARGETS), lm.score(SOURCES, TARGETS), rtol=1e-5)
        assert other.generate(SOURCES, 5) == lm.generate(SOURCES, 5)


def test_a_file_reads_by_one_and_writes_by_the_other(lm, tmp_path):
    export.export_litert(lm, tmp_path / "m.tflite", "float32", sequence_length=24, cache_length=24)
    writer = export.LiteRTGenerator(tmp_path / "m.tflite")
    assert writer.generate(SOURCES, 8) == lm.generate(SOURCES, 8, jit_compile=False)
    np.testing.assert_allclose(writer.score(SOURCES, TARGETS), lm.score(SOURCES, TARGETS), rtol=1e-4)
    rows = lm.backbone.config.read_vocabulary_size
    assert rows < lm.backbone.config.vocabulary_size  # an id that only targets have
    assert writer.generate_ids([rows - 1, lm.tokenizer.eos_id], 2)
    with pytest.raises(ValueError, match=f"{rows} is no token id: they are integers from 0 to {rows - 1}"):
        writer.generate_ids([rows], 2)


def test_what_needs_one_vocabulary_says_so(lm, tmp_path):
    rows = lm.backbone.config.read_vocabulary_size
    batch = lm.encode(SOURCES, TARGETS)
    with pytest.raises(ValueError, match="encoder_token_ids"):
        lm.predict({**batch, "encoder_token_ids": np.full_like(batch["encoder_token_ids"], rows)})
    with pytest.raises(ValueError, match=f"0 to {rows - 1}"):
        lm.generate([[rows]], 2)
    with pytest.raises(ValueError, match="a vocabulary for sources and one for targets"):
        compression.keep_tokens(lm.backbone, range(rows - 2))
    with pytest.raises(ValueError, match="a token table for sources and one for targets"):
        compression.factorize_embeddings(lm, 4)
    with pytest.raises(ValueError, match="encoder and decoder need one vocabulary"):
        tasks.DenoisingLM(lm.backbone, tokenizer=lm.tokenizer)
    with pytest.raises(ValueError, match="its decoder cannot read a text again"):
        tasks.TextClassifier(lm.backbone, labels=["a", "b"])
    small = lm.backbone.config.replace(source_vocabulary_size=rows - 1)
    with pytest.raises(ValueError, match=f"has {rows} tokens, the model rows for {rows - 1}"):
        tasks.Seq2SeqLM(models.EncoderDecoder(small), tokenizer=lm.tokenizer)
    with pytest.raises(ValueError, match="does not compute source_vocabulary_size"):
        models.Encoder(tiny.config("bert", source_vocabulary_size=9))
    with pytest.raises(ValueError, match="padding_id"):
        lm.backbone.config.replace(source_vocabulary_size=lm.backbone.config.padding_id)
    one = tasks.Seq2SeqLM(models.EncoderDecoder(lm.backbone.config.replace(source_vocabulary_size=None)))
    two = tasks.Seq2SeqLM(lm.backbone)
    with pytest.raises(ValueError, match=r"The student has a vocabulary of \d+, its teacher one of \d+ and \d+"):
        compression.Distiller(one, two)


@pytest.mark.reference
def test_transformers_writes_and_weighs_the_same(folder, tmp_path):
    transformers = pytest.importorskip("transformers")
    import shutil

    import torch

    path = shutil.copytree(folder, tmp_path / "checkpoint")
    reference = transformers.MarianTokenizer.from_pretrained(path)
    sizes = {"d_model": 24, "encoder_layers": 1, "decoder_layers": 2, "encoder_ffn_dim": 30, "decoder_ffn_dim": 40}
    heads = {"encoder_attention_heads": 4, "decoder_attention_heads": 2, "max_position_embeddings": 40}
    vocabularies = {"vocab_size": len(reference.encoder), "decoder_vocab_size": len(reference.target_encoder)}
    ids = {"pad_token_id": 2, "eos_token_id": 0, "decoder_start_token_id": 2, "forced_eos_token_id": None}
    torch.manual_seed(0)
    made = transformers.MarianMTModel(
        transformers.MarianConfig(**sizes, **heads, **vocabularies, **ids, share_encoder_decoder_embeddings=False)
    ).eval()
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if "embed_positions" not in name:
                parameter.add_(torch.randn_like(parameter) * 0.2)
    made.save_pretrained(path)
    lm = tasks.Seq2SeqLM.from_pretrained(path)
    assert lm.tokenizer.ids(SOURCES) == reference(SOURCES)["input_ids"]
    assert lm.tokenizer.of_targets.ids(TARGETS) == reference(text_target=TARGETS)["input_ids"]
    inputs = reference(SOURCES, return_tensors="pt", padding=True)
    saved = lm.save_pretrained(tmp_path / "saved")
    for model in (made, transformers.MarianMTModel.from_pretrained(saved).eval()):
        for beams in (1, 3):
            with torch.inference_mode():
                written = model.generate(**inputs, max_new_tokens=9, num_beams=beams, do_sample=False)
            wanted = reference.batch_decode(written, skip_special_tokens=True)
            sampler = generation.Beams(beams) if beams > 1 else None
            assert lm.generate(SOURCES, 9, sampler=sampler) == [text.strip() for text in wanted]
    for source, target in zip(SOURCES, TARGETS, strict=True):
        with torch.inference_mode():
            loss = made(**reference([source], text_target=[target], return_tensors="pt")).loss.item()
        np.testing.assert_allclose(lm.score([source], [target]), [-loss], rtol=2e-5)
    opened = transformers.AutoTokenizer.from_pretrained(saved)
    of_targets = transformers.AutoTokenizer.from_pretrained(saved, subfolder="target_tokenizer")
    assert opened(SOURCES)["input_ids"] == lm.tokenizer.ids(SOURCES)
    assert of_targets("chat est assis")["input_ids"] == lm.tokenizer.of_targets.ids(["chat est assis"])[0]
    assert of_targets.batch_decode(written, skip_special_tokens=True) == [text.strip() for text in wanted]
