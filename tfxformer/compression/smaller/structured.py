"""Structured pruning: attention heads, feed-forward neurons and whole layers go, and a smaller model is left.

Every layer loses as many heads and neurons as every other, its own least important ones. A `TransformerConfig` then
still says all sizes in one number each, so that the small model is a model like any: it saves, loads, trains and is
exported by the same code, and transformers opens its checkpoints wherever the family can say the sizes. Sizes that
differ from layer to layer would save a little more at the same accuracy, and fit no reference's config.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from numbers import Integral

import numpy as np

from tfxformer.compression.smaller.importance import (
    check_all_have_heads,
    head_importance,
    layer_importance,
    neuron_importance,
)
from tfxformer.compression.smaller.one_stack import OneStack, stack_of
from tfxformer.compression.smaller.rebuilding import keep_layers, named_layers, rebuild
from tfxformer.compression.smaller.structures import NEURONS, RemovableParts, attentions


def remove_heads(
    model, keep: int, importance="magnitude", data=None, batch_size: int = 32, *, stack: str | None = None
):
    """A smaller model with `keep` attention heads in each layer, the most important ones (arXiv:1905.10650).

    Heads that share keys and values (grouped heads) go together with these. The width of a head stays, and so does
    that of the stream.

    Args:
        model: a task of ours, or a bare encoder or decoder; it stays as it is.
        keep: int, query heads left in each layer; with grouped heads a multiple of those of a group.
        importance: "magnitude", "taylor", "activation" (see `head_importance`), or an array of your own, shaped as
            those are.
        data: what "taylor" and "activation" are measured on; see `head_importance`.
        batch_size: int, examples at a time.
        stack: "encoder" or "decoder", of a model that has both; each layer of such a decoder keeps as many heads of its
            own attention as of that on the source.

    Returns:
        A new model of the same class, not compiled: `fit` it to recover. Its outputs are those of `model` with the
        output rows of the other heads at zero.

    Raises:
        TypeError: for a model that is not ours. ValueError: for a `keep` below 1, above the heads there are, or that
            splits a group; for heads with ALiBi, whose slopes depend on their number, or with a table of distances that
            all layers share; for heads that are normed together; for layers without attention; for data or importances
            that do not fit.
    """
    part = stack_of(model, stack, "remove_heads")
    config = part.config
    check_all_have_heads(part, "remove_heads")
    _check_keep("remove_heads", keep, config.heads, "heads of a layer")
    group = config.heads // config.key_value_heads
    if keep % group:
        raise ValueError(
            f"remove_heads: keep={keep} would split a group of {group} heads that share keys and values; keep a "
            f"multiple of {group}, up to {config.heads}."
        )
    by_number = any(kind.scores and not kind.scores.of_embeddings for kind in config.attention.values())
    if by_number and keep < config.heads:
        raise ValueError(
            "remove_heads: with ALiBi the slope of a head depends on how many heads there are, and those left would "
            "see other distances; a table of distances is one for all layers, and each would keep other heads. "
            "remove_neurons and remove_layers make such a model smaller."
        )
    if any(kind.query_key_norm == "whole" for kind in config.attention.values()) and keep < config.heads:
        raise ValueError(
            'remove_heads: query_key_norm="whole" norms the queries of all heads by their mean together, so those left '
            "would have others. remove_neurons and remove_layers make such a model smaller."
        )
    if isinstance(importance, str):
        importance = head_importance(model, importance, data, batch_size, stack=part.name)
    sizes = {"attention__heads": int(keep), "attention__width": config.head_width}
    if group > 1:
        sizes["attention__key_value_heads"] = keep // group
    return _keep_best(model, part, attentions(part), keep // group, importance, sizes)


def remove_neurons(
    model, keep: int, importance="magnitude", data=None, batch_size: int = 32, *, stack: str | None = None
):
    """A smaller model with `keep` feed-forward neurons in each layer, the most important ones.

    Arguments, result and errors as `remove_heads` has them; importances are [blocks, F]. Multiples of 16 suit
    processors best.

    Raises:
        ValueError: for blocks with several feed-forward halves, too.
    """
    part = stack_of(model, stack, "remove_neurons")
    inside = part.config.bottleneck
    if inside is not None and inside.feed_forwards > 1:
        raise ValueError(
            f"remove_neurons: each block of this model has {inside.feed_forwards} feed-forward halves, each with "
            "neurons of its own; remove_heads and remove_layers make it smaller."
        )
    _check_keep("remove_neurons", keep, part.config.feed_forward.size, "feed-forward neurons of a layer")
    if isinstance(importance, str):
        importance = neuron_importance(model, importance, data, batch_size, stack=part.name)
    return _keep_best(model, part, (NEURONS,), keep, importance, {"feed_forward__size": int(keep)})


def remove_layers(
    model,
    keep: int | Sequence[int],
    importance="activation",
    data=None,
    batch_size: int = 32,
    *,
    stack: str | None = None,
):
    """A model with fewer layers: the most important ones, or those named, in their order.

    Args:
        model: a task of ours, or a bare encoder or decoder; it stays as it is.
        keep: int, how many layers are left; or their numbers, such as (0, 2, 4): every other one, from which a student
            is distilled (Sanh et al., 2019, arXiv:1910.01108).
        importance: "magnitude", "taylor", "activation" (see `layer_importance`), or an array [layers] of your own; not
            asked where `keep` names the layers.
        data, batch_size: as `remove_heads` has them.
        stack: "encoder" or "decoder", of a model that has both.

    Returns:
        A new model of the same class, not compiled.

    Raises:
        TypeError: for a model that is not ours. ValueError: for a `keep` that leaves no layer, or names one that is
            not there or one twice; for layers that share their weights (ALBERT); for layers whose scores are scaled
            by their number and would get another.
    """
    part = stack_of(model, stack, "remove_layers")
    count = part.config.num_layers
    if part.config.layer_groups is not None:
        raise ValueError(
            "remove_layers: layers that share their weights (ALBERT) take no space that could be saved. Build the "
            "model with a lower num_layers, or use remove_heads and remove_neurons."
        )
    named = not isinstance(keep, Integral)
    kept = named_layers("remove_layers", "keep", keep, count) if named else None
    if kept is None:
        _check_keep("remove_layers", keep, count, "layers")
        if isinstance(importance, str):
            importance = layer_importance(model, importance, data, batch_size, stack=part.name)
        kept = _best(_scores(importance, (count,)), keep).tolist()
    return keep_layers(model, part, kept, "remove_layers", "keep")


def shrink_gradually(
    model,
    recover: Callable,
    *,
    heads: int | None = None,
    neurons: int | None = None,
    rounds: int = 4,
    importance="taylor",
    data=None,
    batch_size: int = 32,
    stack: str | None = None,
):
    """Removes heads and neurons in several rounds, in equal steps, with training after each.

    Args:
        model: a task of ours; it stays as it is.
        recover: function of each smaller model, in its order, that trains it: `lambda m: m.fit(texts, labels)`. The
            importances of the next round are asked of what it has trained.
        heads, neurons: int, how many are left in each layer in the end; None for all.
        rounds: int.
        importance, data, batch_size, stack: as `remove_heads` has them.

    Returns:
        The last model, recovered.

    Raises:
        ValueError: for nothing to remove, or less than one round; else as `remove_heads` says.
    """
    if (heads is None and neurons is None) or rounds < 1:
        raise ValueError(
            f"shrink_gradually: say what is left, heads=... or neurons=..., and in how many rounds, at least 1; got "
            f"heads={heads}, neurons={neurons}, rounds={rounds}."
        )
    part = stack_of(model, stack, "shrink_gradually")
    there, measured = part.config, {"importance": importance, "data": data, "batch_size": batch_size}
    group = there.heads // there.key_value_heads
    if heads is not None:
        _check_keep("shrink_gradually", heads, there.heads, "heads of a layer")
    if neurons is not None:
        _check_keep("shrink_gradually", neurons, there.feed_forward.size, "feed-forward neurons of a layer")
    for left in reversed(range(rounds)):
        if heads is not None:
            more = (there.heads - heads) // group * left // rounds * group  # whole groups of heads
            model = remove_heads(model, heads + more, **measured, stack=part.name)
        if neurons is not None:
            more = (there.feed_forward.size - neurons) * left // rounds
            model = remove_neurons(model, neurons + more, **measured, stack=part.name)
        recover(model)
    return model


def _keep_best(model, part: OneStack, structures: Sequence[RemovableParts], keep: int, importance, sizes: dict):
    """The model with the most important parts of each block; several structures have a first axis of importances."""
    shape, cuts = (len(part.blocks), structures[0].count(part)), {}
    scores = _scores(importance, shape if len(structures) == 1 else (len(structures), *shape))
    for structure, rows in zip(structures, scores.reshape(len(structures), *shape), strict=True):
        cuts |= structure.cuts(part, np.stack([_best(row, keep) for row in rows]))
    return rebuild(model, part.with_changes(**sizes), cuts)


def _best(scores: np.ndarray, keep: int) -> np.ndarray:
    """The places of the `keep` highest scores, ascending; among equals the first."""
    return np.sort(np.argsort(-scores, kind="stable")[:keep])


def _scores(importance, shape: tuple[int, ...]) -> np.ndarray:
    scores = np.asarray(importance, "float64")
    if scores.shape != shape or not np.isfinite(scores).all():
        raise ValueError(f"Importances must be finite numbers of shape {shape}; got shape {scores.shape}.")
    return scores


def _check_keep(name: str, keep, there: int, what: str) -> None:
    if isinstance(keep, bool) or not isinstance(keep, Integral):
        raise TypeError(f"{name}: keep is an int, how many {what} are left; got {keep!r}.")
    if keep < 1:
        raise ValueError(f"{name}: keep={keep} would leave none of the {there} {what}; keep at least 1.")
    if keep > there:
        raise ValueError(f"{name}: there are {there} {what}, keep={keep} is more; keep 1 to {there}.")
