"""Each kind of adapter in peft's files: how its tensors are called and lie, and what its config says.

A tensor is named "base_model.model." + module + "." + suffix. peft has LoRA, AdaLoRA and (IA)^3; bottlenecks and
BitFit, which it does not have, are written in the same manner under types of their own.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from tfxformer.checkpoints.files.errors import CheckpointError
from tfxformer.compression.adapters.peft_names import (
    TABLE,
    ModuleNames,
    join_factors,
    join_outputs,
    prefix_keys,
    split_outputs,
)

RANK_MARGIN = 1e-5  # that peft adds to the rank which it divides AdaLoRA's products by
Tensors = dict[str, np.ndarray]


@dataclass(frozen=True)
class Format:
    """One kind of adapter.

    Attributes:
        peft_type: of the config.
        kind: of its `LayerAdapter`; None where it has none.
        suffixes: of a module's tensors; all of them, or none, are in a file.
        options: keys of the config that are read.
        ignored: keys of the config that say how it was trained.
        owners: None, or of paths those that a tensor without module belongs to, in its order.
        write: (names, {full module: {path: LayerAdapter}}) -> ({full module: {suffix: array}}, config).
        read: (config, full module, {suffix: array}, names, paths) -> {path: (arguments, {attribute: array}, (in, out)
            of which one may be None)}; None where there are no modules.
    """

    peft_type: str
    kind: str | None
    suffixes: tuple[str, ...]
    options: tuple[str, ...]
    write: Callable
    read: Callable | None
    ignored: tuple[str, ...] = ()
    owners: Callable | None = None


def common(values: Mapping[str, float]) -> float:
    """The value that most modules have."""
    return Counter(values.values()).most_common(1)[0][0]


def number(value: float) -> float | int:
    """A whole number as an integer, where float arithmetic has left nothing but its rounding."""
    return round(value) if math.isclose(value, round(value), rel_tol=1e-12) else value


def by_pattern(pattern: Mapping | None, full: str, default):
    """peft's `get_pattern_key`: the first key that, as a regular expression, is the end of the module's name."""
    return next((value for key, value in (pattern or {}).items() if re.match(rf"(.*\.)?({key})$", full)), default)


def _rates(modules) -> float:
    return max(adapter.rate for adapters in modules.values() for adapter in adapters.values())


# ---- LoRA -----------------------------------------------------------------------------------------------------


def _write_lora(names: ModuleNames, modules: Mapping) -> tuple[dict[str, Tensors], dict]:
    tensors, ranks, alphas = {}, {}, {}
    for full, adapters in modules.items():
        factors, scale = join_factors(names, adapters)
        tensors[full] = {"lora_A.weight": factors["a"].T, "lora_B.weight": factors["b"].T}
        ranks[full], alphas[full] = factors["a"].shape[1], number(scale * factors["a"].shape[1])
    rank, alpha = common(ranks), common(alphas)
    return tensors, {
        "r": rank,
        "lora_alpha": alpha,
        "lora_dropout": _rates(modules),
        "use_rslora": False,
        "bias": "none",
        "target_modules": names.shortest(ranks),
        "rank_pattern": {name: value for name, value in ranks.items() if value != rank},
        "alpha_pattern": {name: value for name, value in alphas.items() if value != alpha},
    }


def _read_lora(config: Mapping, full: str, tensors: Tensors, names: ModuleNames, paths: list[str]) -> dict:
    a, b = tensors["lora_A.weight"].T, tensors["lora_B.weight"].T
    rank = by_pattern(config.get("rank_pattern"), full, config.get("r", 8))
    if a.shape[1] != rank or b.shape[0] != rank:
        raise CheckpointError(
            f"{full!r} has factors of rank {a.shape[1]} and {b.shape[0]}, adapter_config.json says {rank}."
        )
    alpha = by_pattern(config.get("alpha_pattern"), full, config.get("lora_alpha", 8))
    scale = float(alpha / (math.sqrt(rank) if config.get("use_rslora") else rank))
    arguments = {"kind": "low_rank", "rank": rank, "scale": scale, "dropout": config.get("lora_dropout") or 0.0}
    return {
        path: (arguments, {"a": a, "b": part}, (a.shape[0], part.shape[1]))
        for path, part in split_outputs(names, paths, b).items()
    }


LORA = Format(
    "LORA",
    "low_rank",
    ("lora_A.weight", "lora_B.weight"),
    ("r", "lora_alpha", "lora_dropout", "use_rslora", "rank_pattern", "alpha_pattern"),
    _write_lora,
    _read_lora,
)

# ---- AdaLoRA --------------------------------------------------------------------------------------------------


def _write_adalora(names: ModuleNames, modules: Mapping) -> tuple[dict[str, Tensors], dict]:
    """All modules get one rank, the highest; peft's config has no other, and zeros cost nothing but bytes."""
    joined = {full: join_factors(names, adapters) for full, adapters in modules.items()}
    rank, scale = max(factors["a"].shape[1] for factors, _ in joined.values()), next(iter(joined.values()))[1]
    tensors = {}
    for full, (factors, own_scale) in joined.items():
        missing = rank - factors["a"].shape[1]
        a, b = np.pad(factors["a"], ((0, 0), (0, missing))), np.pad(factors["b"], ((0, missing), (0, 0)))
        e = np.pad(factors["e"], (0, missing)) * np.float32(own_scale / scale)
        tensors[full] = {"lora_A": a.T, "lora_B": b.T, "lora_E": e[:, None]}
    adapters = [adapter for of_module in modules.values() for adapter in of_module.values()]
    return tensors, {
        "init_r": rank,
        "target_r": max(1, round(float(np.mean([np.count_nonzero(one["lora_E"]) for one in tensors.values()])))),
        "lora_alpha": number(round(scale * (rank + RANK_MARGIN), 12)),
        "lora_dropout": _rates(modules),
        "orth_reg_weight": 2 * len(adapters) * adapters[0].orthogonality,
        "total_step": 1,  # peft wants one; it trains no further with a schedule that it does not know
        "bias": "none",
        "target_modules": names.shortest(tensors),
    }


