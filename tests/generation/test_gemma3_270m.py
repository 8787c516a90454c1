"""Gemma 3 270M out of its GGUF file against transformers and sentencepiece: pieces, logits, texts.

Its terms (https://ai.google.dev/gemma/terms) are for whoever runs these tests to accept: TFXFORMER_TERMS=gemma.
"""

import os
import struct
from pathlib import Path

import numpy as np
import pytest
import spm_cases

from tfxformer import samples, tasks
from tfxformer.checkpoints import GGUFFile
from tfxformer.text import Tokenizer

pytestmark = [
    pytest.mark.samples,
    pytest.mark.slow,
    pytest.mark.skipif(
        "gemma" not in os.environ.get("TFXFORMER_TERMS", ""),
        reason="the terms of Gemma are to be accepted: https://ai.google.dev/gemma/terms, then TFXFORMER_TERMS=gemma",
    ),
]
PROMPTS = [
    "The capital of France is",
    "Once upon a time, there was a little",
    "def fibonacci(n):\n    ",
    "1, 2, 3, 4, 5,",
    "La capitale de l'Allemagne est",
    "Water boils at a temperature of",
    "<start_of_turn>user\nWhat is a cache?<end_of_turn>\n<start_of_turn>model\n",
    "猫はマットの",
]
NEW_TOKENS = 24


@pytest.fixture(scope="module")
def path():
    return samples.gemma3_270m(accept_terms=True)


@pytest.fixture(scope="module")
def model(path):
    return tasks.CausalLM.from_pretrained(path)


def varint(number):
    return bytes([number & 127 | 128]) + varint(number >> 7) if number > 127 else bytes([number])


def field(number, value):
    """A field of protobuf's wire format, by hand: numbers, float32 and bytes."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    if isinstance(value, float):
        return varint(number << 3 | 5) + struct.pack("<f", value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def model_file(metadata):
    """The SentencePiece model that the metadata were written from: BPE with bytes, no spaces added or removed."""
    tokens, scores, kinds = (metadata[f"tokenizer.ggml.{key}"] for key in ("tokens", "scores", "token_type"))
    unknown = metadata["tokenizer.ggml.unknown_token_id"]
    kinds = [2 if index == unknown else kind for index, kind in enumerate(kinds)]
    texts = [token.replace(" ", "▁") if kind == 4 else token for token, kind in zip(tokens, kinds, strict=True)]
    pieces = zip(texts, scores, kinds, strict=True)
    written = b"".join(field(1, field(1, text.encode()) + field(2, s) + field(3, kind)) for text, s, kind in pieces)
    trainer = field(3, 2) + field(35, 1) + field(40, unknown) + field(41, 2) + field(42, 1) + field(43, 0)
    return written + field(2, trainer) + field(3, field(1, b"identity") + field(3, 0) + field(4, 0))


def test_every_piece_and_hard_texts_have_sentencepieces_ids(path):
    sentencepiece = pytest.importorskip("sentencepiece")
    metadata = GGUFFile(path).metadata
    tokenizer = Tokenizer.from_gguf(metadata)
    reference = sentencepiece.SentencePieceProcessor(model_proto=model_file(metadata))
    kinds = metadata["tokenizer.ggml.token_type"]
    pieces = [token for token, kind in zip(metadata["tokenizer.ggml.tokens"], kinds, strict=True) if kind != 3]
    assert len(pieces) == 255_895
    texts = [*(piece.replace("▁", " ") for piece in pieces), *spm_cases.NASTY, *spm_cases.CORPUS]
    assert tokenizer.ids(texts, special_tokens=False) == reference.encode(texts)
    hard = tokenizer.ids(spm_cases.NASTY, special_tokens=False)
    assert tokenizer.decode(hard, skip_special_tokens=False) == reference.decode(hard)
    roles = (tokenizer.padding_id, tokenizer.eos_id, tokenizer.bos_id, tokenizer.unknown_id)
    assert (roles, tokenizer.vocabulary_size, tokenizer.model_max_length) == ((0, 1, 2, 3), 262_144, 32_768)
    assert tokenizer.ids(["<start_of_turn>user\nHi<end_of_turn>\n"]) == [[2, 105, 2364, 107, 10979, 106, 107]]
    assert tokenizer.chat_template is None  # it was not trained to chat


@pytest.mark.reference
def test_logits_and_greedy_texts_are_those_of_transformers(path, model):
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    read = {"gguf_file": path.name, "dtype": torch.float32}
    theirs = transformers.AutoModelForCausalLM.from_pretrained(path.parent, **read).eval()
    rows = model.tokenizer.ids(PROMPTS)
    texts = model.generate(PROMPTS, max_new_tokens=NEW_TOKENS)
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    long = model.tokenizer.ids([readme])[0][:600]  # beyond the window of 512
    for ids in (*rows, long):
        with torch.inference_mode():
            wanted = theirs(torch.tensor([ids])).logits[0, -8:].numpy()
        got = model({"token_ids": np.array([ids], "int32"), "padding_mask": np.ones((1, len(ids)), "int32")})
        assert np.abs(np.asarray(got)[0, -8:] - wanted).max() < 1e-3
    for ids, text in zip(rows, texts, strict=True):
        given = torch.tensor([ids])
        with torch.inference_mode():
            found = theirs.generate(
                given, attention_mask=torch.ones_like(given), max_new_tokens=NEW_TOKENS, do_sample=False
            )
        assert model.tokenizer.decode([found[0, len(ids) :].tolist()]) == [text]
