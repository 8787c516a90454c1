"""OLMo 1 to 3 (arXiv:2402.00838, 2024; arXiv:2501.00656; 2025), EXAONE 4 (LG AI Research, 2025, arXiv:2507.11407).

The norms of the first have no weights; of the others what a half gives is normed, not what it reads.
"""

from collections.abc import Mapping
from dataclasses import replace

from tfxformer.checkpoints.families.decoders import kinds
from tfxformer.checkpoints.families.decoders.llama import llama
from tfxformer.checkpoints.families.decoders.shared import CAUSAL, heads_rule, padding_rule
from tfxformer.checkpoints.family import Blocks, Key, Rule
from tfxformer.checkpoints.rope import rope_rule

_BLOCK = {
    **llama.BLOCK,
    **llama.QUERY_KEY_NORMS,
    "attention_norm": "post_attention_layernorm",
    "feed_forward_norm": "post_feedforward_layernorm",
}
_WITHOUT_NORMS = {ours: theirs for ours, theirs in llama.BLOCK.items() if not ours.endswith("_norm")}
_NORMS = {"decoder.norm.placement": "output", "decoder.attention.query_key_norm": "whole"}


def _heads(name: str):
    return {task: head for task, head in llama.heads(name).items() if task != "token-classification"}


def _keys() -> dict[str, Key]:
    keys = llama.sizes(50304, 32, 4096, 32, 11008, 2048, epsilon=1e-5)
    return {path: key for path, key in keys.items() if path != "decoder.feed_forward.bias"}


OLMO = replace(
    llama.FAMILY,
    name="olmo",
    architecture="OlmoModel",
    keys={
        **{path: key for path, key in _keys().items() if path != "decoder.norm.epsilon"},
        "decoder.attention.clip": Key("clip_qkv", None),
    },
    fixed={
        **llama.FIXED,
        "decoder.norm.kind": "plain_layer",
        "decoder.norm.epsilon": 1e-5,
        "decoder.feed_forward.bias": False,
    },
    rules=(heads_rule(None), rope_rule(2048), padding_rule(pad=1, eos=50279), CAUSAL),
    blocks={"decoder": Blocks(llama.block, _WITHOUT_NORMS)},
    modules={"token_embedding": "embed_tokens"},
    heads=_heads("Olmo"),
)

OLMO2 = replace(
    llama.FAMILY,
    name="olmo2",
    architecture="Olmo2Model",
    keys=_keys(),
    fixed={**llama.FIXED, **_NORMS, "decoder.feed_forward.bias": False},
    rules=(heads_rule(None), rope_rule(2048), padding_rule(pad=1, eos=50279), CAUSAL),
    blocks={"decoder": Blocks(llama.block, _BLOCK)},
    heads=_heads("Olmo2"),
)

OLMO3 = replace(
    OLMO2,
    name="olmo3",
    architecture="Olmo3Model",
    rules=(
        heads_rule(None),
        kinds.windows_rule(32, 4096, 4),
        kinds.rope_by_kind_rule(2048, 5e5, 5e5),
        padding_rule(pad=1, eos=50279),
        CAUSAL,
    ),
    required={"token_classification_bias": (True, None)},
    heads=_heads("Olmo3"),
)


def _read_kinds(reference: Mapping) -> dict:
    """Windows where there is one, and then no positions in the full layers."""
    layers = reference.get("num_hidden_layers") or 32
    window, every = reference.get("sliding_window", 4096), reference.get("sliding_window_pattern") or 4
    every = every if isinstance(every, int) else 4  # "LLLG" says the same
    types = kinds.layer_types(reference, layers, window, lambda layer: window is None or (layer + 1) % every == 0)
    return {**kinds.kinds(types, window), **({} if window is None else {"decoder.attention.full": {"rotary": None}})}


def _write_kinds(config) -> dict:
    widths = [width for width in kinds.windows(config) if width is not None]
    turning = all(one.rotary is not None for one in config.decoder.attention.values())
    window = widths[0] if widths else None if turning else 4096
    return {"sliding_window": window, "layer_types": kinds.types_of(config)}


EXAONE4 = replace(
    OLMO2,
    name="exaone4",
    architecture="Exaone4Model",
    keys=llama.without_biases(llama.sizes(102400, 32, 4096, 32, 16384, 2048, epsilon=1e-5)),
    fixed={
        **OLMO2.fixed,
        **llama.NO_BIASES,
        "decoder.attention.query_key_norm": "head",
        "decoder.positions": "none",
    },
    rules=(
        heads_rule(32),
        rope_rule(2048),
        Rule(("sliding_window", "sliding_window_pattern", "layer_types"), _read_kinds, _write_kinds),
        padding_rule(eos=2),
        CAUSAL,
    ),
    required={"token_classification_bias": (True, None)},
    heads=llama.heads_with_answers("Exaone4"),
)