def _read_adalora(config: Mapping, full: str, tensors: Tensors, names: ModuleNames, paths: list[str]) -> dict:
    a, b, e = tensors["lora_A"].T, tensors["lora_B"].T, tensors["lora_E"][:, 0]
    if not a.shape[1] == b.shape[0] == len(e):
        raise CheckpointError(f"{full!r} has {a.shape[1]}, {b.shape[0]} and {len(e)} ranks in A, B and E.")
    initial = config.get("init_r", 12)
    alpha = config.get("lora_alpha", 8)
    arguments = {
        "kind": "singular_values",
        "rank": len(e),
        # By the rank at first, whatever is left of it.
        "scale": float((alpha if alpha > 0 else initial) / (initial + RANK_MARGIN)),
        "dropout": config.get("lora_dropout") or 0.0,
        "orthogonality": config.get("orth_reg_weight", 0.5),
    }
    return {
        path: (arguments, {"a": a, "b": part, "e": e}, (a.shape[0], part.shape[1]))
        for path, part in split_outputs(names, paths, b).items()
    }


ADALORA = Format(
    "ADALORA",
    "singular_values",
    ("lora_A", "lora_B", "lora_E"),
    ("init_r", "lora_alpha", "lora_dropout", "orth_reg_weight", "rank_pattern"),
    _write_adalora,
    _read_adalora,
    ("r", "target_r", "tinit", "tfinal", "deltaT", "beta1", "beta2", "total_step", "use_rslora"),
)

# ---- (IA)^3 ---------------------------------------------------------------------------------------------------


