"""SmolLM3 (Bakouch et al., 2025): a Llama of which every fourth layer turns nothing (Yang et al., arXiv:2501.18795).

SmolLM2 is a Llama.
"""

from collections.abc import Mapping
from dataclasses import replace

from tfxformer.checkpoints.families.decoders import kinds
from tfxformer.checkpoints.families.decoders.llama import llama
from tfxformer.checkpoints.families.decoders.shared import CAUSAL, heads_rule, padding_rule
from tfxformer.checkpoints.family import Rule
from tfxformer.checkpoints.files.errors import CheckpointError
from tfxformer.checkpoints.rope import rope_rule


def _read_kinds(reference: Mapping) -> dict:
    """Which layers turn their queries and keys, and which have a window: by default those that do not turn."""
    layers, every = reference.get("num_hidden_layers") or 36, reference.get("no_rope_layer_interval") or 4
    turned = reference.get("no_rope_layers") or [int((layer + 1) % every != 0) for layer in range(layers)]
    if not isinstance(turned, list) or len(turned) < layers or not set(turned) <= {0, 1}:
        raise CheckpointError(
            f"config.json says no_rope_layers={turned!r}; wanted a 1 or 0 for each of {layers} layers."
        )
    window = reference.get("sliding_window") if reference.get("use_sliding_window") else None
    types = kinds.layer_types(reference, layers, window, lambda layer: window is None or bool(turned[layer]))
    found = kinds.kinds(types, window)
    for name in kinds.NAMES.values():
        found[f"decoder.attention.{name}_nope"] = {**found[f"decoder.attention.{name}"], "rotary": None}
    pattern = zip(found["decoder.pattern"], turned, strict=False)
    return {**found, "decoder.pattern": [name if turns else f"{name}_nope" for name, turns in pattern]}


def _write_kinds(config) -> dict:
    stack, windows = config.decoder, kinds.windows(config)
    return {
        "no_rope_layers": [int(stack.attention_of(layer).rotary is not None) for layer in range(stack.num_layers)],
        "layer_types": kinds.types_of(config),
        "use_sliding_window": any(windows),
        "sliding_window": next((window for window in windows if window is not None), None),
    }


FAMILY = replace(
    llama.FAMILY,
    name="smollm3",
    architecture="SmolLM3Model",
    keys=llama.sizes(128256, 36, 2048, 16, 11008, 32768, tied=True),
    fixed={**llama.FIXED, "decoder.positions": "none"},
    rules=(
        heads_rule(4, None, 16, 2048),
        rope_rule(32768, default_base=2e6),
        padding_rule(pad=128004, eos=128001),
        CAUSAL,
        Rule(
            ("no_rope_layers", "no_rope_layer_interval", "layer_types", "use_sliding_window", "sliding_window"),
            _read_kinds,
            _write_kinds,
        ),
    ),
    required={key: values for key, values in llama.REQUIRED.items() if key != "layer_types"},
    heads=llama.heads_with_answers("SmolLM3"),
)
