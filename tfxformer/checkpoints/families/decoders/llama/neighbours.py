"""Families whose neighbouring channels turn together: Helium, ERNIE 4.5, GLM-4 (arXiv:2406.12793), Command R7B.

Helium: Kyutai, 2025. ERNIE 4.5: Baidu, 2025. GLM-4-0414: Z.ai, 2025. Command R7B (Cohere 2): Cohere, 2024.
"""

from dataclasses import replace

from tfxformer.checkpoints.families.decoders.kinds import windows_rule
from tfxformer.checkpoints.families.decoders.llama import llama
from tfxformer.checkpoints.families.decoders.llama.phi3 import GATE_UP
from tfxformer.checkpoints.families.decoders.shared import CAUSAL, heads_rule, padding_rule
from tfxformer.checkpoints.family import Blocks, Key, Rule
from tfxformer.checkpoints.layout import Module
from tfxformer.checkpoints.rope import rope_rule

_BLOCK = {
    **llama.BLOCK,
    "self_attention/query": Module("self_attn.q_proj", neighbours=True),
    "self_attention/key": Module("self_attn.k_proj", neighbours=True),
}


def _language_model(name: str):
    return {"causal-lm": llama.heads(name)["causal-lm"]}


HELIUM = replace(
    llama.FAMILY,
    name="helium",
    architecture="HeliumModel",
    keys=llama.sizes(48000, 24, 2560, 20, 7040, 4096, epsilon=1e-8),
    fixed={**llama.FIXED, "decoder.attention.output_bias": False},
    rules=(heads_rule(20, 128, 20, 2560), rope_rule(4096, default_base=1e5), padding_rule(pad=3, eos=2), CAUSAL),
    blocks={"decoder": Blocks(llama.block, _BLOCK)},
    heads=llama.heads("Helium"),
)

ERNIE = replace(
    HELIUM,
    name="ernie4_5",
    architecture="Ernie4_5Model",
    keys={
        **llama.sizes(103424, 18, 1024, 16, 3072, 131072, epsilon=1e-5, tied=True),
        "decoder.attention.bias": Key("use_bias", False),
        "decoder.feed_forward.bias": Key("use_bias", False),
    },
    fixed=llama.FIXED,
    rules=(heads_rule(2, 128, 16, 1024), rope_rule(131072, default_base=5e5), padding_rule(pad=0, eos=2), CAUSAL),
    heads=_language_model("Ernie4_5"),
)

_SANDWICH = {
    "attention_output_norm": "post_self_attn_layernorm",
    "feed_forward_norm": "post_attention_layernorm",
    "feed_forward_output_norm": "post_mlp_layernorm",
}
GLM4 = replace(
    HELIUM,
    name="glm4",
    architecture="Glm4Model",
    keys={
        **llama.without_biases(llama.sizes(151552, 40, 4096, 32, 13696, 131072, epsilon=1.5625e-7)),
        "decoder.attention.bias": Key("attention_bias", True),
    },
    fixed={
        **llama.FIXED,
        "decoder.norm.placement": "sandwich",
        "decoder.attention.output_bias": False,
        "decoder.feed_forward.bias": False,
    },
    rules=(
        heads_rule(2, 128),
        rope_rule(131072, fraction="partial_rotary_factor", default_fraction=0.5),
        padding_rule(pad=151329),
        CAUSAL,
    ),
    blocks={"decoder": Blocks(llama.block, {**_BLOCK, **GATE_UP, **_SANDWICH})},
    heads=llama.heads("Glm4"),
)

_FULL_DO_NOT_TURN = Rule((), lambda _: {"decoder.attention.full.rotary": None}, lambda _: {})
COHERE2 = replace(
    HELIUM,
    name="cohere2",
    architecture="Cohere2Model",
    keys={
        **llama.without_biases(llama.sizes(256000, 40, 8192, 64, 22528, 8192, tied=True)),
        "decoder.norm.epsilon": Key("layer_norm_eps", 1e-5),
        "decoder.attention.bias": Key("attention_bias", False),
        "heads.logit_scale": Key("logit_scale", 0.0625),
    },
    fixed={
        **llama.FIXED,
        "decoder.norm.kind": "layer",
        "decoder.norm.bias": False,
        "decoder.norm.placement": "shared",
        "decoder.feed_forward.bias": False,
        "decoder.positions": "none",
    },
    rules=(
        heads_rule(None, None, 64, 8192),
        rope_rule(8192),
        windows_rule(40, 4096, 4),
        _FULL_DO_NOT_TURN,
        padding_rule(pad=0, eos=255001),
        CAUSAL,
    ),
    required={"token_classification_bias": (True, None)},
    blocks={"decoder": Blocks(llama.block, {p: n for p, n in _BLOCK.items() if p != "feed_forward_norm"})},
    heads=_language_model("Cohere2"),
    other_heads=(*llama.FAMILY.other_heads, "score"),
)
