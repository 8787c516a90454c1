"""Encoders' pages: older spellings of config.json, and what they refuse."""

import json

import make_fixtures
import numpy as np
import pytest

import tfxformer
from tfxformer import checkpoints, tasks
from tfxformer.checkpoints import CheckpointError
from tfxformer.checkpoints.families import family_of
from tfxformer.layers import Rotary
from tfxformer.layers.attention.rotary import inverse_frequencies

NOMIC = {  # as the published folders say it
    "n_embd": 48, "n_head": 4, "n_layer": 3, "n_inner": 96, "n_positions": 64, "layer_norm_epsilon": 1e-5,
    "rotary_emb_base": 500, "rotary_emb_fraction": 1.0, "activation_function": "swiglu", "prenorm": False,
    "qkv_proj_bias": False, "mlp_fc1_bias": False, "mlp_fc2_bias": False, "vocab_size": 96, "type_vocab_size": 2,
    "rotary_emb_interleaved": False, "rotary_emb_scale_base": None, "rotary_scaling_factor": None,
}  # fmt: skip


def test_nomic_in_the_words_of_its_published_folders():
    page = family_of("nomic_bert")
    config = page.read_config(NOMIC)
    today = {
        "hidden_size": 48, "num_attention_heads": 4, "num_hidden_layers": 3, "intermediate_size": 96,
        "max_position_embeddings": 64, "layer_norm_eps": 1e-5, "vocab_size": 96, "type_vocab_size": 2,
        "rope_parameters": {"rope_type": "default", "rope_theta": 500},
    }  # fmt: skip
    assert config == page.read_config(today)
    assert config.encoder.attention_of(0).rotary == Rotary(500)
    written = page.write_config(config, NOMIC)
    assert {key: written[key] for key in NOMIC} == NOMIC


@pytest.mark.parametrize(
    ("family", "key", "value"),
    [
        ("nomic_bert", "prenorm", True),
        ("nomic_bert", "activation_function", "gelu"),
        ("nomic_bert", "qkv_proj_bias", True),
        ("nomic_bert", "rotary_emb_fraction", 0.5),
        ("nomic_bert", "rotary_scaling_factor", 2.0),
        ("gte", "rope_scaling", {"type": "ntk", "factor": 8.0}),
        ("new", "rope_scaling", {"type": "dynamic", "factor": 2.0}),
        ("new", "mixed_b", 0.5),
        ("new", "pack_qkv", False),
        ("new", "logn_attention_scale", True),
        ("new", "layer_norm_type", "rms_norm"),
        ("new", "position_embedding_type", "absolute"),
        ("mpnet", "pad_token_id", 0),
        ("mpnet", "relative_attention_num_buckets", 64),
        ("deberta-v2", "conv_kernel_size", 4),
        ("deberta-v2", "pos_att_type", "p2c|p2p"),
        ("deberta-v2", "embedding_size", 16),
        ("deberta", "share_att_key", True),
        ("deberta", "talking_head", True),
        ("mobilebert", "use_bottleneck_attention", True),
        ("mobilebert", "key_query_shared_bottleneck", False),
        ("mobilebert", "normalization_type", "layer_norm"),
        ("mobilebert", "use_bottleneck", False),
        ("xlnet", "attn_type", "uni"),
        ("xlnet", "clamp_len", 400),
        ("xlnet", "summary_type", "mean"),
        ("xlnet", "bi_data", True),
        ("eurobert", "classifier_pooling", "last"),
        ("modernbert", "decoder_bias", False),
        ("modernbert", "local_rope_theta", None),
        ("modernbert", "layer_types", ["full_attention"]),
        ("modernbert", "classifier_pooling", "last"),
    ],
)
def test_what_is_not_implemented_is_refused_by_its_key(family, key, value):
    page = family_of(family)
    page.read_config({})
    message = f"rope_type='{value['type']}'" if key == "rope_scaling" else key
    said = {"rope_scaling": {"type": "ntk", "factor": 2.0, key: value}} if key == "mixed_b" else {key: value}
    with pytest.raises(CheckpointError, match=message):
        page.read_config(said)


# ---- GTE in the words of the code that it was published with -----------------------------------------------


@pytest.mark.reference
@pytest.mark.parametrize(
    ("name", "task"),
    [
        ("gte-published", None),
        ("gte-published-masked-lm", tasks.MaskedLM),
        ("gte-published-classifier", tasks.TextClassifier),
        ("gte-published-tagger", tasks.TokenClassifier),
    ],
)
def test_gte_is_saved_in_its_published_words(name, task, tmp_path, tiny_tokenizer):
    folder, _, _ = make_fixtures.make(name, tmp_path / "published")
    if task is None:
        model = tfxformer.from_pretrained(folder)
        said = model.reference_config
        saved = checkpoints.save_pretrained(tmp_path / "saved", model, model.config, reference_config=said)
    else:
        saved = task.from_pretrained(folder, tokenizer=tiny_tokenizer).save_pretrained(tmp_path / "saved")
    before, after = (checkpoints.files.safetensors.open_folder(path) for path in (folder, saved))
    assert set(before) == set(after)
    assert all(np.array_equal(before[tensor], after[tensor]) for tensor in before)
    config, written = (json.loads((path / "config.json").read_text()) for path in (folder, saved))
    kept = [key for key in config if key != "classifier_dropout"]
    assert {key: written[key] for key in kept} == {key: config[key] for key in kept}


@pytest.mark.reference
def test_gte_answers_by_the_head_of_its_published_code(tmp_path, tiny_tokenizer):
    """A Dense on the last hidden states, which transformers' own classes of GTE do not have."""
    folder, inputs, results = make_fixtures.make("gte-published", tmp_path)
    tensors = dict(checkpoints.files.safetensors.open_folder(folder).items())
    tensors = {f"new.{name}": np.array(tensor) for name, tensor in tensors.items() if "pooler" not in name}
    generator = np.random.default_rng(0)
    weight, bias = (generator.normal(size=shape).astype("float32") for shape in ((2, 24), (2,)))
    tensors |= {"qa_outputs.weight": weight, "qa_outputs.bias": bias}
    checkpoints.files.safetensors.write_folder(folder, tensors)
    model = tasks.QuestionAnswering.from_pretrained(folder, tokenizer=tiny_tokenizer)
    valid = inputs["padding_mask"] == 1
    wanted = results["hidden_states"][-1] @ weight.T + bias
    np.testing.assert_allclose(np.asarray(model(inputs))[valid], wanted[valid], atol=1e-5)


def test_fixed_ntk_is_a_larger_base_and_positions_that_are_nearer():
    frequencies = inverse_frequencies(Rotary(160000.0, kind="ntk", factor=8.0), 64)
    wanted = (160000.0 * 8.0) ** (-np.arange(0, 64, 2) / 64) / 8.0 ** (2 / 64)
    np.testing.assert_allclose(frequencies, wanted, rtol=1e-6)
    assert frequencies[-1] == pytest.approx(160000.0 ** (-62 / 64) / 8.0, rel=1e-6)  # the slowest: as if linear
    page = family_of("new")
    config = page.read_config({"rope_theta": 500000, "rope_scaling": {"factor": 2.0, "type": "ntk"}})
    assert config.encoder.attention_of(0).rotary == Rotary(500000, kind="ntk", factor=2.0)
    with pytest.raises(CheckpointError, match="rope_type='ntk'"):  # which transformers has not
        family_of("gte").write_config(config.replace(family="gte"))
