"""Phi 1, 1.5 and 2 (Gunasekar et al., 2023, arXiv:2306.11644): one norm for both halves of a block."""

from tfxformer.checkpoints.families.decoders.shared import (
    BIASED_HEAD,
    CAUSAL,
    HEADS_KEYS,
    PRE_NORM,
    groups_rule,
    padding_rule,
)
from tfxformer.checkpoints.family import Blocks, Family, Head, Key
from tfxformer.checkpoints.rope import rope_rule


def block(config, index: int) -> str:
    """The reference's module of a block."""
    return f"layers.{index}"


BLOCK = {
    "self_attention/query": "self_attn.q_proj",
    "self_attention/key": "self_attn.k_proj",
    "self_attention/value": "self_attn.v_proj",
    "self_attention/output": "self_attn.dense",
    "attention_norm": "input_layernorm",
    "feed_forward/expand": "mlp.fc1",
    "feed_forward/output": "mlp.fc2",
}

FAMILY = Family(
    name="phi",
    prefix="model.",
    architecture="PhiModel",
    keys={
        **HEADS_KEYS,
        "vocabulary_size": Key("vocab_size", 51200),
        "initializer_range": Key("initializer_range", 0.02),
        "decoder.num_layers": Key("num_hidden_layers", 24),
        "decoder.hidden_size": Key("hidden_size", 2048),
        "decoder.attention.heads": Key("num_attention_heads", 32),
        "decoder.feed_forward.size": Key("intermediate_size", 8192),
        "decoder.feed_forward.activation": Key("hidden_act", "gelu_new"),
        "decoder.norm.epsilon": Key("layer_norm_eps", 1e-5),
        "decoder.max_positions": Key("max_position_embeddings", 2048),
        "decoder.dropout": Key("resid_pdrop", 0.0),
        "decoder.attention_dropout": Key("attention_dropout", 0.0),
        "decoder.embedding_dropout": Key("embd_pdrop", 0.0),
        "heads.tied": Key("tie_word_embeddings", False),
    },
    fixed={**PRE_NORM, "decoder.norm.placement": "shared", "heads.logits_bias": True},
    rules=(
        groups_rule(None),
        rope_rule(2048, fraction="partial_rotary_factor", default_fraction=0.5),
        padding_rule(eos=2),
        CAUSAL,
    ),
    required={"qk_layernorm": (False, None)},
    modules={"token_embedding": "embed_tokens", "final_norm": "final_layernorm"},
    blocks={"decoder": Blocks(block, BLOCK)},
    heads={
        "causal-lm": Head("PhiForCausalLM", BIASED_HEAD),
        "text-classification": Head("PhiForSequenceClassification", {"classifier/output": "score"}),
        "token-classification": Head("PhiForTokenClassification", {"token_classifier/output": "score"}),
    },
)
