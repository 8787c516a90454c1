"""Configs as version 0.5.0 and those before it wrote them: one flat list of switches for each stack."""

from __future__ import annotations

from tfxformer.arguments.keywords import nearest

# Older switch -> its part of a stack and its name there.
_SWITCHES = {
    "num_heads": ("attention", "heads"),
    "num_key_value_heads": ("attention", "key_value_heads"),
    "head_size": ("attention", "width"),
    "attention_bias": ("attention", "bias"),
    "attention_output_bias": ("attention", "output_bias"),
    "scale_attention_by_layer": ("attention", "scale_by_layer"),
    "causal": ("attention", "causal"),
    "rotary": ("attention", "rotary"),
    "feed_forward_size": ("feed_forward", "size"),
    "activation": ("feed_forward", "activation"),
    "gated": ("feed_forward", "gated"),
    "feed_forward_bias": ("feed_forward", "bias"),
    "norm": ("norm", "kind"),
    "norm_position": ("norm", "placement"),
    "norm_epsilon": ("norm", "epsilon"),
    "embedding_norm": ("norm", "embedding"),
    "final_norm": ("norm", "final"),
}
_KEPT = (
    "num_layers", "hidden_size", "max_positions", "position_mode", "position_offset", "layer_groups",
    "layers_per_group", "dropout", "attention_dropout", "embedding_dropout", "stochastic_depth",
)  # fmt: skip
_OTHERS = ("scale_attention", "sliding_window", "windowed_layers", "positions")


def converted(values: dict) -> dict:
    """A whole config's dict with the stacks of today, of one with today's or older ones.

    Raises:
        ValueError: for an older stack with a switch that there never was.
    """
    values = dict(values)
    for name in ("encoder", "decoder"):
        stack = values.get(name)
        if isinstance(stack, dict) and "attention" not in stack:
            values[name] = _converted_stack(stack, name == "decoder")
    return values


def _converted_stack(stack: dict, decoder: bool) -> dict:
    known = (*_SWITCHES, *_KEPT, *_OTHERS)
    unknown = [name for name in stack if name not in known]
    if unknown:
        near = "".join(f" ({name}: did you mean {ours}?)" for name in unknown if (ours := nearest(name, known)))
        raise ValueError(f"StackConfig has no {', '.join(unknown)}{near}; version 0.5.0 knew {', '.join(known)}.")
    new = {name: stack[name] for name in _KEPT if name in stack}
    for older, (part, name) in _SWITCHES.items():
        if older in stack:
            new.setdefault(part, {})[name] = stack[older]
    attention = new["attention"]
    if not decoder:
        attention["causal"] = False  # an encoder had the switch, and did not read it
    if not stack.get("scale_attention", True):
        attention["scale"] = 1.0
    if stack.get("positions") == "alibi":
        attention["scores"] = {"kind": "alibi"}
    window, layers = stack.get("sliding_window"), stack.get("windowed_layers")
    if window is not None and layers is None:
        attention["window"] = window
    elif window is not None:
        new["attention"] = {**attention, "full": {}, "sliding": {"window": window}}
        new["pattern"] = tuple("sliding" if one else "full" for one in layers)
    return new
