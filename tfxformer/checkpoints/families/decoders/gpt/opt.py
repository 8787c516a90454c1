"""OPT (Zhang et al., 2022, arXiv:2205.01068)."""

from collections.abc import Mapping

from tfxformer.checkpoints.families.decoders.shared import CAUSAL, HEADS_KEYS, PRE_NORM, answers, padding_rule
from tfxformer.checkpoints.family import Blocks, Family, Head, Key, Rule

_UNUSED_ROWS = 2  # of the position table


def _read_positions(reference: Mapping) -> dict:
    return {"decoder.max_positions": (reference.get("max_position_embeddings") or 2048) + _UNUSED_ROWS}


def _write_positions(config) -> dict:
    return {"max_position_embeddings": config.decoder.max_positions - _UNUSED_ROWS}


def _read_norms(reference: Mapping) -> dict:
    before = reference.get("do_layer_norm_before", True)
    return {
        "decoder.norm.placement": "pre" if before else "post",
        "decoder.norm.final": before and not reference.get("_remove_final_layer_norm", False),
    }


def _write_norms(config) -> dict:
    before = config.decoder.norm.placement == "pre"
    return {
        "do_layer_norm_before": before,
        "_remove_final_layer_norm": before and not config.decoder.norm.final,
    }


def _read_projection(reference: Mapping) -> dict:
    size, table = reference.get("hidden_size") or 768, reference.get("word_embed_proj_dim")
    projected = table is not None and table != size
    return {"embedding_size": table if projected else None, "output_projection": projected}


def block(config, index: int) -> str:
    """The reference's module of a block."""
    return f"decoder.layers.{index}"


BLOCK = {
    "self_attention/query": "self_attn.q_proj",
    "self_attention/key": "self_attn.k_proj",
    "self_attention/value": "self_attn.v_proj",
    "self_attention/output": "self_attn.out_proj",
    "attention_norm": "self_attn_layer_norm",
    "feed_forward/expand": "fc1",
    "feed_forward/output": "fc2",
    "feed_forward_norm": "final_layer_norm",
}

FAMILY = Family(
    name="opt",
    prefix="model.",
    architecture="OPTModel",
    keys={
        **HEADS_KEYS,
        "vocabulary_size": Key("vocab_size", 50272),
        "initializer_range": Key("init_std", 0.02),
        "decoder.num_layers": Key("num_hidden_layers", 12),
        "decoder.hidden_size": Key("hidden_size", 768),
        "decoder.attention.heads": Key("num_attention_heads", 12),
        "decoder.feed_forward.size": Key("ffn_dim", 3072),
        "decoder.feed_forward.activation": Key("activation_function", "relu"),
        "decoder.dropout": Key("dropout", 0.1),
        "decoder.attention_dropout": Key("attention_dropout", 0.0),
        "decoder.attention.bias": Key("enable_bias", True),
        "decoder.feed_forward.bias": Key("enable_bias", True),
        "heads.tied": Key("tie_word_embeddings", True),
    },
    fixed={
        **PRE_NORM,
        "embedding_projection_bias": False,
        "decoder.norm.epsilon": 1e-5,
        "decoder.embedding_dropout": 0.0,
        "decoder.position_offset": _UNUSED_ROWS,
    },
    rules=(
        Rule(("max_position_embeddings",), _read_positions, _write_positions),
        Rule(("do_layer_norm_before", "_remove_final_layer_norm"), _read_norms, _write_norms),
        Rule(("word_embed_proj_dim",), _read_projection, lambda config: {"word_embed_proj_dim": config.table_size}),
        padding_rule(pad=1, eos=2),
        CAUSAL,
    ),
    required={"layer_norm_elementwise_affine": (True, None)},
    modules={
        "token_embedding": "decoder.embed_tokens",
        "position_embedding": "decoder.embed_positions",
        "embedding_projection": "decoder.project_in",
        "final_norm": "decoder.final_layer_norm",
        "output_projection": "decoder.project_out",
    },
    blocks={"decoder": Blocks(block, BLOCK)},
    heads={
        "causal-lm": Head("OPTForCausalLM", {"language_model_head": "lm_head"}),
        **answers("OPT"),
        "text-classification": Head("OPTForSequenceClassification", {"classifier/output": "score"}),
    },
)
