"""Gradient accumulation over batches, with any number of replicas."""

from __future__ import annotations

from tfxformer.backend import tensorflow as tf


class Accumulator:
    """Sums of gradients and of loss terms over the batches of one update; gradients are reduced at its end only.

    Created eagerly, in the scope of the strategy.

    Args:
        weights: the trainable variables.
        steps: int, batches of an update.
        objectives: int, the number of losses with a divisor of their own: each has a sum for every weight.
    """

    def __init__(self, weights, steps: int, objectives: int):
        self.steps = steps
        self.gradients = [
            [_local_variable(weight.shape, weight.dtype) for weight in weights] for _ in range(objectives)
        ]
        self.counts = [_local_variable((), "float32") for _ in range(objectives)]
        self.batches = tf.Variable(
            0, dtype="int64", trainable=False, aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA
        )

    @property
    def sums(self) -> list[tf.Variable]:
        """The variables that differ between replicas."""
        return tf.nest.flatten([self.gradients, self.counts])

    @property
    def pending(self) -> int:
        """The batches added since the last update."""
        return int(tf.convert_to_tensor(self.batches)) % self.steps

    def reset(self) -> None:
        """In cross-replica context: an accumulation of nothing."""
        self.batches.assign(0)
        for variable in self.sums:
            for local in copies(variable):
                local.assign(tf.zeros(local.shape, local.dtype))

    def add(self, gradients, counts) -> None:
        """In replica context: adds one batch.

        Args:
            gradients: for each objective, for each weight, this replica's sum or None.
            counts: for each objective, the number of its terms on all replicas, or None for a sum.
        """
        for sums, of_part in zip(self.gradients, gradients, strict=True):
            for variable, gradient in zip(sums, of_part, strict=True):
                if gradient is not None:
                    variable.assign_add(tf.cast(gradient, variable.dtype))
        for variable, count in zip(self.counts, counts, strict=True):
            variable.assign_add(tf.zeros(()) if count is None else count)

    def count_batch(self) -> tf.Tensor:
        """In cross-replica context: whether the batch just added ends an update."""
        self.batches.assign_add(1)
        return tf.equal(tf.convert_to_tensor(self.batches) % self.steps, 0)

    def take(self, divided):
        """In replica context: (gradients, counts) as `add` has them, of all batches since the last time.

        Args:
            divided: list of bool, which objectives have a count.
        """
        gradients = [[tf.identity(variable) for variable in sums] for sums in self.gradients]
        counts = [tf.identity(variable) for variable in self.counts]
        with tf.control_dependencies(tf.nest.flatten([gradients, counts])):
            for variable in self.sums:
                variable.assign(tf.zeros(variable.shape, variable.dtype))
        return gradients, [count if has_count else None for count, has_count in zip(counts, divided, strict=True)]


def copies(variable) -> tuple[tf.Variable, ...]:
    """The variables of this process' replicas behind one of a strategy; itself without one."""
    return tuple(getattr(variable, "values", None) or (variable,))


def _local_variable(shape, dtype) -> tf.Variable:
    """Zeros, another copy on each replica."""
    return tf.Variable(
        tf.zeros(shape, dtype),
        trainable=False,
        synchronization=tf.VariableSynchronization.ON_READ,
        aggregation=tf.VariableAggregation.SUM,
    )
