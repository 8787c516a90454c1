"""GPT-2 (Radford et al., 2019), and with it DialoGPT and DistilGPT-2."""

from collections.abc import Mapping

from tfxformer.checkpoints.families.decoders.shared import CAUSAL, HEADS_KEYS, PRE_NORM, answers, padding_rule
from tfxformer.checkpoints.family import Blocks, Family, Head, Key, Rule
from tfxformer.checkpoints.files.errors import CheckpointError
from tfxformer.checkpoints.layout import Module

EMBEDDINGS = Key("embd_pdrop", 0.1)
EMBEDDING_DROPOUT = Rule(  # never null, which the reference refuses; ours may be None, for `dropout`
    ("embd_pdrop",),
    lambda reference: {"decoder.embedding_dropout": EMBEDDINGS.read(reference)},
    lambda config: {EMBEDDINGS.name: config.decoder.embedding_dropout_rate},
)


def _read_scale(reference: Mapping) -> dict:
    stated = reference.get("scale_attn_weights")
    if stated is not None and not isinstance(stated, bool):
        raise CheckpointError(f"config.json says scale_attn_weights={stated!r}; wanted true or false.")
    return {"decoder.attention.scale": 1.0 if stated is False else None}


def _write_scale(config) -> dict:
    return {"scale_attn_weights": config.decoder.attention_of(0).scale is None}


SCALE = Rule(("scale_attn_weights",), _read_scale, _write_scale)


def _projection(name: str, part: int | None = None) -> Module:
    return Module(name, transposed=False, part=part)  # GPT-2's Conv1D


def block(config, index: int) -> str:
    """The reference's module of a block."""
    return f"h.{index}"


BLOCK = {
    "self_attention/query": _projection("attn.c_attn", 0),
    "self_attention/key": _projection("attn.c_attn", 1),
    "self_attention/value": _projection("attn.c_attn", 2),
    "self_attention/output": _projection("attn.c_proj"),
    "attention_norm": "ln_1",
    "feed_forward/expand": _projection("mlp.c_fc"),
    "feed_forward/output": _projection("mlp.c_proj"),
    "feed_forward_norm": "ln_2",
}

FAMILY = Family(
    name="gpt2",
    prefix="transformer.",
    architecture="GPT2Model",
    keys={
        **HEADS_KEYS,
        "vocabulary_size": Key("vocab_size", 50257),
        "initializer_range": Key("initializer_range", 0.02),
        "decoder.num_layers": Key("n_layer", 12, ("num_hidden_layers",)),
        "decoder.hidden_size": Key("n_embd", 768, ("hidden_size",)),
        "decoder.attention.heads": Key("n_head", 12, ("num_attention_heads",)),
        "decoder.feed_forward.size": Key("n_inner", lambda c: 4 * (c.get("n_embd") or c.get("hidden_size") or 768)),
        "decoder.feed_forward.activation": Key("activation_function", "gelu_new"),
        "decoder.norm.epsilon": Key("layer_norm_epsilon", 1e-5),
        "decoder.max_positions": Key("n_positions", 1024, ("max_position_embeddings",)),
        "decoder.dropout": Key("resid_pdrop", 0.1),
        "decoder.attention_dropout": Key("attn_pdrop", 0.1),
        "decoder.attention.scale_by_layer": Key("scale_attn_by_inverse_layer_idx", False),
        "heads.tied": Key("tie_word_embeddings", True),
    },
    fixed=PRE_NORM,
    rules=(padding_rule(eos=50256), CAUSAL, EMBEDDING_DROPOUT, SCALE),
    required={"add_cross_attention": (False, None)},
    modules={"token_embedding": "wte", "position_embedding": "wpe", "final_norm": "ln_f"},
    blocks={"decoder": Blocks(block, BLOCK)},
    heads={
        "causal-lm": Head("GPT2LMHeadModel", {"language_model_head": "lm_head"}),
        **answers("GPT2"),
        "text-classification": Head("GPT2ForSequenceClassification", {"classifier/output": "score"}),
        "token-classification": Head("GPT2ForTokenClassification", {"token_classifier/output": "classifier"}),
    },
    other_heads=("multiple_choice_head.summary",),
)
