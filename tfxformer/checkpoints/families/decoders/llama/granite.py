"""Granite 3 (IBM, 2024): a Llama with factors on embeddings, scores, sums and logits."""

from collections.abc import Mapping
from dataclasses import replace

from tfxformer.checkpoints.families.decoders.llama import llama
from tfxformer.checkpoints.families.decoders.shared import CAUSAL, heads_rule, padding_rule
from tfxformer.checkpoints.family import Key, Rule
from tfxformer.checkpoints.rope import rope_rule

_DIGITS = 12  # a divisor of which we have the inverse is written as the number that it was


def _read_scale(reference: Mapping) -> dict:
    heads, size = reference.get("num_attention_heads") or 32, reference.get("hidden_size") or 4096
    scale, width = reference.get("attention_multiplier", 1.0), reference.get("head_dim") or size // heads
    return {"decoder.attention.scale": None if scale == width**-0.5 else scale}


def _write_scale(config) -> dict:
    scale = config.decoder.attention_of(0).scale
    return {"attention_multiplier": config.decoder.head_width**-0.5 if scale is None else scale}


_LOGITS = Rule(
    ("logits_scaling",),
    lambda reference: {"heads.logit_scale": 1.0 / (reference.get("logits_scaling") or 1.0)},
    lambda config: {"logits_scaling": round(1.0 / config.heads.logit_scale, _DIGITS)},
)
FAMILY = replace(
    llama.FAMILY,
    name="granite",
    architecture="GraniteModel",
    keys={
        **llama.sizes(32000, 32, 4096, 32, 11008, 2048),
        "decoder.embedding_scale": Key("embedding_multiplier", 1.0),
        "decoder.residual_scale": Key("residual_multiplier", 1.0),
    },
    rules=(
        heads_rule(None),
        Rule(("attention_multiplier",), _read_scale, _write_scale),
        _LOGITS,
        rope_rule(2048),
        padding_rule(eos=2),
        CAUSAL,
    ),
    heads={"causal-lm": llama.heads("Granite")["causal-lm"]},
    other_heads=(*llama.FAMILY.other_heads, "score"),
)
