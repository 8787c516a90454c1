"""Decoder checkpoints that do not fit, and heads: whose table, whose weights, and what is said of it."""

import json
import shutil
import warnings

import make_fixtures
import numpy as np
import pytest
import tiny
from checkpoint_folders import change, configure

import tfxformer
from tfxformer import models, tasks
from tfxformer.checkpoints import CheckpointError
from tfxformer.checkpoints.families import family_of
from tfxformer.checkpoints.files import safetensors
from tfxformer.layers.attention.rotary import Rotary


@pytest.fixture
def copy(tmp_path):
    return lambda name: shutil.copytree(make_fixtures.FOLDER / name, tmp_path / name)


def silently(read, *arguments, **named):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return read(*arguments, **named)


QKV = "transformer.h.1.attn.c_attn.weight"
TABLE = "model.embed_tokens.weight"


def test_missing_fused_tensor_is_named_once(copy):
    folder = copy("gpt2-lm")
    change(folder, lambda tensors: tensors.pop(QKV))
    with pytest.raises(CheckpointError, match=r"lacks 1 tensors of its 'gpt2' model: h\.1\.attn\.c_attn\.weight\."):
        tfxformer.from_pretrained(folder)


def test_fused_tensor_of_torchs_layout(copy):
    """GPT-2's is [in, out]; one that someone transposed is refused, not read crosswise."""
    folder = copy("gpt2-lm")
    change(folder, lambda tensors: tensors.update({QKV: np.ascontiguousarray(tensors[QKV].T)}))
    with pytest.raises(CheckpointError, match=r"shape \[72, 24\], the model wants \[24, 72\]"):
        tfxformer.from_pretrained(folder)


def test_gpt2_junk_is_passed_over_and_biases_are_not(copy):
    folder = copy("gpt2-lm")
    before = tiny.weights(tfxformer.from_pretrained(folder))
    buffers = {"h.0.attn.bias": np.ones((1, 1, 4, 4), bool), "h.0.attn.masked_bias": np.array(-1e9, "float32")}
    change(folder, lambda tensors: tensors.update({f"transformer.{name}": x for name, x in buffers.items()}))
    after = tiny.weights(silently(tfxformer.from_pretrained, folder))
    assert all((after[path] == before[path]).all() for path in before)
    change(folder, lambda tensors: tensors.pop("transformer.h.0.attn.c_attn.bias"))
    with pytest.raises(CheckpointError, match=r"lacks 1 tensors.*h\.0\.attn\.c_attn\.bias"):
        tfxformer.from_pretrained(folder)


def test_gpt2_embedding_dropout_that_follows_dropout_is_written_as_its_rate():
    """Null would be refused by the reference."""
    config = models.preset("gpt2").replace(decoder__embedding_dropout=None, decoder__dropout=0.3)
    written = family_of("gpt2").write_config(config)
    assert (written["embd_pdrop"], written["resid_pdrop"]) == (0.3, 0.3)


def head(tensors, factor=1.0):
    return {"lm_head.weight": tensors[TABLE] * np.float32(factor)}


def test_head_that_is_the_table(copy, tiny_tokenizer):
    folder = copy("llama-lm")
    change(folder, lambda tensors: tensors.update(head(tensors)))
    model = silently(tasks.CausalLM.from_pretrained, folder, tokenizer=tiny_tokenizer)
    assert model.backbone.config.heads.tied and not model.heads
    assert silently(tfxformer.from_pretrained, folder).config.heads.tied  # and no word of a head


def test_head_that_differs_counts_whatever_the_config_says(copy, tiny_tokenizer, tmp_path):
    folder = copy("llama-lm")
    change(folder, lambda tensors: tensors.update(head(tensors, 2.0)))
    model = silently(tasks.CausalLM.from_pretrained, folder, tokenizer=tiny_tokenizer)
    weights = tiny.weights(model)
    np.testing.assert_array_equal(weights["language_model_head/kernel"], 2 * weights["token_embedding/embeddings"].T)
    saved = model.save_pretrained(tmp_path / "saved")
    assert json.loads((saved / "config.json").read_text())["tie_word_embeddings"] is False
    assert "lm_head.weight" in safetensors.open_folder(saved)
    with pytest.warns(UserWarning, match="in the file, but not used: lm_head"):
        tfxformer.from_pretrained(folder)


def test_equal_head_of_an_untied_model_stays_its_own(copy, tiny_tokenizer):
    folder = copy("llama-lm")
    configure(folder, tie_word_embeddings=False)
    change(folder, lambda tensors: tensors.update(head(tensors)))
    assert "head" in tasks.CausalLM.from_pretrained(folder, tokenizer=tiny_tokenizer).heads


