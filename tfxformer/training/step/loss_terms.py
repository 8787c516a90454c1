"""What a compiled loss sums and what it divides by: a mean over many replicas needs both.

Keras hands out one number per replica, its mean divided by the number of replicas; that is the mean over all
replicas only where each has as many terms. Token weights, masks and a short last batch make them differ.
"""

from __future__ import annotations

import contextlib
from typing import NamedTuple

import keras
from keras import ops, tree


class OutputLoss(NamedTuple):
    """One output's loss on one replica.

    `value` is Keras' mean (or sum) over the replica's terms, without a factor for the number of replicas; `count` is
    what it was divided by, None for a sum. `per_sample`: whether each sample has the same number of terms.
    """

    name: str
    value: object
    count: object
    per_sample: bool
    weight: float


class Objective(NamedTuple):
    """A part of the loss with one divisor: the global loss is the sum of the global means of all parts.

    `value`: mean over the replica's terms. `count`: their number, None where nothing is divided.
    """

    value: object
    count: object


def _same_rank(x, weights):
    """Drops or adds a last axis of size 1, as Keras' losses do, so that both have one rank."""
    if len(x.shape) == len(weights.shape) + 1:
        if len(weights.shape) == 1 and x.shape[-1] == 1:
            return x, ops.expand_dims(weights, -1)
        return (ops.squeeze(x, -1), weights) if x.shape[-1] == 1 else (x, weights)
    if len(weights.shape) == len(x.shape) + 1 and weights.shape[-1] == 1:
        return (ops.expand_dims(x, -1), weights) if len(x.shape) == 1 else (x, ops.squeeze(weights, -1))
    return x, weights


def _masked_weights(mask, sample_weight, dtype):
    """The product of mask and sample weights, or None where there is neither."""
    weights = None if sample_weight is None else ops.convert_to_tensor(sample_weight, dtype=dtype)
    if mask is None:
        return weights
    mask = ops.cast(mask, dtype)
    if weights is None:
        return mask
    mask, weights = _same_rank(mask, weights)
    return mask * weights


def value_and_count(loss, y_true, y_pred, sample_weight):
    """(value, count, per_sample) of a `keras.losses.Loss`, by the rules of its `__call__`."""
    masks = [getattr(y_pred, "_keras_mask", None)]
    y_true, y_pred = tree.map_structure(lambda x: ops.convert_to_tensor(x, dtype=loss.dtype), (y_true, y_pred))
    terms = loss.call(y_true, y_pred)
    masks.append(getattr(terms, "_keras_mask", None))
    masks = [ops.cast(mask, "bool") for mask in masks if mask is not None]
    mask = ops.logical_and(*masks) if len(masks) == 2 else (masks or [None])[0]
    terms = ops.convert_to_tensor(terms, dtype=loss.dtype)
    mean_of_scalar = len(terms.shape) == 0
    weights = _masked_weights(mask, sample_weight, terms.dtype)
    if weights is not None:
        terms, weights = _same_rank(terms, weights)
        terms = terms * weights
    if mean_of_scalar and weights is None:  # the loss has taken its own mean
        return terms, ops.cast(ops.shape(tree.flatten(y_pred)[0])[0], "float32"), True
    total = ops.cast(ops.sum(terms), "float32")
    if loss.reduction in ("sum", "none", None):
        return total, None, False
    if loss.reduction == "mean_with_sample_weight" and weights is not None:
        count = ops.sum(ops.cast(weights, "float32"))
    elif mask is not None:
        count = ops.sum(ops.cast(mask, "float32"))
    else:
        count = ops.cast(ops.size(terms), "float32")
        return ops.divide_no_nan(total, count), count, all(size is not None for size in terms.shape[1:])
    return ops.divide_no_nan(total, count), count, False


class _Recorder:
    """Stands in for one loss of Keras' CompileLoss, and writes down each of its calls."""

    def __init__(self, entry, records):
        self.entry, self.records = entry, records

    def __call__(self, y_true, y_pred, sample_weight=None):
        value, count, per_sample = value_and_count(self.entry.loss, y_true, y_pred, sample_weight)
        value = ops.cast(value, "float32")
        weight = 1.0 if self.entry.loss_weights is None else self.entry.loss_weights
        self.records.append(OutputLoss(self.entry.name, value, count, per_sample, weight))
        return value


@contextlib.contextmanager
def recorded(model):
    """While it holds, losses compiled into `model` are not divided by the number of replicas, and are written down.

    Yields:
        The list of `OutputLoss` that `model.compute_loss` fills.
    """
    compiled, records = model._compile_loss, []
    if compiled is None:
        yield records
        return
    entries = compiled._flat_losses
    compiled._flat_losses = [entry._replace(loss=_Recorder(entry, records)) for entry in entries]
    try:
        yield records
    finally:
        compiled._flat_losses = entries


def compiled_objectives(records, additional, samples) -> list[Objective]:
    """The parts of a replica's loss, as few as have divisors of their own.

    Args:
        records: list of `OutputLoss`.
        additional: list of float tensors, what layers and regularizers add; they are the same on every replica, or
            means over it, and are averaged as the first mean of `records` is.
        samples: float32 scalar, the replica's number of samples.
    """
    parts: dict = {}
    for index, record in enumerate(records):
        key = "sum" if record.count is None else "samples" if record.per_sample else index
        count = {"sum": None, "samples": samples}.get(key, record.count)
        before = parts[key].value if key in parts else 0.0
        parts[key] = Objective(before + record.weight * record.value, count)
    if additional:
        key = next((key for key in parts if key != "sum"), "samples")
        part = parts.get(key, Objective(0.0, samples))
        parts[key] = Objective(sum((ops.cast(ops.sum(loss), "float32") for loss in additional), part.value), part.count)
    return list(parts.values())


def own_objective(loss, records, samples) -> Objective:
    """The loss of a user's `compute_loss`: a mean over the terms of the one compiled loss it calls, or the samples."""
    counts = [record.count for record in records if record.count is not None]
    return Objective(ops.cast(ops.sum(loss), "float32"), counts[0] if len(counts) == len(records) == 1 else samples)


def objectives_of(model, x, y, y_pred, sample_weight, samples, records, training: bool) -> list[Objective]:
    """The parts of a model's loss on a batch, inside `recorded(model)`.

    Args:
        model: a compiled Keras model; one with `objectives` says them itself.
        x, y, y_pred, sample_weight: as `compute_loss` takes them.
        samples: float32 scalar, the batch's number of samples.
        records: what `recorded` yields.
        training: bool, as `compute_loss` takes it.

    Raises ValueError for a model without a loss.
    """
    if hasattr(model, "objectives"):
        return model.objectives(x, y, y_pred, sample_weight, samples, records)
    if type(model).compute_loss is not keras.Model.compute_loss:
        loss = model._compute_loss(x=x, y=y, y_pred=y_pred, sample_weight=sample_weight, training=training)
        return [own_objective(loss, records, samples)]
    if model._compile_loss is not None:
        model._compile_loss(y, y_pred, sample_weight)
    parts = compiled_objectives(records, model.losses, samples)
    if not parts:
        raise ValueError("There is no loss to minimize: give loss=... to compile(), or add losses in layers.")
    return parts
