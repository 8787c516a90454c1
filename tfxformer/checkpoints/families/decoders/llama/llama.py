"""Llama (Touvron et al., 2023, arXiv:2302.13971), with it SmolLM2 and TinyLlama; Mistral (arXiv:2310.06825)."""

from collections.abc import Mapping
from dataclasses import replace

from tfxformer.checkpoints.families.decoders.shared import CAUSAL, HEADS_KEYS, PRE_NORM, padding_rule
from tfxformer.checkpoints.family import Blocks, Family, Head, Key, Rule
from tfxformer.checkpoints.rope import rope_rule


def heads_rule(groups: int | None, width: int | None = None, heads: int = 32, size: int = 4096) -> Rule:
    """The rule of grouped heads.

    Args:
        groups: what an absent `num_key_value_heads` means; null is one for each head.
        width: what an absent `head_dim` means; None for D / N.
        heads, size: what absent `num_attention_heads` and `hidden_size` mean.
    """

    def read(reference: Mapping) -> dict:
        count, stream = reference.get("num_attention_heads") or heads, reference.get("hidden_size") or size
        key_value_heads, own = reference.get("num_key_value_heads", groups), reference.get("head_dim") or width
        return {
            "decoder.attention.key_value_heads": None if key_value_heads == count else key_value_heads,
            "decoder.attention.width": None if own is not None and own * count == stream else own,
        }

    def write(config) -> dict:
        return {"num_key_value_heads": config.decoder.key_value_heads, "head_dim": config.decoder.head_width}

    return Rule(("num_key_value_heads", "head_dim"), read, write)


KEYS = {
    **HEADS_KEYS,
    "vocabulary_size": Key("vocab_size", 32000),
    "initializer_range": Key("initializer_range", 0.02),
    "decoder.num_layers": Key("num_hidden_layers", 32),
    "decoder.hidden_size": Key("hidden_size", 4096),
    "decoder.attention.heads": Key("num_attention_heads", 32),
    "decoder.feed_forward.size": Key("intermediate_size", 11008),
    "decoder.feed_forward.activation": Key("hidden_act", "silu"),
    "decoder.norm.epsilon": Key("rms_norm_eps", 1e-6),
    "decoder.max_positions": Key("max_position_embeddings", 2048),
    "decoder.attention_dropout": Key("attention_dropout", 0.0),
    "decoder.attention.bias": Key("attention_bias", False),
    "decoder.feed_forward.bias": Key("mlp_bias", False),
    "heads.tied": Key("tie_word_embeddings", False),
}

FIXED = {
    **PRE_NORM,
    "decoder.norm.kind": "rms",
    "decoder.feed_forward.gated": True,
    "decoder.dropout": 0.0,
}

BLOCK = {
    "self_attention/query": "self_attn.q_proj",
    "self_attention/key": "self_attn.k_proj",
    "self_attention/value": "self_attn.v_proj",
    "self_attention/output": "self_attn.o_proj",
    "attention_norm": "input_layernorm",
    "feed_forward/gate": "mlp.gate_proj",
    "feed_forward/expand": "mlp.up_proj",
    "feed_forward/output": "mlp.down_proj",
    "feed_forward_norm": "post_attention_layernorm",
}

QUERY_KEY_NORMS = {
    "self_attention/query_norm": "self_attn.q_norm",
    "self_attention/key_norm": "self_attn.k_norm",
}

REQUIRED = {
    "token_classification_bias": (True, None),
    "layer_types": (None,),
}


def heads(name: str) -> dict[str, Head]:
    """The heads of a family whose classes begin with `name`."""
    return {
        "causal-lm": Head(f"{name}ForCausalLM", {"language_model_head": "lm_head"}),
        "text-classification": Head(f"{name}ForSequenceClassification", {"classifier/output": "score"}),
        "token-classification": Head(f"{name}ForTokenClassification", {"token_classifier/output": "score"}),
    }


def block(config, index: int) -> str:
    """The reference's module of a block."""
    return f"layers.{index}"


FAMILY = Family(
    name="llama",
    prefix="model.",
    architecture="LlamaModel",
    keys=KEYS,
    fixed=FIXED,
    rules=(heads_rule(None), rope_rule(2048), padding_rule(eos=2), CAUSAL),
    required=REQUIRED,
    modules={"token_embedding": "embed_tokens", "final_norm": "norm"},
    blocks={"decoder": Blocks(block, BLOCK)},
    heads=heads("Llama"),
    other_heads=("qa_outputs",),
)


def _read_window(reference) -> dict:
    return {"decoder.attention.window": reference.get("sliding_window", 4096)}


def _write_window(config) -> dict:
    return {"sliding_window": config.decoder.attention_of(0).window}


MISTRAL = replace(
    FAMILY,
    name="mistral",
    architecture="MistralModel",
    keys={
        **{path: key for path, key in KEYS.items() if "bias" not in path},
        "decoder.feed_forward.size": Key("intermediate_size", 14336),
        "decoder.max_positions": Key("max_position_embeddings", 131072),
    },
    fixed={**FIXED, "decoder.attention.bias": False, "decoder.feed_forward.bias": False},
    rules=(
        heads_rule(8),
        rope_rule(131072),
        padding_rule(eos=2),
        CAUSAL,
        Rule(("sliding_window",), _read_window, _write_window),
    ),
    heads=heads("Mistral"),
)
