"""Embedders on decoders, in folders as sentence-transformers writes them: the package's own vectors."""

import json

import numpy as np
import pytest
import tiny
from decoder_cases import GROUPED_SIZES

from tfxformer import tasks
from tfxformer.text import Tokenizer

pytestmark = pytest.mark.reference
PROMPTS = {"query": "Instruct: find a good film\nQuery:", "document": ""}
ENDS = ["<|endoftext|>", "<|im_end|>"]


def qwen3_embedding(folder):
    """A folder as Qwen3-Embedding's: text <|endoftext|>, padding at the left, the last token's vector of length one."""
    import torch
    import transformers
    from sentence_transformers import SentenceTransformer, models

    tokenizer = Tokenizer.train_byte_level_bpe(tiny.TEXTS, 300, ENDS)
    end = tokenizer.ids([ENDS[0]])[0][0]
    (folder / "decoder").mkdir(parents=True)
    parts = json.loads(tokenizer.tokenizer_json())
    parts["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [{"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": ENDS[0], "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
        "special_tokens": {ENDS[0]: {"id": ENDS[0], "ids": [end], "tokens": [ENDS[0]]}},
    }
    (folder / "decoder" / "tokenizer.json").write_text(json.dumps(parts))
    stated = {"pad_token": ENDS[0], "eos_token": ENDS[1], "padding_side": "left", "model_max_length": 64}
    stated["tokenizer_class"] = "PreTrainedTokenizerFast"
    (folder / "decoder" / "tokenizer_config.json").write_text(json.dumps(stated))
    sizes = {**GROUPED_SIZES, "vocab_size": 320, "head_dim": 8, "pad_token_id": None, "eos_token_id": end}
    torch.manual_seed(0)
    config = transformers.Qwen3Config(**{**sizes, "initializer_range": 0.3}, tie_word_embeddings=True)
    transformers.Qwen3Model(config).save_pretrained(folder / "decoder")
    pooling = models.Pooling(24, "lasttoken", include_prompt=True)
    modules = [models.Transformer(str(folder / "decoder")), pooling, models.Normalize()]
    made = SentenceTransformer(modules=modules, prompts=PROMPTS, device="cpu")
    made.save(str(folder / "embedder"))
    return made


def test_qwen3_embedding_equals_sentence_transformers(tmp_path):
    from sentence_transformers import SentenceTransformer

    reference = qwen3_embedding(tmp_path)
    model = tasks.TextEmbedder.from_pretrained(tmp_path / "embedder")
    assert model.pooling == "lasttoken" and model.normalize and model.prompts.texts == PROMPTS
    saved = model.save_pretrained(tmp_path / "saved")
    opened = SentenceTransformer(str(saved), device="cpu")
    texts = ["good film", "a very good cat sat on the mat", "bad"]
    for options in ({}, {"prompt_name": "query"}):
        wanted = reference.encode(texts, **options)
        np.testing.assert_allclose(model.predict(texts, verbose=0, **options), wanted, atol=1e-5)
        np.testing.assert_allclose(opened.encode(texts, **options), wanted, atol=1e-6)
    assert np.abs(reference.encode(texts) - reference.encode(texts, prompt_name="query")).max() > 0.1
