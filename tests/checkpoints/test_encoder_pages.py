"""Encoders' pages: older spellings of config.json, and what they refuse."""

import pytest

from tfxformer.checkpoints import CheckpointError
from tfxformer.checkpoints.families import family_of
from tfxformer.layers import Rotary

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
        ("mpnet", "pad_token_id", 0),
        ("mpnet", "relative_attention_num_buckets", 64),
        ("deberta-v2", "conv_kernel_size", 3),
        ("deberta-v2", "legacy", False),
        ("deberta-v2", "pos_att_type", "p2c|p2p"),
        ("deberta-v2", "embedding_size", 16),
        ("deberta", "share_att_key", True),
        ("deberta", "talking_head", True),
        ("modernbert", "decoder_bias", False),
        ("modernbert", "local_rope_theta", None),
        ("modernbert", "layer_types", ["full_attention"]),
        ("modernbert", "classifier_pooling", "last"),
    ],
)
def test_what_is_not_implemented_is_refused_by_its_key(family, key, value):
    page = family_of(family)
    page.read_config({})
    with pytest.raises(CheckpointError, match=key if key != "rope_scaling" else "rope_type='ntk'"):
        page.read_config({key: value})