def _write_ia3(names: ModuleNames, modules: Mapping) -> tuple[dict[str, Tensors], dict]:
    tensors, of_inputs = {}, []
    for full, adapters in modules.items():
        first = next(iter(adapters.values()))
        if not first.of_inputs:
            scales = {path: np.asarray(adapter.scale) for path, adapter in adapters.items()}
            tensors[full] = {"ia3_l": join_outputs(names, scales, 1.0)[:, None]}
            continue
        if names[next(iter(adapters))].part is not None:
            raise CheckpointError(
                f"{full!r} is query, key and value in one, whose inputs peft scales alike: not written."
            )
        tensors[full] = {"ia3_l": np.asarray(first.scale)[None]}
        of_inputs.append(full)
    feed_forward = names.shortest(of_inputs)
    others = names.shortest(set(tensors) - set(of_inputs))
    return tensors, {"target_modules": sorted({*others, *feed_forward}), "feedforward_modules": feed_forward}


def _read_ia3(config: Mapping, full: str, tensors: Tensors, names: ModuleNames, paths: list[str]) -> dict:
    scale = tensors["ia3_l"]
    if scale.shape[0] == 1:  # [1, in], else [out, 1]
        arguments = {"kind": "scaling", "of_inputs": True}
        return {path: (arguments, {"scale": scale[0]}, (scale.shape[1], None)) for path in paths}
    arguments = {"kind": "scaling", "of_inputs": False}
    parts = split_outputs(names, paths, scale.T)
    return {path: (arguments, {"scale": part[0]}, (None, part.shape[1])) for path, part in parts.items()}


IA3 = Format("IA3", "scaling", ("ia3_l",), (), _write_ia3, _read_ia3, ("feedforward_modules", "init_ia3_weights"))

# ---- prompt and prefix tuning ---------------------------------------------------------------------------------

VIRTUAL = "prompt_embeddings"  # [P, width], of the whole model
_SIZES = ("num_virtual_tokens", "token_dim", "num_transformer_submodules", "num_attention_heads", "num_layers")


def _sizes(length: int, width: int, heads: int, layers: int) -> dict:
    return dict(zip(_SIZES, (length, width, 1, heads, layers), strict=True))


def _write_prompt(names: ModuleNames, modules: Mapping) -> tuple[dict[str, Tensors], dict]:
    ((full, adapters),) = modules.items()
    (prompt,) = adapters.values()
    stack = names.stack
    sizes = _sizes(prompt.length, prompt.shape[1], stack.heads, stack.num_layers)
    return {full: {VIRTUAL: np.asarray(prompt.embeddings)}}, {**sizes, "prompt_tuning_init": "RANDOM"}


def _read_prompt(config: Mapping, full: str, tensors: Tensors, names: ModuleNames, paths: list[str]) -> dict:
    embeddings = tensors[VIRTUAL]
    arguments = {"kind": "prompt", "length": len(embeddings)}
    return {path: (arguments, {"embeddings": embeddings}, (None, embeddings.shape[1])) for path in paths}


PROMPT_TUNING = Format(
    "PROMPT_TUNING",
    "prompt",
    (VIRTUAL,),
    (),
    _write_prompt,
    _read_prompt,
    (*_SIZES, "prompt_tuning_init", "prompt_tuning_init_text", "tokenizer_name_or_path", "tokenizer_kwargs"),
    owners=lambda paths: [path for path in paths if path == TABLE],
)


def _places(names: ModuleNames, layers: int) -> list[int]:
    """Where in a file the keys and values of each layer stand: in order; of an encoder-decoder where peft reads them.

    It writes its table twice and cuts that in fours, for keys and values of each layer's self-attention and
    cross-attention, of which it drops the latter (`PeftModel.get_prompt` of peft 0.21).
    """
    return [2 * layer % layers if names.has_both_stacks else layer for layer in range(layers)]


