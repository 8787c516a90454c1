"""Rotary positions in config.json: transformers 5's `rope_parameters`, and the older spellings of the same."""

from __future__ import annotations

import math
from collections.abc import Mapping

from tfxformer.checkpoints.family import Rule
from tfxformer.checkpoints.files.errors import CheckpointError
from tfxformer.layers.attention.rotary import ROTARY_KINDS, Rotary
from tfxformer.models import TransformerConfig

# What each kind reads besides `_COMMON`, by our names; another key would be silently dropped.
_FRACTION = "partial_rotary_factor"
_COMMON = {"rope_theta": "base", _FRACTION: "fraction"}
_KEYS = {
    "default": {},
    "linear": {"factor": "factor"},
    "dynamic": {"factor": "factor"},
    "ntk": {"factor": "factor"},
    "llama3": {
        "factor": "factor",
        "low_freq_factor": "low_frequency_factor",
        "high_freq_factor": "high_frequency_factor",
        "original_max_position_embeddings": "original_max_positions",
    },
    "longrope": {
        "factor": "factor",
        "short_factor": "short_factors",
        "long_factor": "long_factors",
        "attention_factor": "attention_factor",
        "original_max_position_embeddings": "original_max_positions",
    },
    "yarn": {
        "factor": "factor",
        "beta_fast": "beta_fast",
        "beta_slow": "beta_slow",
        "attention_factor": "attention_factor",
        "original_max_position_embeddings": "original_max_positions",
    },
}
_NEEDED = ("factor", "low_freq_factor", "high_freq_factor", "short_factor", "long_factor")
_OF_ALL = tuple(kind for kind in ROTARY_KINDS if kind != "ntk")  # those that transformers itself has
_YARN_SCALES = ("mscale", "mscale_all_dim")


def rope_rule(
    max_positions: int,
    base: str = "rope_theta",
    fraction: str | None = None,
    default_fraction: float = 1.0,
    default_base: float = 10000.0,
    words: Mapping[str, str] | None = None,
) -> Rule:
    """The rule of `decoder.attention.rotary`.

    Args:
        max_positions: what an absent `max_position_embeddings` means.
        base, fraction: the family's older keys outside of the parameters; no fraction where all channels turn.
        default_fraction: share of a head's channels that turn where no key says it.
        default_base: theta where no key says it.
        words: the family's own words for kinds of rotary positions -> ours.
    """

    def read(reference: Mapping) -> dict:
        given = reference.get("rope_scaling") or reference.get("rope_parameters") or {}
        outside = {"rope_theta": reference.get(base), _FRACTION: reference.get(fraction or _FRACTION)}
        default = {"rope_theta": default_base, _FRACTION: default_fraction}
        parameters = {**default, **stated(outside), **stated(given)}
        for key in ("type", "rope_type"):
            if isinstance(parameters.get(key), str):
                parameters[key] = (words or {}).get(parameters[key], parameters[key])
        longest = reference.get("max_position_embeddings") or max_positions
        trained = reference.get("original_max_position_embeddings")  # Phi's place for it goes before the parameters
        rotary = read_rotary(parameters, trained, longest)
        if fraction is None and rotary.fraction != 1.0:
            raise CheckpointError(f"config.json says {_FRACTION}={rotary.fraction}; this family turns whole heads.")
        return {"decoder.attention.rotary": rotary}

    keys = ("rope_parameters", "rope_scaling", base, fraction or _FRACTION)
    return Rule(keys, read, lambda config: {"rope_parameters": _parameters(config, fraction is not None)})


def stated(values: Mapping) -> dict:
    """Without the keys that are null."""
    return {key: value for key, value in values.items() if value is not None}


def read_rotary(parameters: dict, trained: int | None, longest: int, kinds: tuple[str, ...] = _OF_ALL) -> Rotary:
    """Parameters, all in one dict, as `Rotary`.

    Args:
        parameters: those of a `rope_parameters`, with `rope_theta`.
        trained: tokens that it was trained on, where they stand outside of the parameters.
        longest: `max_position_embeddings`.
        kinds: which the family's code has.

    Raises:
        CheckpointError: for what is not implemented.
    """
    older = parameters.pop("type", "default")
    kind = parameters.pop("rope_type", older)
    if kind not in kinds:
        raise CheckpointError(
            f"config.json says rope_type={kind!r}; tfxformer implements {', '.join(kinds)}, and would be "
            "silently wrong otherwise."
        )
    known = {**_COMMON, **_KEYS[kind]}
    if kind == "yarn":
        _scale_of_yarn(parameters)
        if parameters.pop("truncate", True) is not True:
            raise CheckpointError("config.json says truncate=false of its yarn positions, which is not implemented.")
    if "original_max_position_embeddings" in known and trained:
        parameters["original_max_position_embeddings"] = trained
    if kind == "longrope" and parameters.get("original_max_position_embeddings"):  # else it is missing, see below
        # Where no factor stands the lengths tell it; below one it stretches nothing.
        ratio = longest / parameters["original_max_position_embeddings"]
        parameters["factor"] = max(parameters.get("factor") or ratio, 1.0)
    if kind == "dynamic":
        _check_dynamic(parameters, longest)
    if kind in ("default", "linear"):
        parameters.pop("original_max_position_embeddings", None)  # nothing depends on it
    unknown = sorted(set(parameters) - set(known))
    if unknown:
        raise CheckpointError(
            f"config.json gives rotary positions of type {kind!r} the keys {', '.join(unknown)}, which tfxformer does "
            f"not know for it; it knows {', '.join(known)}. They would be silently dropped otherwise."
        )
    missing = [key for key in _NEEDED if key in known and key not in parameters]
    missing += ["original_max_position_embeddings"] if kind == "longrope" and "factor" in missing else []
    if missing:
        raise CheckpointError(f"config.json's rotary positions of type {kind!r} lack {', '.join(missing)}.")
    values = {known[key]: value for key, value in parameters.items()}
    if kind in ("dynamic", "llama3", "longrope", "yarn"):
        values.setdefault("original_max_positions", longest)
    return Rotary(kind=kind, **values)


def _check_dynamic(parameters: dict, longest: int) -> None:
    trained = parameters.pop("original_max_position_embeddings", longest)
    if trained != longest:
        raise CheckpointError(
            f"config.json says original_max_position_embeddings={trained} of its dynamic positions, beside "
            f"max_position_embeddings={longest}: versions of transformers take one or the other. Make them equal."
        )


def _scale_of_yarn(parameters: dict) -> None:
    """DeepSeek's way of saying the attention factor, put as the factor itself."""
    scales = [parameters.pop(key, None) for key in _YARN_SCALES]
    if not all(scales) or parameters.get("attention_factor") is not None or "factor" not in parameters:
        return
    factor = parameters["factor"]
    above, below = (0.1 * scale * math.log(factor) + 1.0 if factor > 1 else 1.0 for scale in scales)
    parameters["attention_factor"] = above / below


def _parameters(config: TransformerConfig, partial: bool) -> dict:
    """Those of the first kind that turns: others may not."""
    rotary = next((one.rotary for one in config.decoder.attention.values() if one.rotary is not None), None)
    return {} if rotary is None else rotary_parameters(rotary, partial)


def rotary_parameters(rotary: Rotary, partial: bool = False) -> dict:
    """The inverse of `read_rotary`; `partial` says whether the share that turns stands there even where it is all."""
    values = {key: getattr(rotary, ours) for key, ours in {**_COMMON, **_KEYS[rotary.kind]}.items()}
    if not partial and rotary.fraction == 1.0:
        del values[_FRACTION]
    return {"rope_type": rotary.kind, **stated(values)}
