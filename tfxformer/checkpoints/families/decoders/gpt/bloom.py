"""BLOOM (Workshop et al., 2022, arXiv:2211.05100): ALiBi in place of position embeddings."""

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
from tfxformer.layers import Scores


def _read_sizes(reference: Mapping) -> dict:
    size = reference.get("n_embed") or reference.get("hidden_size") or 64
    return {"decoder.hidden_size": size, "decoder.feed_forward.size": 4 * size}


def block(config, index: int) -> str:
    """The reference's module of a block."""
    return f"h.{index}"


BLOCK = {
    **fused_attention("self_attention"),
    "attention_norm": "input_layernorm",
    "feed_forward/expand": "mlp.dense_h_to_4h",
    "feed_forward/output": "mlp.dense_4h_to_h",
    "feed_forward_norm": "post_attention_layernorm",
}

FAMILY = Family(
    name="bloom",
    prefix="transformer.",
    architecture="BloomModel",
    keys={
        **HEADS_KEYS,
        "vocabulary_size": Key("vocab_size", 250880),
        "initializer_range": Key("initializer_range", 0.02),
        "decoder.num_layers": Key("n_layer", 2, ("num_hidden_layers",)),
        "decoder.attention.heads": Key("n_head", 8, ("num_attention_heads",)),
        "decoder.norm.epsilon": Key("layer_norm_epsilon", 1e-5),
        "decoder.max_positions": Key("seq_length", 2048),  # trained length; ALiBi has no table
        "decoder.dropout": Key("hidden_dropout", 0.0),
        "decoder.attention_dropout": Key("attention_dropout", 0.0),
        "heads.tied": Key("tie_word_embeddings", True),
    },
    fixed={
        **PRE_NORM,
        "decoder.norm.embedding": True,
        "decoder.embedding_dropout": 0.0,
        "decoder.feed_forward.activation": "gelu_new",  # its own tanh form
        "decoder.attention.scores": Scores("alibi"),
    },
    rules=(
        Rule(("hidden_size", "n_embed"), _read_sizes, lambda config: {"hidden_size": config.decoder.hidden_size}),
        padding_rule(eos=2),
        CAUSAL,
    ),
    required={"apply_residual_connection_post_layernorm": (False, None)},
    modules={
        "token_embedding": "word_embeddings",
        "embedding_norm": "word_embeddings_layernorm",
        "final_norm": "ln_f",
    },
    blocks={"decoder": Blocks(block, BLOCK)},
    heads={
        "causal-lm": Head("BloomForCausalLM", {"language_model_head": "lm_head"}),
        **answers("Bloom"),
        "text-classification": Head("BloomForSequenceClassification", {"classifier/output": "score"}),
        "token-classification": Head("BloomForTokenClassification", {"token_classifier/output": "classifier"}),
    },
)