def _write_prefix(names: ModuleNames, modules: Mapping) -> tuple[dict[str, Tensors], dict]:
    ((full, adapters),) = modules.items()
    keys = (prefix_keys(names, path, np.asarray(one.keys), back=True) for path, one in adapters.items())
    own = np.stack([[own, np.asarray(one.values)] for own, one in zip(keys, adapters.values(), strict=True)])
    layers, _, heads, length, size = own.shape
    pairs, places = np.zeros_like(own), _places(names, layers)
    pairs[places] = own
    if not np.array_equal(pairs[places], own):
        raise CheckpointError(
            f"peft gives some of the {layers} layers of this decoder the prefix of others, so its files hold none for "
            "each layer (they do of an odd number). Keep it in the model's own: model.save('model.keras')."
        )
    sizes = _sizes(length, heads * size, heads, layers)
    if names.has_both_stacks:
        sizes["num_transformer_submodules"] = 2
    flat = pairs.transpose(3, 0, 1, 2, 4).reshape(length, -1)  # [L, 2, G, P, H] -> [P, L * 2 * G * H]
    return {full: {VIRTUAL: flat}}, {**sizes, "prefix_projection": False}


def _read_prefix(config: Mapping, full: str, tensors: Tensors, names: ModuleNames, paths: list[str]) -> dict:
    flat, stack = tensors[VIRTUAL], names.stack
    heads, length = stack.key_value_heads, len(flat)
    if flat.shape[1] != len(paths) * 2 * heads * stack.head_width:
        raise CheckpointError(
            f"A prefix of {flat.shape[1]} numbers a token, the model wants {len(paths)} layers, keys and values, "
            f"{heads} heads and {stack.head_width} channels: it belongs to another base model."
        )
    # [P, L * 2 * G * H] -> [L, 2, G, P, H]
    pairs = flat.reshape(length, len(paths), 2, heads, stack.head_width).transpose(1, 2, 3, 0, 4)
    arguments = {"kind": "prefix", "length": length, "heads": heads}
    return {
        path: (arguments, {"keys": prefix_keys(names, path, keys), "values": values}, (None, None))
        for path, (keys, values) in zip(paths, pairs[_places(names, len(paths))], strict=True)
    }


PREFIX_TUNING = Format(
    "PREFIX_TUNING",
    "prefix",
    (VIRTUAL,),
    (),
    _write_prefix,
    _read_prefix,
    (*_SIZES, "prefix_projection", "encoder_hidden_size", "init_weights"),
    owners=lambda paths: [path for path in paths if path.endswith("/self_attention")],
)

# ---- what peft does not have ----------------------------------------------------------------------------------

_DENSE = {
    "adapter_down.weight": "down_kernel",
    "adapter_down.bias": "down_bias",
    "adapter_up.weight": "up_kernel",
    "adapter_up.bias": "up_bias",
}


def _write_bottleneck(names: ModuleNames, modules: Mapping) -> tuple[dict[str, Tensors], dict]:
    tensors = {}
    for full, adapters in modules.items():
        (adapter,) = adapters.values()
        tensors[full] = {suffix: np.asarray(getattr(adapter, name)).T for suffix, name in _DENSE.items()}
    return tensors, {"activation": adapter.activation, "target_modules": names.shortest(tensors)}


def _read_bottleneck(config: Mapping, full: str, tensors: Tensors, names: ModuleNames, paths: list[str]) -> dict:
    arrays = {name: tensors[suffix].T for suffix, name in _DENSE.items()}
    width, size = arrays["down_kernel"].shape
    arguments = {"kind": "bottleneck", "size": size, "activation": config.get("activation", "gelu")}
    return dict.fromkeys(paths, (arguments, arrays, (None, width)))


def _write_nothing(names: ModuleNames, modules: Mapping) -> tuple[dict[str, Tensors], dict]:
    return {}, {}


BOTTLENECK = Format("BOTTLENECK", "bottleneck", tuple(_DENSE), ("activation",), _write_bottleneck, _read_bottleneck)
BITFIT = Format("BITFIT", None, (), (), _write_nothing, None)  # all of it are variables that are trained whole
FORMATS = {one.peft_type: one for one in (LORA, ADALORA, IA3, PROMPT_TUNING, PREFIX_TUNING, BOTTLENECK, BITFIT)}


def format_of(layers: Mapping) -> Format:
    """The format of an adapter, by what it has beside its layers."""
    kind = next((adapter.kind for adapter in layers.values()), None)
    return next(one for one in FORMATS.values() if one.kind == kind)
