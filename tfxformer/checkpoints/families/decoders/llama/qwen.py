"""Qwen2 and Qwen2.5 (Yang et al., 2024, arXiv:2407.10671), Qwen3 (Yang et al., 2025, arXiv:2505.09388)."""

from collections.abc import Mapping
from dataclasses import replace

from tfxformer.checkpoints.families.decoders import kinds
from tfxformer.checkpoints.families.decoders.llama import llama
from tfxformer.checkpoints.families.decoders.shared import CAUSAL, heads_rule, padding_rule
from tfxformer.checkpoints.family import Blocks, Key, Rule
from tfxformer.checkpoints.rope import rope_rule


def _read_windows(reference: Mapping) -> dict:
    """Which layers have the window: `layer_types`, or those from `max_window_layers` on."""
    layers = reference.get("num_hidden_layers") or 32
    window = reference.get("sliding_window", 4096)
    window = window if reference.get("use_sliding_window") else None
    first = reference.get("max_window_layers", 28)
    types = kinds.layer_types(reference, layers, window, lambda layer: window is None or layer < first)
    return kinds.kinds(types, window)


def _write_windows(config) -> dict:
    windows = kinds.windows(config)
    windowed = [window is not None for window in windows]
    return {
        "use_sliding_window": any(windowed),
        "sliding_window": next((window for window in windows if window is not None), None),
        "max_window_layers": windowed.index(True) if any(windowed) else len(windows),
        "layer_types": kinds.types_of(config),
    }


_WINDOWS = Rule(
    ("use_sliding_window", "sliding_window", "max_window_layers", "layer_types"), _read_windows, _write_windows
)

FAMILY = replace(
    llama.MISTRAL,
    name="qwen2",
    architecture="Qwen2Model",
    keys={
        **llama.MISTRAL.keys,
        "vocabulary_size": Key("vocab_size", 151936),
        "decoder.feed_forward.size": Key("intermediate_size", 22016),
        "decoder.max_positions": Key("max_position_embeddings", 32768),
    },
    fixed={**llama.MISTRAL.fixed, "decoder.attention.bias": True, "decoder.attention.output_bias": False},
    rules=(
        heads_rule(32),
        rope_rule(32768),
        padding_rule(),
        CAUSAL,
        _WINDOWS,
    ),
    required={key: values for key, values in llama.REQUIRED.items() if key != "layer_types"},
    heads=llama.heads_with_answers("Qwen2"),
)

QWEN3 = replace(
    FAMILY,
    name="qwen3",
    architecture="Qwen3Model",
    keys={**FAMILY.keys, "decoder.attention.bias": llama.KEYS["decoder.attention.bias"]},
    fixed={
        **llama.FIXED,
        "decoder.feed_forward.bias": False,
        "decoder.attention.query_key_norm": "head",
    },
    rules=(heads_rule(32, width=128), rope_rule(32768), padding_rule(), CAUSAL, _WINDOWS),
    blocks={"decoder": Blocks(llama.block, {**llama.BLOCK, **llama.QUERY_KEY_NORMS})},
    heads=llama.heads_with_answers("Qwen3"),
)
