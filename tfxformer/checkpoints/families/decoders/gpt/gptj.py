"""GPT-J (Wang and Komatsuzaki, 2021) and CodeGen (Nijkamp et al., 2022, arXiv:2203.13474).

A head's channels turn by neighbours, and both halves of a block read one norm.
"""

import math
from collections.abc import Mapping
from dataclasses import replace

from tfxformer.checkpoints.families.decoders.gpt import gpt2
from tfxformer.checkpoints.families.decoders.shared import (
    BIASED_HEAD,
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
from tfxformer.checkpoints.layout import Module
from tfxformer.layers import Rotary

_SIZE, _HEADS = Key("n_embd", 4096, ("hidden_size",)), Key("n_head", 16, ("num_attention_heads",))


def _read_rotary(reference: Mapping) -> dict:
    turning, width = reference.get("rotary_dim", 64), head_width(reference, _SIZE, _HEADS)
    if type(turning) is not int or not 0 < turning <= width:
        raise CheckpointError(f"config.json says rotary_dim={turning!r}; wanted a number of a head's {width} channels.")
    fraction = turning / width
    if int(width * fraction) < turning:  # `Rotary.width` rounds down
        fraction = math.nextafter(fraction, 1.0)
    return {"decoder.attention.rotary": Rotary(fraction=fraction)}


def _write_rotary(config) -> dict:
    stack = config.decoder
    rotary = stack.attention_of(0).rotary
    return {} if rotary is None else {"rotary_dim": rotary.width(stack.head_width)}


def block(config, index: int) -> str:
    """The reference's module of a block."""
    return f"h.{index}"


BLOCK = {
    "self_attention/query": Module("attn.q_proj", neighbours=True),
    "self_attention/key": Module("attn.k_proj", neighbours=True),
    "self_attention/value": "attn.v_proj",
    "self_attention/output": "attn.out_proj",
    "attention_norm": "ln_1",
    "feed_forward/expand": "mlp.fc_in",
    "feed_forward/output": "mlp.fc_out",
}
# Four shares of the heads (of as many chips), in each queries, values, keys.
_FUSED = fused_parts("attn.qkv_proj", ("query", "value", "key"), by=4)
_TURNED = {
    f"self_attention/{name}": replace(_FUSED[f"self_attention/{name}"], neighbours=True) for name in ("query", "key")
}

FAMILY = Family(
    name="gptj",
    prefix="transformer.",
    architecture="GPTJModel",
    keys={
        **HEADS_KEYS,
        "vocabulary_size": Key("vocab_size", 50400),
        "initializer_range": Key("initializer_range", 0.02),
        "decoder.num_layers": Key("n_layer", 28, ("num_hidden_layers",)),
        "decoder.hidden_size": _SIZE,
        "decoder.attention.heads": _HEADS,
        "decoder.feed_forward.size": Key("n_inner", lambda reference: 4 * _SIZE.read(reference)),
        "decoder.feed_forward.activation": Key("activation_function", "gelu_new"),
        "decoder.norm.epsilon": Key("layer_norm_epsilon", 1e-5),
        "decoder.max_positions": Key("n_positions", 2048, ("max_position_embeddings",)),
        "decoder.dropout": Key("resid_pdrop", 0.0),
        "decoder.attention_dropout": Key("attn_pdrop", 0.0),
        "heads.tied": Key("tie_word_embeddings", False),
    },
    fixed={
        **PRE_NORM,
        "decoder.norm.placement": "shared",
        "decoder.attention.bias": False,
        "heads.logits_bias": True,
    },
    rules=(
        Rule(("rotary_dim",), _read_rotary, _write_rotary),
        padding_rule(eos=50256),
        CAUSAL,
        gpt2.EMBEDDING_DROPOUT,
    ),
    modules={"token_embedding": "wte", "final_norm": "ln_f"},
    blocks={"decoder": Blocks(block, BLOCK)},
    heads={
        "causal-lm": Head("GPTJForCausalLM", BIASED_HEAD),
        **answers("GPTJ"),
        "text-classification": Head("GPTJForSequenceClassification", {"classifier/output": "score"}),
    },
)

CODEGEN = replace(
    FAMILY,
    name="codegen",
    architecture="CodeGenModel",
    blocks={"decoder": Blocks(block, {**BLOCK, **_FUSED, **_TURNED})},
    heads={"causal-lm": Head("CodeGenForCausalLM", BIASED_HEAD)},
)