@pytest.mark.parametrize(("name", "tensor"), [("llama-lm", "lm_head.weight"), ("neox-lm", "embed_out.weight")])
def test_own_head_that_is_absent(name, tensor, copy, tiny_tokenizer):
    folder = copy(name)
    configure(folder, tie_word_embeddings=False)
    change(folder, lambda tensors: tensors.pop(tensor, None))
    with pytest.raises(CheckpointError, match=rf"no {tensor}.*tie_word_embeddings is false.*useless"):
        tasks.CausalLM.from_pretrained(folder, tokenizer=tiny_tokenizer)
    backbone = silently(tfxformer.from_pretrained, folder)
    assert "head" in tasks.CausalLM(backbone).heads  # the way out


def test_neox_head_under_its_other_name(copy, tiny_tokenizer):
    folder = copy("neox-lm")
    wanted = np.array(safetensors.open_folder(folder)["embed_out.weight"])
    change(folder, lambda tensors: tensors.update({"lm_head.weight": tensors.pop("embed_out.weight")}))
    model = silently(tasks.CausalLM.from_pretrained, folder, tokenizer=tiny_tokenizer)
    np.testing.assert_array_equal(tiny.weights(model)["language_model_head/kernel"], wanted.T)
    assert "embed_out.weight" in safetensors.open_folder(model.save_pretrained(folder))


def test_new_classifier_on_a_language_model(copy, tiny_tokenizer, tmp_path):
    with pytest.warns(UserWarning, match="new, with random weights: classifier") as caught:
        model = tasks.TextClassifier.from_pretrained(copy("gpt2-lm"), labels=["a", "b"], tokenizer=tiny_tokenizer)
    assert not any("not used" in str(warning.message) for warning in caught)
    assert "classifier/output/bias" not in tiny.weights(model)
    written = json.loads((model.save_pretrained(tmp_path / "saved") / "config.json").read_text())
    assert written["pad_token_id"] == 0 and written["architectures"] == ["GPT2ForSequenceClassification"]


def test_head_of_words_is_not_read_as_one_of_texts(copy, tiny_tokenizer):
    """Llama names both `score`, and one has a bias."""
    folder = copy("llama-lm")
    score = {"score.weight": np.ones((2, 24), "float32"), "score.bias": np.ones(2, "float32")}
    change(folder, lambda tensors: tensors.update(score))
    configure(folder, architectures=["LlamaForTokenClassification"])
    with pytest.raises(CheckpointError, match=r"no place for: score\.bias"):
        tasks.TextClassifier.from_pretrained(folder, labels=["a", "b"], tokenizer=tiny_tokenizer)
    tasks.TokenClassifier.from_pretrained(folder, labels=["LABEL_0", "LABEL_1"], tokenizer=tiny_tokenizer)
    change(folder, lambda tensors: tensors.pop("score.bias"))
    with pytest.raises(CheckpointError, match=r"only a part of the head 'token_classifier'; missing: score\.bias"):
        tasks.TokenClassifier.from_pretrained(folder, labels=["a", "b"], tokenizer=tiny_tokenizer)


