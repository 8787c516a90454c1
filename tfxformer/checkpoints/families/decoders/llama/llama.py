"""Llama (Touvron et al., 2023, arXiv:2302.13971), with it SmolLM2 and TinyLlama; Mistral (arXiv:2310.06825)."""

from dataclasses import replace

from tfxformer.checkpoints.families.decoders.kinds import window_rule
from tfxformer.checkpoints.families.decoders.shared import (
    CAUSAL,
    HEADS_KEYS,
    PRE_NORM,
    answers,
    heads_rule,
    padding_rule,
)
from tfxformer.checkpoints.family import Blocks, Family, Head, Key
from tfxformer.checkpoints.rope import rope_rule

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


def sizes(
    vocabulary: int, layers: int, size: int, heads: int, inner: int, longest: int, epsilon=1e-6, tied=False
) -> dict[str, Key]:
    """The keys of a class that has defaults of its own."""
    defaults = {
        "vocabulary_size": vocabulary,
        "decoder.num_layers": layers,
        "decoder.hidden_size": size,
        "decoder.attention.heads": heads,
        "decoder.feed_forward.size": inner,
        "decoder.max_positions": longest,
        "decoder.norm.epsilon": epsilon,
        "heads.tied": tied,
    }
    return {path: replace(key, default=defaults.get(path, key.default)) for path, key in KEYS.items()}


def without_biases(keys: dict[str, Key]) -> dict[str, Key]:
    """The keys of a class whose Dense layers have none, and whose config.json says nothing of them."""
    return {path: key for path, key in keys.items() if not path.endswith(".bias")}


NO_BIASES = {"decoder.attention.bias": False, "decoder.feed_forward.bias": False}

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


def heads_with_answers(name: str, prefix: str | None = "transformer.") -> dict[str, Head]:
    """The heads of a family that has one for answers, too, in whose files the backbone has a prefix of its own."""
    return {**heads(name), **answers(name, prefix)}


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
    heads=heads_with_answers("Llama"),
    other_heads=("qa_outputs",),
)


MISTRAL = replace(
    FAMILY,
    name="mistral",
    architecture="MistralModel",
    keys={
        **without_biases(KEYS),
        "decoder.feed_forward.size": Key("intermediate_size", 14336),
        "decoder.max_positions": Key("max_position_embeddings", 131072),
    },
    fixed={**FIXED, **NO_BIASES},
    rules=(
        heads_rule(8),
        rope_rule(131072),
        padding_rule(eos=2),
        CAUSAL,
        window_rule(4096),
    ),
    heads=heads_with_answers("Mistral", None),
)
