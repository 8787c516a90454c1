"""Text models inside of larger ones: what is read of them, and what is written."""

import json

import numpy as np
import pytest
from decoder_cases import FULL, GROUPED_SIZES, SLIDING

import tfxformer
from tfxformer import checkpoints, tasks

IMAGES = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
TEXT = {**GROUPED_SIZES, "head_dim": 8, "sliding_window": 4, "layer_types": [SLIDING, FULL]}


def gemma3(folder, older):
    """A tiny Gemma 3 that reads images, too, its tensors named as versions 5 or (older) 4 of transformers do."""
    import torch
    import transformers
    from safetensors.torch import load_file, save_file

    torch.manual_seed(0)
    config = transformers.Gemma3Config(
        text_config=TEXT, vision_config={**IMAGES, "image_size": 16, "patch_size": 8}, mm_tokens_per_image=4
    )
    model = transformers.Gemma3ForConditionalGeneration(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.2 * torch.randn(parameter.shape))
    model.save_pretrained(folder)
    tensors = load_file(folder / "model.safetensors")
    plain = {name.removeprefix("model.").removeprefix("language_model.model."): x for name, x in tensors.items()}
    renamed = {}
    for name, tensor in plain.items():
        text = name.removeprefix("language_model.")
        text = f"language_model.model.{text}" if older else f"model.language_model.{text}"
        is_text = not name.startswith(("vision_tower", "multi_modal_projector"))
        renamed[text if is_text else name if older else f"model.{name}"] = tensor
    save_file(renamed, folder / "model.safetensors", metadata={"format": "pt"})
    return model


@pytest.mark.reference
@pytest.mark.parametrize("older", [True, False])
def test_text_part_of_gemma3(older, tmp_path):
    import torch
    import transformers

    reference = gemma3(tmp_path / "whole", older)
    model = tasks.CausalLM.from_pretrained(tmp_path / "whole")
    assert model.backbone.config.family == "gemma3_text" and model.backbone.config.heads.tied
    ids = np.random.default_rng(0).integers(5, 96, (2, 10)).astype("int32")
    inputs = {"token_ids": ids, "padding_mask": np.ones_like(ids)}
    with torch.no_grad():
        wanted = reference(input_ids=torch.tensor(ids, dtype=torch.long)).logits.numpy()
    np.testing.assert_allclose(model(inputs), wanted, atol=1e-5 * np.abs(wanted).max())
    saved = model.save_pretrained(tmp_path / "text")
    opened, loading = transformers.AutoModelForCausalLM.from_pretrained(saved, output_loading_info=True)
    assert type(opened).__name__ == "Gemma3ForCausalLM" and not any(loading.values()), loading
    with torch.no_grad():
        again = opened(input_ids=torch.tensor(ids, dtype=torch.long)).logits.numpy()
    np.testing.assert_allclose(again, wanted, atol=1e-5 * np.abs(wanted).max())


def test_a_whole_model_without_its_text_part_is_refused(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gemma3"}))
    (tmp_path / "model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    with pytest.raises(checkpoints.CheckpointError, match=r"'gemma3' has no text_config"):
        tfxformer.from_pretrained(tmp_path)


def test_text_part_of_qwen3_5(tmp_path, tiny_tokenizer):
    """As the released folder has it: the text model inside, beside what sees images and what drafts tokens."""
    import make_fixtures

    from tfxformer.checkpoints.files import safetensors

    alone = make_fixtures.FOLDER / "qwen3_5-lm"
    tensors = {}
    for name, array in safetensors.open_folder(alone).items():
        tensors[name.replace("model.", "model.language_model.", 1)] = np.array(array)
    tensors |= {
        "model.visual.patch_embed.proj.weight": np.ones((2, 2), "float32"),
        "mtp.fc.weight": np.ones(2, "float32"),
    }
    text = json.loads((alone / "config.json").read_text())
    text["rope_parameters"] |= {"mrope_section": [1, 1, 0], "mrope_interleaved": True}
    whole = {"model_type": "qwen3_5", "architectures": ["Qwen3_5ForConditionalGeneration"], "text_config": text}
    folder = tmp_path / "whole"
    folder.mkdir()
    safetensors.write_folder(folder, tensors, 10**9)
    (folder / "config.json").write_text(json.dumps(whole))
    inside, stored = (tasks.CausalLM.from_pretrained(one, tokenizer=tiny_tokenizer) for one in (folder, alone))
    inputs = make_fixtures.make_inputs(make_fixtures.CASES["qwen3_5-lm"])
    np.testing.assert_array_equal(np.asarray(inside(inputs)), np.asarray(stored(inputs)))
    assert inside.backbone.config.family == "qwen3_5_text"