LONG = {"short_factor": [1.0, 2.0], "long_factor": [3, 4]}
LINEAR = {"rope_theta": 10.0, "rope_type": "linear", "factor": 2.0}


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("gpt2-lm", {"add_cross_attention": True}, "add_cross_attention=True"),
        ("gpt2-lm", {"hidden_size": 32}, r"contradicts itself.*'n_embd': 24, 'hidden_size': 32"),
        ("gpt2-lm", {"activation_function": "gleu"}, "Unknown activation 'gleu'"),
        ("gpt2-lm", {"n_inner": 40}, r"\[24, 96\], the model wants \[24, 40\]"),
        ("bloom-lm", {"apply_residual_connection_post_layernorm": True}, "post_layernorm=True"),
        ("opt-post-norm-projected", {"layer_norm_elementwise_affine": False}, "elementwise_affine=False"),
        ("opt-post-norm-projected", {"word_embed_proj_dim": 24}, r"\[96, 16\], the model wants \[96, 24\]"),
        ("opt-post-norm-projected", {"enable_bias": False}, "no place for"),
        ("neox-lm", {"use_parallel_residual": "maybe", "num_attention_heads": 5}, "must be a multiple of heads"),
        ("neox-lm", {"rotary_pct": 0.1, "rope_parameters": "absent"}, "cannot turn in pairs"),
        ("llama-lm", {"rope_parameters": {"rope_type": "longrope", **LONG}}, "lack factor, original_max_position"),
        ("llama-lm", {"rope_parameters": {"rope_type": "proportional", "factor": 2.0}}, "rope_type='proportional'"),
        ("llama-lm", {"rope_scaling": {"type": "su"}}, "rope_type='su'; tfxformer implements default, linear"),
        ("llama-lm", {"rope_parameters": {**LINEAR, "mscale": 2.0}}, "'linear' the keys mscale"),
        ("llama-lm", {"rope_parameters": {"rope_type": "linear"}}, "'linear' lack factor"),
        ("llama-lm", {"rope_parameters": {"rope_type": "llama3", "factor": 2.0}}, "lack low_freq_factor, high_freq"),
        ("llama-lm", {"rope_parameters": {**LINEAR, "rope_type": "yarn", "truncate": False}}, "truncate=false"),
        (
            "llama-lm",
            {"rope_parameters": {**LINEAR, "rope_type": "dynamic", "original_max_position_embeddings": 20}},
            "original_max_position_embeddings=20 .* beside max_position_embeddings=40",
        ),
        ("llama-lm", {"rope_parameters": "absent", "rope_scaling": "linear"}, "does not describe"),
        ("llama-lm", {"rope_parameters": {"full_attention": {"rope_type": "default"}}}, "the keys full_attention"),
        ("llama-lm", {"partial_rotary_factor": 0.5}, "partial_rotary_factor=0.5; this family turns whole heads"),
        ("llama-lm", {"rope_parameters": {**LINEAR, "factor": 0.5}}, "factor must be at least 1"),
        ("llama-lm", {"layer_types": ["full_attention"] * 2}, "layer_types="),
        ("llama-lm", {"token_classification_bias": False}, "token_classification_bias=False"),
        ("llama-lm", {"num_key_value_heads": 4}, "must be a multiple of key_value_heads"),
        ("llama-lm", {"pad_token_id": 96}, "padding_id"),
        ("qwen2-window", {"layer_types": ["full_attention"]}, "for 2 layers"),
        ("phi-lm", {"qk_layernorm": True}, "qk_layernorm=True"),
        ("gpt-neo-lm", {"attention_types": [[["global", "local"], 2]]}, "for 2 layers; tfxformer wants"),
        ("gpt-neo-lm", {"attention_types": [[["global"], 10**12]]}, "for 2 layers; tfxformer wants"),
        ("gpt-neo-lm", {"attention_types": [["global", "local"]]}, "attention_types=.*; tfxformer wants"),
        ("gpt-neo-lm", {"attention_types": [[["global", "odd"], 1]]}, "'global' or 'local'"),
        ("codegen-lm", {"rotary_dim": None}, "rotary_dim=None; wanted a number of a head's 4 channels"),
        ("codegen-lm", {"rotary_dim": 6}, "rotary_dim=6; wanted a number of a head's 4 channels"),
        ("codegen-lm", {"n_head": 0}, "n_head=0; wanted numbers above 0"),
        ("falcon-7b", {"num_ln_in_parallel_attn": 2}, "num_ln_in_parallel_attn=2: blocks that no Falcon has"),
        ("falcon-7b", {"new_decoder_architecture": True, "parallel_attn": False}, "parallel_attn=False"),
        ("falcon-7b", {"alibi": True, "num_attention_heads": 0}, "num_attention_heads=0; wanted"),
        ("qwen2-window", {"layer_types": ["full_attention", "chunked_attention"]}, "chunked_attention"),
        ("qwen2-window", {"use_sliding_window": False}, "sliding_window=None"),
    ],
)
def test_config_that_does_not_fit(name, changes, message, copy):
    folder = copy(name)
    configure(folder, **changes)
    with pytest.raises(CheckpointError, match=message), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tfxformer.from_pretrained(folder)


SIZES = {"num_attention_heads": 32, "hidden_size": 512, "num_hidden_layers": 4, "vocab_size": 50}


def read(family, **values):
    return family_of(family).read_config({**SIZES, **values})


