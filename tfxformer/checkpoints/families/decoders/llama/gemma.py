"""Gemma (Gemma Team, 2024, arXiv:2403.08295) and Gemma 2 (arXiv:2408.00118)."""

from collections.abc import Mapping
from dataclasses import replace

from tfxformer.checkpoints.families.decoders.kinds import windows_rule
from tfxformer.checkpoints.families.decoders.llama import llama
from tfxformer.checkpoints.families.decoders.shared import CAUSAL, heads_rule, padding_rule
from tfxformer.checkpoints.family import Blocks, Key, Rule
from tfxformer.checkpoints.rope import rope_rule

_TANH_GELU = "gelu_pytorch_tanh"


def sizes(*defaults: int) -> dict[str, Key]:
    """The keys of a class and its defaults, as `llama.sizes` takes them."""
    keys = {
        **llama.sizes(*defaults, tied=True),
        "decoder.feed_forward.activation": Key("hidden_activation", _TANH_GELU),
    }
    return {path: key for path, key in keys.items() if path != "decoder.feed_forward.bias"}


def scaled_embeddings(size: int) -> Rule:
    """Embeddings are multiplied by the root of their width, which no key says."""
    return Rule((), lambda said: {"decoder.embedding_scale": (said.get("hidden_size") or size) ** 0.5}, lambda _: {})


def _read_scale(reference: Mapping) -> dict:
    scalar, width = reference.get("query_pre_attn_scalar") or 256, reference.get("head_dim") or 256
    return {"decoder.attention.scale": None if scalar == width else scalar**-0.5}


def _write_scale(config) -> dict:
    scale = config.decoder.attention_of(0).scale
    return {"query_pre_attn_scalar": config.decoder.head_width if scale is None else round(scale**-2)}


SCALE = Rule(("query_pre_attn_scalar",), _read_scale, _write_scale)


def _read_activation(reference: Mapping) -> dict:
    """The tanh form is meant by "gelu", too, where the key is the older one."""
    older = reference.get("hidden_act") or _TANH_GELU
    name = reference.get("hidden_activation") or (_TANH_GELU if older == "gelu" else older)
    return {"decoder.feed_forward.activation": name}


def _write_activation(config) -> dict:
    return {"hidden_act": config.decoder.feed_forward.activation}


_NORMS = {"decoder.norm.kind": "zero_centred_rms", "decoder.feed_forward.bias": False}
_ONE_WAY = {"use_bidirectional_attention": (None, False)}  # transformers reads it in part only here
_KEYS = sizes(256000, 28, 3072, 16, 24576, 8192)
FAMILY = replace(
    llama.FAMILY,
    name="gemma",
    architecture="GemmaModel",
    keys={path: key for path, key in _KEYS.items() if path != "decoder.feed_forward.activation"},
    fixed={**llama.FIXED, **_NORMS},
    rules=(
        heads_rule(16, 256, 16, 3072),
        Rule(("hidden_act", "hidden_activation"), _read_activation, _write_activation),
        scaled_embeddings(3072),
        rope_rule(8192),
        padding_rule(pad=0, eos=1),
        CAUSAL,
    ),
    required={**llama.REQUIRED, **_ONE_WAY},
    heads=llama.heads("Gemma"),
)


def _cap(key: str, path: str, default: float) -> Rule:
    """A bound of tanh, none where it is null."""

    def write(config) -> dict:
        return {
            key: config.heads.logit_soft_cap if path.startswith("heads") else config.decoder.attention_of(0).soft_cap
        }

    return Rule((key,), lambda reference: {path: reference.get(key, default)}, write)


SANDWICH = {
    **llama.BLOCK,
    "attention_output_norm": "post_attention_layernorm",
    "feed_forward_norm": "pre_feedforward_layernorm",
    "feed_forward_output_norm": "post_feedforward_layernorm",
}
GEMMA2 = replace(
    FAMILY,
    name="gemma2",
    architecture="Gemma2Model",
    keys=sizes(256000, 26, 2304, 8, 9216, 8192),
    fixed={**FAMILY.fixed, "decoder.norm.placement": "sandwich"},
    rules=(
        heads_rule(4, 256, 8, 2304),
        SCALE,
        _cap("attn_logit_softcapping", "decoder.attention.soft_cap", 50.0),
        _cap("final_logit_softcapping", "heads.logit_soft_cap", 30.0),
        scaled_embeddings(2304),
        windows_rule(26, 4096, 2),
        rope_rule(8192),
        padding_rule(pad=0, eos=1),
        CAUSAL,
    ),
    required={key: values for key, values in FAMILY.required.items() if key != "layer_types"},
    blocks={"decoder": Blocks(llama.block, SANDWICH)},
    heads=llama.heads("Gemma2"),
)
