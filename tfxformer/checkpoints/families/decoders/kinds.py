"""Kinds of attention in config.json: which layers have which, their windows, and rotary positions of their own."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from tfxformer.checkpoints.family import Rule
from tfxformer.checkpoints.files.errors import CheckpointError
from tfxformer.checkpoints.rope import read_rotary, rotary_parameters, stated

FULL, SLIDING = "full_attention", "sliding_attention"
NAMES = {FULL: "full", SLIDING: "sliding"}  # ours


def layer_types(reference: Mapping, layers: int, window: int | None, is_full: Callable[[int], bool]) -> list[str]:
    """`FULL` or `SLIDING` for each layer.

    Args:
        reference: config.json.
        layers: how many there are.
        window: that of the sliding ones.
        is_full: whether the layer of a number is, where config.json does not list them.

    Raises:
        CheckpointError: for a list of another length, with another word in it, or of windows without their width.
    """
    types = reference.get("layer_types")
    if types is None:
        types = [FULL if is_full(layer) else SLIDING for layer in range(layers)]
    if not set(types) <= {FULL, SLIDING} or len(types) != layers or (window is None and SLIDING in types):
        raise CheckpointError(
            f"config.json says layer_types={types} for {layers} layers with sliding_window={window!r}; tfxformer wants "
            f"{FULL!r} or (with a window) {SLIDING!r} for each."
        )
    return types


def kinds(types: list[str], window: int | None) -> dict:
    """Our switches of full layers and of those with a window."""
    return {
        "decoder.attention.full": {},
        "decoder.attention.sliding": {"window": window},
        "decoder.pattern": [NAMES[kind] for kind in types],
    }


def windows(config) -> list[int | None]:
    """The window of each layer."""
    stack = config.decoder
    return [stack.attention_of(layer).window for layer in range(stack.num_layers)]


def types_of(config) -> list[str]:
    """`FULL` or `SLIDING` for each layer."""
    return [FULL if window is None else SLIDING for window in windows(config)]


def window_rule(default: int | None) -> Rule:
    """The rule of one window of all layers; `default` is what an absent `sliding_window` means, null is none."""
    return Rule(
        ("sliding_window",),
        lambda reference: {"decoder.attention.window": reference.get("sliding_window", default)},
        lambda config: {"sliding_window": config.decoder.attention_of(0).window},
    )


def windows_rule(layers: int, window: int | None, period: int) -> Rule:
    """The rule of layers with and without a window.

    Args:
        layers, window: what absent `num_hidden_layers` and `sliding_window` mean; a null window is none.
        period: every so many-th layer is full where neither `layer_types` nor `sliding_window_pattern` says it.
    """

    def read(reference: Mapping) -> dict:
        width, every = reference.get("sliding_window", window), reference.get("sliding_window_pattern") or period
        count = reference.get("num_hidden_layers") or layers
        return kinds(layer_types(reference, count, width, lambda layer: (layer + 1) % every == 0), width)

    def write(config) -> dict:
        widths = [width for width in windows(config) if width is not None]
        return {"sliding_window": widths[0] if widths else window, "layer_types": types_of(config)}

    return Rule(("sliding_window", "sliding_window_pattern", "layer_types"), read, write)


def rope_by_kind_rule(max_positions: int, full: float, sliding: float, sliding_base: str | None = None) -> Rule:
    """The rule of rotary positions that full layers and those with a window have each of their own.

    Args:
        max_positions: what an absent `max_position_embeddings` means.
        full, sliding: what absent bases mean.
        sliding_base: the older key of the sliding layers' base; None where there was none.
    """
    older = tuple(key for key in ("rope_theta", "rope_scaling", sliding_base) if key)
    bases = {FULL: ("rope_theta", full), SLIDING: (sliding_base, sliding)}

    def read(reference: Mapping) -> dict:
        given = reference.get("rope_parameters") or {}
        if unknown := sorted(set(given) - set(bases)):
            raise CheckpointError(
                f"config.json gives rope_parameters the keys {', '.join(unknown)}; this family has those of "
                f"{' and '.join(bases)}, each in a dict of its own."
            )
        longest = reference.get("max_position_embeddings") or max_positions
        found = {}
        for kind, (key, default) in bases.items():
            parameters = {"rope_theta": reference.get(key) or default, **stated(given.get(kind) or {})}
            if kind == FULL:  # what stretches positions does so in full layers alone
                parameters |= stated(reference.get("rope_scaling") or {})
            path = f"decoder.attention.{NAMES[kind]}.rotary"
            found[path] = read_rotary(parameters, None, longest)
        return found

    def write(config) -> dict:
        rotaries = {}
        for one in config.decoder.attention.values():
            rotaries.setdefault(FULL if one.window is None else SLIDING, one.rotary)
        return {"rope_parameters": {kind: rotary_parameters(rotary) for kind, rotary in rotaries.items() if rotary}}

    return Rule(("rope_parameters", *older), read, write)
