"""What a training step computes of a batch: outputs and the parts of the loss, by one pass or as a change of it says.

Adversarial training and R-Drop go through the model twice, and a penalty on weights adds to the loss. Each is a
function around the pass, traced with the step for the time of a `fit`, so that whatever the step does with the parts
(replicas, accumulation, loss scaling) it does with theirs.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import keras
from keras import ops

from tfxformer.training.step.carried import value_in
from tfxformer.training.step.hooks import changed_until
from tfxformer.training.step.loss_terms import Objective, objectives_of, recorded

_CHANGES = "_pass_changes"


class Batch(NamedTuple):
    """One batch of one replica.

    Attributes:
        x, y, sample_weight: as `compute_loss` takes them.
        samples: float32 scalar, how many there are.
        scale: float32 scalar that the loss is multiplied by before a gradient is taken of it.
    """

    x: object
    y: object
    sample_weight: object
    samples: object
    scale: object


def call(model, x, training):
    """The model's outputs on a batch."""
    return model(x, training=training) if model._call_has_training_arg else model(x)


def pass_of(model, batch: Batch, records: list, training: bool) -> tuple[object, list[Objective]]:
    """(outputs, parts of the loss) of a batch, inside `recorded(model)`, with what changes the passes of training."""

    def passes(model, batch: Batch, records: list):
        y_pred = call(model, batch.x, training)
        return y_pred, objectives_of(
            model, batch.x, batch.y, y_pred, batch.sample_weight, batch.samples, records, training
        )

    for change in pass_changes(model) if training else ():
        passes = functools.partial(change, passes)
    return passes(model, batch, records)


def pass_changes(model) -> list[Callable]:
    """What changes the passes of a model's training steps now."""
    return vars(model).get(_CHANGES, [])


def change_passes(model, change: Callable) -> Callable[[], None]:
    """Lets training steps compute a batch by `change`; returns what ends that, as the next `fit` does.

    Args:
        model: a compiled `DistributedModel`.
        change: (passes, model, batch, records) -> (outputs, objectives), where `passes(model, batch, records)` is the
            pass that is changed; of `records` it leaves what one pass wrote.
    """
    changes = vars(model).setdefault(_CHANGES, [])  # past Keras, which would track it
    changes.append(change)
    return changed_until(model, lambda: changes.remove(change))


def second_pass(passes, model, batch: Batch, records: list) -> tuple[object, list[Objective]]:
    """Another pass, of which `records` keeps nothing."""
    kept = list(records)
    records.clear()
    found = passes(model, batch, records)
    records[:] = kept
    return found


def stateless_loss(model, state: tuple, x, y, sample_weight, optimizer_variables) -> tuple:
    """Keras' `compute_loss_and_updates` on JAX, of changed passes.

    Args:
        state: (trainable, non-trainable, metrics') values.

    Returns:
        (scaled loss, (loss, outputs, non-trainable values, metrics' values)).
    """
    kinds = (model.trainable_variables, model.non_trainable_variables, model.metrics_variables)
    mapping = [pair for kind, held in zip(kinds, state, strict=True) for pair in zip(kind, held, strict=True)]
    with keras.StatelessScope(list(zip(model.optimizer.variables, optimizer_variables, strict=True))):
        scale = model.optimizer.scale_loss(ops.ones(()))
    samples = ops.cast(ops.shape(next(leaf for leaf in keras.tree.flatten(x) if leaf is not None))[0], "float32")
    batch = Batch(x, y, sample_weight, samples, scale)
    with keras.StatelessScope(mapping, collect_losses=True) as scope, recorded(model) as records:
        y_pred, parts = pass_of(model, batch, records, True)
    loss = sum(part.value for part in parts)
    others, metrics = ([value_in(scope, variable) for variable in kind] for kind in kinds[1:])
    return loss * scale, (loss, y_pred, others, metrics)
