"""Falcon (Almazrouei et al., 2023, arXiv:2311.16867): keys and values of one head (7B), some, or all."""

from collections.abc import Mapping

from tfxformer.checkpoints.families.decoders.shared import (
    CAUSAL,
    HEADS_KEYS,
    PRE_NORM,
    answers,
    fused_parts,
    head_width,
    padding_rule,
)
from tfxformer.checkpoints.family import Blocks, Family, Head, Key, Rule
from tfxformer.checkpoints.files.errors import CheckpointError
from tfxformer.checkpoints.rope import rope_rule
from tfxformer.layers import Scores

_HEADS = Key("num_attention_heads", 71)
_SIZE = Key("hidden_size", 4544, ("n_embed",))
_NEW = Key("new_decoder_architecture", False)
_PARALLEL, _MULTI_QUERY = Key("parallel_attn", True), Key("multi_query", True)
_ALIBI, _ROTARY = Key("alibi", False), rope_rule(2048)
_NORMS, _GROUPS = "num_ln_in_parallel_attn", "num_kv_heads"


def _read_shape(reference: Mapping) -> dict:
    """How the halves of a block stand to each other, and how many heads keys and values have."""
    new, parallel, norms = _NEW.read(reference), _PARALLEL.read(reference), reference.get(_NORMS)
    if (new and not parallel) or norms not in ((None, 1, 2) if new else (None, 1)):
        raise CheckpointError(
            f"config.json says new_decoder_architecture={new}, parallel_attn={parallel}, {_NORMS}={norms}: blocks "
            "that no Falcon has, and that transformers does not run."
        )
    groups = reference.get(_GROUPS) if new else 1 if _MULTI_QUERY.read(reference) else None
    placement = "pre" if not parallel else "parallel" if new and norms != 1 else "shared"
    return {"decoder.norm.placement": placement, "decoder.attention.key_value_heads": groups}


def _write_shape(config) -> dict:
    stack = config.decoder
    groups, placement = stack.key_value_heads, stack.norm.placement
    new = placement == "parallel" or (placement == "shared" and groups > 1)
    written = {"new_decoder_architecture": new, "multi_query": groups == 1, "parallel_attn": placement != "pre"}
    if not new:
        return written
    return {**written, _GROUPS: groups, _NORMS: 2 if placement == "parallel" else 1}


def _read_positions(reference: Mapping) -> dict:
    if not _ALIBI.read(reference):
        return _ROTARY.read(reference)
    scale = head_width(reference, _SIZE, _HEADS) ** -0.5
    return {"decoder.attention.scores": Scores("alibi", scale=scale, rounded=True)}


def _write_positions(config) -> dict:
    return {_ALIBI.name: config.decoder.attention_of(0).scores is not None, **_ROTARY.write(config)}


def block(config, index: int) -> str:
    """The reference's module of a block."""
    return f"h.{index}"


def _modules(config) -> dict:
    """In every shape the heads of queries stand before those of keys and values that they share."""
    two = {"attention_norm": "ln_attn", "feed_forward_norm": "ln_mlp"}
    first = {"attention_norm": "input_layernorm"}
    norms = {
        "parallel": two,
        "shared": first,
        "pre": {**first, "feed_forward_norm": "post_attention_layernorm"},
    }
    return {
        **fused_parts("self_attention.query_key_value", sizes=("heads_per_group", 1, 1), by="groups"),
        "self_attention/output": "self_attention.dense",
        "feed_forward/expand": "mlp.dense_h_to_4h",
        "feed_forward/output": "mlp.dense_4h_to_h",
        **norms[config.decoder.norm.placement],
    }


FAMILY = Family(
    name="falcon",
    prefix="transformer.",
    architecture="FalconModel",
    keys={
        **HEADS_KEYS,
        "vocabulary_size": Key("vocab_size", 65024),
        "initializer_range": Key("initializer_range", 0.02),
        "decoder.num_layers": Key("num_hidden_layers", 32),
        "decoder.hidden_size": _SIZE,
        "decoder.attention.heads": _HEADS,
        "decoder.feed_forward.size": Key("ffn_hidden_size", lambda reference: 4 * _SIZE.read(reference)),
        "decoder.feed_forward.activation": Key("activation", "gelu"),
        "decoder.norm.epsilon": Key("layer_norm_epsilon", 1e-5),
        "decoder.max_positions": Key("max_position_embeddings", 2048),
        "decoder.dropout": Key("hidden_dropout", 0.0),
        "decoder.attention_dropout": Key("attention_dropout", 0.0),
        "decoder.attention.bias": Key("bias", False),
        "decoder.feed_forward.bias": Key("bias", False),
        "heads.tied": Key("tie_word_embeddings", True),
    },
    fixed={**PRE_NORM, "decoder.embedding_dropout": 0.0},
    rules=(
        Rule(("new_decoder_architecture", "multi_query", "parallel_attn", _GROUPS, _NORMS), _read_shape, _write_shape),
        Rule((_ALIBI.name, *_ROTARY.keys), _read_positions, _write_positions),
        padding_rule(eos=11),
        CAUSAL,
    ),
    modules={"token_embedding": "word_embeddings", "final_norm": "ln_f"},
    blocks={"decoder": Blocks(block, _modules)},
    heads={
        "causal-lm": Head("FalconForCausalLM", {"language_model_head": "lm_head"}),
        **answers("Falcon"),
        "text-classification": Head("FalconForSequenceClassification", {"classifier/output": "score"}),
        "token-classification": Head("FalconForTokenClassification", {"token_classifier/output": "classifier"}),
    },
)
