"""Gradient accumulation on JAX, where one program sees the batches of all devices and Keras carries its state.

Keras' own accumulation averages the gradients of batches; where token weights, masks or a short batch give them
different numbers of terms, that is not the gradient of all of them. Here the terms are summed, and divided once.
"""

from __future__ import annotations

import keras
from keras import ops

from tfxformer.training.step.carried import Carried, places_of, value_in
from tfxformer.training.step.loss_terms import recorded
from tfxformer.training.step.passes import Batch, pass_of


class AccumulatedGradients(Carried):
    """Sums of gradients and of loss terms over the batches of one update.

    Args:
        model: a built and compiled model; the sums are sharded as its weights are.
        steps: int, batches of an update.
        objectives: int, the number of losses with a divisor of their own.
    """

    def __init__(self, model, steps: int, objectives: int):
        super().__init__(name="accumulated_gradients")
        self.steps = steps
        self.gradients = [[_zeros_like(weight) for weight in model.trainable_variables] for _ in range(objectives)]
        self.counts = [self.add_variable((), "zeros", "float32", name=f"count_{index}") for index in range(objectives)]
        self.batches = self.add_variable((), "zeros", "int32", name="batches")

    @property
    def variables(self):
        return [*keras.tree.flatten(self.gradients), *self.counts, self.batches]

    @property
    def pending(self) -> int:
        """The batches added since the last update."""
        return int(self.batches.value) % self.steps


def _zeros_like(weight) -> keras.Variable:
    """A variable of a weight's shape, dtype and sharding."""
    options = {"layout": weight._layout} if getattr(weight, "_layout", None) is not None else {}
    name = weight.path.replace("/", "_")
    return keras.Variable("zeros", shape=weight.shape, dtype=weight.dtype, trainable=False, name=name, **options)


def count_objectives(model, batch) -> int:
    """How many losses have a divisor of their own, found by tracing the loss of a batch."""
    import jax

    found = []

    def trace(batch):
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(batch)
        with keras.StatelessScope(collect_losses=True), recorded(model) as records:
            batch = Batch(x, y, sample_weight, _samples(x), ops.ones(()))
            found.append(len(pass_of(model, batch, records, True)[1]))
        return ops.zeros(())

    jax.eval_shape(trace, batch)
    return found[0]


def accumulating_step(model, sums: AccumulatedGradients, state: tuple, batch) -> tuple:
    """One batch of a training step that updates the weights where the batch ends an accumulation.

    Args:
        model: the compiled model.
        sums: its sums, among the model's metrics.
        state: (trainable, non-trainable, optimizer's, metrics') values, as Keras' step on JAX has them.
        batch: (x, y, sample weights) as Keras' datasets have it.

    Returns:
        (logs, state), as Keras' step.
    """
    import jax

    trainable, others, optimizer, metrics = state
    x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(batch)
    with keras.StatelessScope(zip(model.optimizer.variables, optimizer, strict=True)):
        scale = model.optimizer.scale_loss(ops.ones(()))

    def totals(trainable):
        """For each objective scale times the sum of its terms; and what the pass has changed."""
        mapping = [
            *zip(model.trainable_variables, trainable, strict=True),
            *zip(model.non_trainable_variables, others, strict=True),
            *zip(model.metrics_variables, metrics, strict=True),
        ]
        with keras.StatelessScope(mapping, collect_losses=True) as scope, recorded(model) as records:
            y_pred, parts = pass_of(model, Batch(x, y, sample_weight, _samples(x), scale), records, True)
            model._loss_tracker.update_state(sum(part.value for part in parts), sample_weight=_samples(x))
            logs = model.compute_metrics(x, y, y_pred, sample_weight)
        counts = [ops.ones(()) if part.count is None else ops.cast(part.count, "float32") for part in parts]
        sums = [part.value * count * scale for part, count in zip(parts, counts, strict=True)]
        changed = [
            [value_in(scope, variable) for variable in kind]
            for kind in (model.non_trainable_variables, model.metrics_variables)
        ]
        divided = [0.0 if part.count is None else count for part, count in zip(parts, counts, strict=True)]
        return sums, (divided, changed, logs)

    values, pull_back, (counts, (others, metrics), logs) = jax.vjp(totals, trainable, has_aux=True)
    ones = [[float(i == j) for j in range(len(values))] for i in range(len(values))]
    gradients = [pull_back([ops.full_like(v, o) for v, o in zip(values, row, strict=True)])[0] for row in ones]

    place = places_of(model, sums.variables)
    held = [metrics[index] for index in place]
    new = [*(g for of_part in gradients for g in of_part), *counts, 1]
    held = [before + ops.cast(value, before.dtype) for before, value in zip(held, new, strict=True)]
    trainable, optimizer, held = jax.lax.cond(
        ops.equal(held[-1] % sums.steps, 0),
        _update(model, len(gradients)),
        lambda *given: given,
        trainable,
        optimizer,
        held,
    )
    for index, value in zip(place, held, strict=True):
        metrics[index] = value
    return logs, (trainable, others, optimizer, metrics)


def _update(model, objectives: int):
    """A function of (weights, optimizer's values, sums) that applies the sums and clears them."""

    def update(trainable, optimizer, held):
        size = len(trainable)
        counts = held[objectives * size : -1]
        total = [ops.zeros_like(weight) for weight in trainable]
        for index, count in enumerate(counts):
            divisor = ops.where(count == 0, 1.0, count)  # of a sum nothing was counted, and nothing is divided
            of_part = held[index * size : (index + 1) * size]
            total = [t + g / ops.cast(divisor, g.dtype) for t, g in zip(total, of_part, strict=True)]
        trainable, optimizer = model.optimizer.stateless_apply(optimizer, total, trainable)
        return trainable, optimizer, [*(ops.zeros_like(value) for value in held[:-1]), held[-1]]

    return update


def _samples(x):
    return ops.cast(ops.shape(next(leaf for leaf in keras.tree.flatten(x) if leaf is not None))[0], "float32")
