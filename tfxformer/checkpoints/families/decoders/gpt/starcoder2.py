"""StarCoder2 (Lozhkov et al., 2024, arXiv:2402.19173): grouped heads, windows, and biases everywhere."""

from collections.abc import Mapping

from tfxformer.checkpoints.families.decoders.llama.llama import heads
from tfxformer.checkpoints.families.decoders.shared import CAUSAL, HEADS_KEYS, PRE_NORM, groups_rule, padding_rule
from tfxformer.checkpoints.family import Blocks, Family, Key, Rule
from tfxformer.checkpoints.rope import rope_rule


def _read_window(reference: Mapping) -> dict:
    return {"decoder.attention.window": reference.get("sliding_window")}


def _write_window(config) -> dict:
    return {"sliding_window": config.decoder.attention_of(0).window}


def block(config, index: int) -> str:
    """The reference's module of a block."""
    return f"layers.{index}"


BLOCK = {
    "self_attention/query": "self_attn.q_proj",
    "self_attention/key": "self_attn.k_proj",
    "self_attention/value": "self_attn.v_proj",
    "self_attention/output": "self_attn.o_proj",
    "attention_norm": "input_layernorm",
    "feed_forward/expand": "mlp.c_fc",
    "feed_forward/output": "mlp.c_proj",
    "feed_forward_norm": "post_attention_layernorm",
}

FAMILY = Family(
    name="starcoder2",
    prefix="model.",
    architecture="Starcoder2Model",
    keys={
        **HEADS_KEYS,
        "vocabulary_size": Key("vocab_size", 49152),
        "initializer_range": Key("initializer_range", 0.018042),
        "decoder.num_layers": Key("num_hidden_layers", 30),
        "decoder.hidden_size": Key("hidden_size", 3072),
        "decoder.attention.heads": Key("num_attention_heads", 24),
        "decoder.feed_forward.size": Key("intermediate_size", 12288),
        "decoder.feed_forward.activation": Key("hidden_act", "gelu_pytorch_tanh"),
        "decoder.norm.epsilon": Key("norm_epsilon", 1e-5),
        "decoder.max_positions": Key("max_position_embeddings", 4096),
        "decoder.dropout": Key("residual_dropout", 0.0),
        "decoder.attention_dropout": Key("attention_dropout", 0.0),
        "decoder.embedding_dropout": Key("embedding_dropout", 0.0),
        "decoder.attention.bias": Key("use_bias", True),
        "decoder.feed_forward.bias": Key("use_bias", True),
        "heads.tied": Key("tie_word_embeddings", True),
    },
    fixed=PRE_NORM,
    rules=(
        groups_rule(2),
        rope_rule(4096),
        padding_rule(),  # what transformers says for absent keys is beyond its own vocabulary
        CAUSAL,
        Rule(("sliding_window",), _read_window, _write_window),
    ),
    modules={"token_embedding": "embed_tokens", "final_norm": "norm"},
    blocks={"decoder": Blocks(block, BLOCK)},
    heads=heads("Starcoder2"),
    other_heads=("qa_outputs",),
)
