"""Folders of sentence-transformers whose encoders are no BERTs: vectors against torch's, and after a round trip."""

import json

import make_fixtures
import numpy as np
import pytest

from tfxformer import tasks

TEXTS = ["Hello, world!", "the quick brown fox jumps", "a"]
TYPES = {"": "Transformer", "1_Pooling": "Pooling", "2_Normalize": "Normalize"}


def write_modules(folder, pooling):
    modules = [
        {"idx": index, "name": str(index), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for index, (path, kind) in enumerate(TYPES.items())
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir()
    flags = {"word_embedding_dimension": 24, f"pooling_mode_{pooling}": True}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(flags))
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 32, "do_lower_case": False}))


@pytest.mark.reference
@pytest.mark.parametrize("family", ["mpnet"])
def test_vectors_equal_torch(family, tmp_path):
    import torch
    import transformers

    pieces = [*"abcdefghijklmnopqrstuvwxyz", *(f"##{letter}" for letter in "abcdefghijklmnopqrstuvwxyz"), ",", "!"]
    vocabulary = ["<s>", "<pad>", "</s>", "<unk>", "[UNK]", *pieces, "<mask>"]
    tokenizer = transformers.MPNetTokenizer({token: index for index, token in enumerate(vocabulary)})
    model = make_fixtures.make_model(make_fixtures.Case(family))
    folder = tmp_path / "folder"
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    write_modules(folder, "mean_tokens")
    batch = tokenizer(TEXTS, padding=True, truncation=True, max_length=32, return_tensors="pt")
    with torch.no_grad():
        states = model(**batch).last_hidden_state.numpy()
    mask = batch["attention_mask"].numpy()[..., None]
    wanted = (states * mask).sum(1) / mask.sum(1)
    wanted /= np.linalg.norm(wanted, axis=-1, keepdims=True)
    embedder = tasks.TextEmbedder.from_pretrained(folder)
    np.testing.assert_allclose(embedder.predict(TEXTS, verbose=0), wanted, atol=2e-6)
    embedder.save_pretrained(tmp_path / "saved")
    again = tasks.TextEmbedder.from_pretrained(tmp_path / "saved")
    np.testing.assert_allclose(again.predict(TEXTS, verbose=0), wanted, atol=2e-6)