@pytest.mark.parametrize(
    ("family", "values", "wanted"),
    [
        ("llama", {}, Rotary()),
        ("llama", {"rope_theta": 5.0}, Rotary(5.0)),
        ("llama", {"rope_theta": 5.0, "rope_scaling": None}, Rotary(5.0)),
        ("llama", {"rope_parameters": {"rope_theta": 5.0, "rope_type": "default"}}, Rotary(5.0)),
        ("llama", {"rope_scaling": {"type": "linear", "factor": 2.0}}, Rotary(kind="linear", factor=2.0)),
        (
            "llama",
            {"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}, "max_position_embeddings": 64},
            Rotary(kind="dynamic", factor=2.0, original_max_positions=64),
        ),
        (
            "qwen2",
            {"rope_theta": 7.0, "rope_scaling": {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 9}},
            Rotary(7.0, kind="yarn", factor=4.0, original_max_positions=9),
        ),
        (
            "phi3",
            {
                "rope_scaling": {"type": "su", **LONG},
                "original_max_position_embeddings": 8,
                "max_position_embeddings": 40,
                "head_dim": 4,
                "pad_token_id": 0,
            },
            Rotary(kind="longrope", factor=5.0, original_max_positions=8, short_factors=(1, 2), long_factors=(3, 4)),
        ),
        ("phi", {"partial_rotary_factor": 0.75}, Rotary(fraction=0.75)),
        ("stablelm", {}, Rotary(fraction=0.25)),
        ("gpt_neox", {}, Rotary(fraction=0.25)),
        ("gpt_neox", {"rotary_pct": 1.0, "rotary_emb_base": 8.0}, Rotary(8.0)),
        ("gpt_neox", {"rope_parameters": {"rope_theta": 8.0, "partial_rotary_factor": 0.5}}, Rotary(8.0, 0.5)),
    ],
)
def test_spellings_of_rotary_positions(family, values, wanted):
    config = read(family, **values)
    assert config.decoder.attention_of(0).rotary == wanted
    written = family_of(family).write_config(config)
    assert "rope_parameters" in written and "rope_scaling" not in written
    assert family_of(family).read_config(written) == config


@pytest.mark.parametrize(
    ("family", "values", "window", "layers"),
    [
        ("mistral", {}, 4096, None),
        ("mistral", {"sliding_window": None}, None, None),
        ("mistral", {"sliding_window": 8}, 8, None),
        ("starcoder2", {}, None, None),
        ("starcoder2", {"sliding_window": 8}, 8, None),
        ("gpt_neo", {"num_layers": 4, "attention_types": [[["global", "local"], 2]]}, 256, (0, 1, 0, 1)),
        ("qwen2", {"sliding_window": 8}, None, None),
        ("qwen2", {"sliding_window": 8, "use_sliding_window": True, "max_window_layers": 4}, None, None),
        ("qwen2", {"sliding_window": 8, "use_sliding_window": True, "max_window_layers": 0}, 8, None),
        ("qwen2", {"sliding_window": 8, "use_sliding_window": True, "max_window_layers": 3}, 8, (0, 0, 0, 1)),
    ],
)
def test_windows(family, values, window, layers):
    stack = read(family, **values).decoder
    windows = tuple(stack.attention_of(layer).window for layer in range(stack.num_layers))
    assert windows == tuple(window if one else None for one in layers or (1,) * stack.num_layers)


@pytest.mark.parametrize(
    ("family", "values", "wanted"),
    [
        ("llama", {"pad_token_id": 3, "eos_token_id": 4}, 3),
        ("llama", {"pad_token_id": None, "eos_token_id": 4}, 4),
        ("llama", {"pad_token_id": -1, "eos_token_id": [5, 6]}, 5),
        ("llama", {}, 2),
        ("gpt2", {}, 0),  # its own 50256 is not of this vocabulary
        ("opt", {}, 1),
        ("qwen2", {}, 0),
    ],
)
def test_padding_token(family, values, wanted):
    assert read(family, **values).padding_id == wanted


@pytest.mark.parametrize("width", [45, 47, 49, 64, 96, 256])
def test_any_number_of_channels_turns(width):
    """As a share of a head's width it would be rounded down to one less: 44 of 45."""
    for turning in range(2, width + 1, 2):
        config = family_of("gptj").read_config({"n_embd": 2 * width, "n_head": 2, "rotary_dim": turning})
        assert config.decoder.attention_of(0).rotary.width(width) == turning
        assert family_of("gptj").write_config(config)["rotary_dim"] == turning


def test_null_and_absent_are_two_things():
    assert read("mistral").decoder.key_value_heads == 8
    assert read("mistral", num_key_value_heads=None).decoder.key_value_heads == 32
    assert read("gpt2", n_inner=None).decoder.feed_forward.size == 2048


def test_words_of_an_older_config_stay(copy, tiny_tokenizer, tmp_path):
    """What says the same is left as it is; what changed is written anew, and the old words go."""
    folder = copy("llama-llama3")
    parameters = json.loads((folder / "config.json").read_text())["rope_parameters"]
    old = {"rope_theta": parameters.pop("rope_theta"), "rope_scaling": parameters}
    configure(folder, rope_parameters="absent", **old)
    model = tasks.CausalLM.from_pretrained(folder, tokenizer=tiny_tokenizer)
    written = json.loads((model.save_pretrained(tmp_path / "same") / "config.json").read_text())
    assert {key: written[key] for key in old} == old and "rope_parameters" not in written
    config = model.backbone.config.replace(decoder__attention__rotary=Rotary(7.0))
    changed = family_of("llama").write_config(config, model.backbone.reference_config)
    assert changed["rope_parameters"] == {"rope_type": "default", "rope_theta": 7.0}
    assert not old.keys() & changed.keys()
