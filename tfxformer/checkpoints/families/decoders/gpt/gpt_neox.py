"""GPT-NeoX (Black et al., 2022, arXiv:2204.06745), and with it Pythia (Biderman et al., 2023, arXiv:2304.01373)."""

from collections.abc import Mapping

from tfxformer.checkpoints.families.decoders.shared import (
    CAUSAL,
    HEADS_KEYS,
    PRE_NORM,
    answers,
    fused_attention,
    padding_rule,
)
from tfxformer.checkpoints.family import Blocks, Family, Head, Key, Rule
from tfxformer.checkpoints.layout import Module
from tfxformer.checkpoints.rope import rope_rule


def _read_residual(reference: Mapping) -> dict:
    parallel = reference.get("use_parallel_residual", True)
    return {"decoder.norm.placement": "parallel" if parallel else "pre"}


def _write_residual(config) -> dict:
    return {"use_parallel_residual": config.decoder.norm.placement == "parallel"}


def block(config, index: int) -> str:
    """The reference's module of a block."""
    return f"layers.{index}"


BLOCK = {
    **fused_attention("attention"),
    "attention_norm": "input_layernorm",
    "feed_forward/expand": "mlp.dense_h_to_4h",
    "feed_forward/output": "mlp.dense_4h_to_h",
    "feed_forward_norm": "post_attention_layernorm",
}

FAMILY = Family(
    name="gpt_neox",
    prefix="gpt_neox.",
    architecture="GPTNeoXModel",
    keys={
        **HEADS_KEYS,
        "vocabulary_size": Key("vocab_size", 50432),
        "initializer_range": Key("initializer_range", 0.02),
        "decoder.num_layers": Key("num_hidden_layers", 44),
        "decoder.hidden_size": Key("hidden_size", 6144),
        "decoder.attention.heads": Key("num_attention_heads", 64),
        "decoder.feed_forward.size": Key("intermediate_size", 24576),
        "decoder.feed_forward.activation": Key("hidden_act", "gelu"),
        "decoder.norm.epsilon": Key("layer_norm_eps", 1e-5),
        "decoder.max_positions": Key("max_position_embeddings", 2048),
        "decoder.dropout": Key("hidden_dropout", 0.0),
        "decoder.attention_dropout": Key("attention_dropout", 0.0),
        "decoder.attention.bias": Key("attention_bias", True),
        "heads.tied": Key("tie_word_embeddings", False),
    },
    fixed=PRE_NORM,
    rules=(
        Rule(("use_parallel_residual",), _read_residual, _write_residual),
        rope_rule(2048, base="rotary_emb_base", fraction="rotary_pct", default_fraction=0.25),
        padding_rule(eos=2),
        CAUSAL,
    ),
    modules={"token_embedding": "embed_in", "final_norm": "final_layer_norm"},
    blocks={"decoder": Blocks(block, BLOCK)},
    heads={
        "causal-lm": Head("GPTNeoXForCausalLM", {"language_model_head": Module("embed_out", also=("lm_head",))}),
        **answers("GPTNeoX"),
        "text-classification": Head("GPTNeoXForSequenceClassification", {"classifier/output": "score"}),
        "token-classification": Head("GPTNeoXForTokenClassification", {"token_classifier/output": "classifier"}),
    },
)
