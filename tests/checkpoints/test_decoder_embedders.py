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


def embeddinggemma(folder):
    """A folder as EmbeddingGemma's: <bos> text <eos>, windows to both sides, the mean, two dense layers, length one."""
    import torch
    import transformers
    from sentence_transformers import SentenceTransformer, models

    begin, end = ({"SpecialToken": {"id": token, "type_id": 0}} for token in ENDS)
    tokenizer(folder, [begin, {"Sequence": {"id": "A", "type_id": 0}}, end], "right")
    torch.manual_seed(0)
    sizes = {**GROUPED_SIZES, "num_hidden_layers": 3, "vocab_size": 320, "head_dim": 8, "initializer_range": 0.3}
    layers = {"layer_types": ["sliding_attention", "full_attention", "sliding_attention"], "sliding_window": 6}
    config = transformers.Gemma3TextConfig(**sizes, **layers, use_bidirectional_attention=True)
    transformers.Gemma3TextModel(config).save_pretrained(folder / "decoder")
    identity = torch.nn.Identity()
    dense = [models.Dense(a, b, bias=False, activation_function=identity) for a, b in ((24, 48), (48, 12))]
    modules = [models.Transformer(str(folder / "decoder")), models.Pooling(24, "mean"), *dense, models.Normalize()]
    made = SentenceTransformer(modules=modules, prompts=PROMPTS, device="cpu")
    made.save(str(folder / "embedder"))
    return made


def tokenizer(folder, template, side):
    """Writes a byte-level tokenizer whose texts stand in a template; returns the id of its first special token."""
    trained = Tokenizer.train_byte_level_bpe(tiny.TEXTS, 300, ENDS)
    ids = [trained.ids([token])[0][0] for token in ENDS]
    (folder / "decoder").mkdir(parents=True)
    parts = json.loads(trained.tokenizer_json())
    parts["post_processor"] = {
        "type": "TemplateProcessing",
        "single": template,
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
        "special_tokens": {
            token: {"id": token, "ids": [number], "tokens": [token]} for token, number in zip(ENDS, ids, strict=True)
        },
    }
    (folder / "decoder" / "tokenizer.json").write_text(json.dumps(parts))
    stated = {"pad_token": ENDS[0], "eos_token": ENDS[1], "padding_side": side, "model_max_length": 64}
    stated["tokenizer_class"] = "PreTrainedTokenizerFast"
    (folder / "decoder" / "tokenizer_config.json").write_text(json.dumps(stated))
    return ids[0]


def qwen3_embedding(folder):
    """A folder as Qwen3-Embedding's: text <|endoftext|>, padding at the left, the last token's vector of length one."""
    import torch
    import transformers
    from sentence_transformers import SentenceTransformer, models

    template = [{"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": ENDS[0], "type_id": 0}}]
    end = tokenizer(folder, template, "left")
    sizes = {**GROUPED_SIZES, "vocab_size": 320, "head_dim": 8, "pad_token_id": None, "eos_token_id": end}
    torch.manual_seed(0)
    config = transformers.Qwen3Config(**{**sizes, "initializer_range": 0.3}, tie_word_embeddings=True)
    transformers.Qwen3Model(config).save_pretrained(folder / "decoder")
    pooling = models.Pooling(24, "lasttoken", include_prompt=True)
    modules = [models.Transformer(str(folder / "decoder")), pooling, models.Normalize()]
    made = SentenceTransformer(modules=modules, prompts=PROMPTS, device="cpu")
    made.save(str(folder / "embedder"))
    return made


@pytest.mark.parametrize(("make", "pooling"), [(qwen3_embedding, "lasttoken"), (embeddinggemma, "mean")])
def test_equals_sentence_transformers(make, pooling, tmp_path):
    from sentence_transformers import SentenceTransformer

    reference = make(tmp_path)
    model = tasks.TextEmbedder.from_pretrained(tmp_path / "embedder")
    assert model.pooling == pooling and model.normalize and model.prompts.texts == PROMPTS
    saved = model.save_pretrained(tmp_path / "saved")
    opened = SentenceTransformer(str(saved), device="cpu")
    texts = ["good film", "a very good cat sat on the mat", "bad"]
    for options in ({}, {"prompt_name": "query"}):
        wanted = reference.encode(texts, **options)
        np.testing.assert_allclose(model.predict(texts, verbose=0, **options), wanted, atol=1e-5)
        np.testing.assert_allclose(opened.encode(texts, **options), wanted, atol=1e-6)
    assert np.abs(reference.encode(texts) - reference.encode(texts, prompt_name="query")).max() > 0.1
