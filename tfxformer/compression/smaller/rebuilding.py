"""A model made anew with other sizes: its config changed, its weights cut to fit."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from numbers import Integral

import keras
import numpy as np
from keras import ops

from tfxformer.backend import strategy_of
from tfxformer.checkpoints.generation_settings import renumbered
from tfxformer.models import TransformerConfig
from tfxformer.models.backbone import Backbone


def backbone_of(model) -> Backbone:
    """The one encoder or decoder (or both in one) of a model of ours: the model itself, or what a task stands on.

    Raises:
        TypeError: for a model that is not ours. ValueError: for one on several encoders.
    """
    backbone = model if isinstance(model, Backbone) else getattr(model, "backbone", None)
    if not isinstance(backbone, Backbone):
        raise TypeError(
            "Heads, neurons, layers and tokens are removed from tfxformer's models: an Encoder, a Decoder, or a task "
            f"on one; got {type(model).__module__}.{type(model).__name__}. Load the checkpoint by "
            "tfxformer.from_pretrained or a task's from_pretrained. compression.Prune takes any Keras model."
        )
    others = [layer for layer in model._flatten_layers() if isinstance(layer, Backbone) and layer is not backbone]
    if others:
        raise ValueError(
            f"{type(model).__name__} trains {len(others) + 1} encoders together, whose sizes hang together. Save it by "
            "save_pretrained, load the one to keep by from_pretrained, and make that smaller."
        )
    return backbone


def named_layers(name: str, argument: str, layers, there: int) -> list[int]:
    """Numbers of layers that a function was given, checked: ascending, from 0 to `there` - 1.

    Args:
        name, argument: what was called, for messages.

    Raises:
        TypeError: for what is no list of numbers. ValueError: for none, one that is not there, or another order.
    """
    layers = None if isinstance(layers, str) or not isinstance(layers, Iterable) else list(layers)
    if layers is None or not all(isinstance(one, Integral) and not isinstance(one, bool) for one in layers):
        raise TypeError(f"{name}: {argument} are the numbers of layers, such as (0, 2, 4); got {layers!r}.")
    kept = [int(layer) for layer in layers]
    if not kept or sorted(set(kept)) != kept or kept[0] < 0 or kept[-1] >= there:
        raise ValueError(
            f"{name}: {argument}={tuple(kept)} must name layers of 0 to {there - 1} in ascending order, each once, "
            "and at least one."
        )
    return kept


def keep_layers(model, part, kept: list[int], name: str, argument: str):
    """A new model of some layers of another, in their order; none may share its weights.

    Args:
        part: OneStack, whose layers they are.
        kept: their numbers, from 0, ascending.
        name, argument: what was called, for messages.

    Raises:
        ValueError: for layers whose scores are scaled by their number and would get another; else as `rebuild` says.
    """
    stack = part.config
    if any(kind.scale_by_layer for kind in stack.attention.values()) and kept != list(range(len(kept))):
        raise ValueError(
            f"{name}: this model scales attention by the number of the layer, which layers {kept} would not keep; "
            f"only its last layers can go: {argument}={tuple(range(len(kept)))}."
        )
    if not stack.norm.first and kept[0] != 0:
        raise ValueError(
            f"{name}: the first layer of this model has no norm before its attention, and each other one has: layer "
            f"{kept[0]} cannot be the first. Keep layer 0 in {argument}."
        )
    config = part.with_changes(num_layers=len(kept), pattern=tuple(stack.kinds[i] for i in kept))
    return rebuild(model, config, {}, names=part.names_after(kept))


def rebuild(
    model,
    config: TransformerConfig,
    cuts: Mapping[str, tuple[int, np.ndarray]],
    names: tuple[Mapping[str, str], set[str]] | None = None,
    tokenizer=None,
    reference_config: dict | None = None,
    values: Mapping[str, np.ndarray] | None = None,
    kept_ids: np.ndarray | None = None,
):
    """A new model of the same class, with the weights of another: nothing of the first is changed.

    Args:
        model: a task or a backbone, with the weights.
        config: TransformerConfig of the new one's backbone.
        cuts: path of a weight in `model` -> (axis, int [kept]), the places that are kept, in order.
        names: first parts of paths in the new model -> in `model`, where they differ; and those that have no place in
            the new one. None for the same.
        tokenizer: the new one's; None for the same.
        reference_config: the `config.json` that is passed through when it is saved; None for the same.
        values: path of a weight in the new model -> its value, of those that are no part of a weight in `model`.
        kept_ids: the ids of tokens that become 0, 1, ... in the new one; None for all.

    Returns:
        keras.Model, not compiled: the state of an optimizer fits no other sizes. Layers that were frozen one by one
        train again, as they do in a model read from a file.

    Raises:
        ValueError: for weights that the config does not describe (adapters, quantized kernels).
    """
    backbone = backbone_of(model)
    described = model.get_config()
    inner = described if model is backbone else described["backbone"]["config"]
    inner["config"] = config.to_dict()
    inner["reference_config"] = reference_config or backbone.reference_config
    if kept_ids is not None:
        for part in (described, *(task["config"] for task in described.get("tasks", {}).values())):
            if part.get("generation_config"):
                part["generation_config"] = renumbered(part["generation_config"], kept_ids)
            if part.get("decoder_start_token_id") is not None:
                part["decoder_start_token_id"] = int(np.searchsorted(kept_ids, part["decoder_start_token_id"]))
    if tokenizer is not None:
        described["tokenizer"] = tokenizer.to_json()
        for task in described.get("tasks", {}).values():
            task["config"]["tokenizer"] = described["tokenizer"]
    if described.get("adapters") or inner.get("adapters"):
        raise ValueError(
            "The model has adapters, which stand beside weights that would be cut: merge() or remove() them first."
        )
    with strategy_of(model).scope():
        new = type(model).from_config(described)
        _fill(new, model, cuts, *(names or ({}, set())), values or {})
    return new


def _fill(new, model, cuts: Mapping, names: Mapping[str, str], removed: set[str], values: Mapping) -> None:
    """Gives a model the weights of another, cut.

    Args:
        names: first part of a block's paths in `new` -> in `model`.
        removed: first parts of the paths in `model` that have no place in `new`.
    """
    old = {
        path: variables
        for path, variables in _by_path(model.weights).items()
        if path.partition("/")[0] not in removed and path not in values
    }
    pairs = {}
    for path, variables in _by_path(new.weights).items():
        if path in values:
            for variable in variables:
                variable.assign(values[path])
            continue
        first, slash, rest = path.partition("/")
        pairs[names.get(first, first) + slash + rest] = variables
    if pairs.keys() != old.keys():
        others = sorted(pairs.keys() ^ old.keys())
        raise ValueError(
            f"The model has other weights than its config describes: {', '.join(others[:5])}. Merge or remove its "
            "adapters, or take it as it was before it was quantized."
        )
    for path, variables in pairs.items():
        for variable, value in zip(variables, old[path], strict=True):
            variable.assign(_cut(value, *cuts[path]) if path in cuts else value)


def _cut(variable: keras.Variable, axis: int, kept: np.ndarray):
    return ops.take(variable.value, kept, axis=axis)


def _by_path(variables) -> dict[str, list[keras.Variable]]:
    """Variables by path, in their order where several tasks have the same."""
    found: dict[str, list[keras.Variable]] = {}
    for variable in variables:
        found.setdefault(variable.path, []).append(variable)
    return found
