"""Qwen2 and Qwen2.5 (Yang et al., 2024, arXiv:2407.10671), Qwen3 (Yang et al., 2025, arXiv:2505.09388)."""

from collections.abc import Mapping
from dataclasses import replace

from tfxformer.checkpoints.families.decoders.llama import llama
from tfxformer.checkpoints.families.decoders.shared import CAUSAL, padding_rule
from tfxformer.checkpoints.family import Blocks, Key, Rule
from tfxformer.checkpoints.files.errors import CheckpointError
from tfxformer.checkpoints.rope import rope_rule

_FULL, _SLIDING = "full_attention", "sliding_attention"


def _read_windows(reference: Mapping) -> dict:
    """Which layers have the window: `layer_types`, or those from `max_window_layers` on."""
    layers = reference.get("num_hidden_layers") or 32
    window = reference.get("sliding_window", 4096)
    window = window if reference.get("use_sliding_window") else None
    types = reference.get("layer_types")
    if types is None:
        first = reference.get("max_window_layers", 28)
        types = [_FULL if window is None or i < first else _SLIDING for i in range(layers)]
    if not set(types) <= {_FULL, _SLIDING} or len(types) != layers or (window is None and _SLIDING in types):
        raise CheckpointError(
            f"config.json says layer_types={types} for {layers} layers with sliding_window={window!r}; tfxformer wants "
            f"{_FULL!r} or (with a window) {_SLIDING!r} for each."
        )
    if len(set(types)) == 1:
        return {"decoder.attention.window": window if types[0] == _SLIDING else None}
    kinds = ["sliding" if kind == _SLIDING else "full" for kind in types]
    return {"decoder.attention.full": {}, "decoder.attention.sliding": {"window": window}, "decoder.pattern": kinds}


def _write_windows(config) -> dict:
    stack = config.decoder
    windows = [stack.attention_of(layer).window for layer in range(stack.num_layers)]
    windowed = [window is not None for window in windows]
    return {
        "use_sliding_window": any(windowed),
        "sliding_window": next((window for window in windows if window is not None), None),
        "max_window_layers": windowed.index(True) if any(windowed) else stack.num_layers,
        "layer_types": [_SLIDING if one else _FULL for one in windowed],
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
        llama.heads_rule(32),
        rope_rule(32768),
        padding_rule(),
        CAUSAL,
        _WINDOWS,
    ),
    required={key: values for key, values in llama.REQUIRED.items() if key != "layer_types"},
    heads=llama.heads("Qwen2"),
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
    rules=(llama.heads_rule(32, width=128), rope_rule(32768), padding_rule(), CAUSAL, _WINDOWS),
    blocks={"decoder": Blocks(llama.block, {**llama.BLOCK, **llama.QUERY_KEY_NORMS})},
    heads=llama.heads("Qwen3"),
)
