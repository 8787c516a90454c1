"""What a checkpoint says about how it generates, and whether it generates at all: as transformers reads it."""

import json

import numpy as np
import pytest
import tiny

import tfxformer
from tfxformer import export, tasks
from tfxformer.checkpoints import CheckpointError
from tfxformer.checkpoints.families import family_of

WINDOW, NO_WINDOW = {"decoder__sliding_window": 3}, {"decoder__sliding_window": None}
ONE_WINDOW = {**WINDOW, "decoder__windowed_layers": (False, True)}
CASES = {
    **{family: (family, {}) for family in ("llama", "qwen2", "gpt2", "gpt_neox", "opt", "bloom")},
    "mistral": ("mistral", NO_WINDOW),
    "mistral-window": ("mistral", WINDOW),
    "qwen2-one-window": ("qwen2", ONE_WINDOW),
}


def bidirectional(family, folder, **changes):
    """A folder that says `is_causal: false`, and our backbone of it."""
    model = tiny.backbone(family, decoder__causal=False, **changes)
    tfxformer.checkpoints.save_pretrained(folder, model, model.config)
    return model


@pytest.mark.reference
@pytest.mark.parametrize("case", CASES)
def test_is_causal_false(case, tmp_path):
    """Right: transformers 5.24, run here on the same folder (masking_utils.create_bidirectional_mask)."""
    import torch
    import transformers

    family, changes = CASES[case]
    bidirectional(family, tmp_path, **changes)
    assert json.loads((tmp_path / "config.json").read_text())["is_causal"] is False
    ours = tfxformer.from_pretrained(tmp_path)
    inputs = tiny.batch(token_types=0)  # rows of 12, 9 and 6 tokens
    reference = transformers.AutoModel.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        expected = reference(
            input_ids=torch.tensor(inputs["token_ids"].astype("int64")),
            attention_mask=torch.tensor(inputs["padding_mask"].astype("int64")),
        ).last_hidden_state.numpy()
    real = inputs["padding_mask"] == 1
    np.testing.assert_allclose(ours(inputs)["sequence_output"].numpy()[real], expected[real], atol=2e-5)


def test_is_causal_false_sees_later_tokens_and_null_is_false(tmp_path):
    model = bidirectional("llama", tmp_path)
    inputs = tiny.batch(rows=1, token_types=0)
    changed = {**inputs, "token_ids": inputs["token_ids"].copy()}
    changed["token_ids"][0, -1] += 1
    first, second = (model(batch)["sequence_output"].numpy()[0, 0] for batch in (inputs, changed))
    assert np.abs(first - second).max() > 1e-3
    reference = json.loads((tmp_path / "config.json").read_text())
    read = family_of("llama").read_config
    assert read({**reference, "is_causal": None}).decoder.causal is False  # transformers: not getattr(config, ...)
    assert read({key: value for key, value in reference.items() if key != "is_causal"}).decoder.causal is True
    with pytest.raises(CheckpointError, match="is_causal='no'; wanted true or false"):
        read({**reference, "is_causal": "no"})
    assert "is_causal" not in family_of("llama").write_config(tiny.config("llama"))


def test_is_causal_false_generates_nothing(tmp_path, tiny_tokenizer):
    model = bidirectional("llama", tmp_path)
    refusals = (
        lambda: tasks.CausalLM.from_pretrained(tmp_path, tokenizer=tiny_tokenizer),
        lambda: model.new_cache(1, 8),
        lambda: tfxformer.generation.generate(model, [[1, 2]], 2),
    )
    for refused in refusals:
        with pytest.raises(ValueError, match=r"This decoder is bidirectional.*use tasks\.TextEmbedder"):
            refused()


@pytest.mark.parametrize("task", ["embedder", "classifier"])
def test_is_causal_false_is_exported(task, tmp_path, tiny_tokenizer, plain_kernels):
    """Right: what Keras computes, which `test_is_causal_false` compares with transformers."""
    model = tiny.backbone("qwen2", decoder__causal=False, **ONE_WINDOW)
    made = (
        tasks.TextEmbedder(model, tokenizer=tiny_tokenizer, sequence_length=16)
        if task == "embedder"
        else tasks.TextClassifier(model, ["negative", "positive"], tokenizer=tiny_tokenizer, sequence_length=16)
    )
    texts = ["good film", "a very good cat sat on the mat"]
    export.export_litert(made, tmp_path / "model.tflite", quantization="float32", sequence_length=16)
    got = export.LiteRTModel(tmp_path / "model.tflite").predict(texts)
    np.testing.assert_allclose(got, made.predict(texts), atol=1e-5)
