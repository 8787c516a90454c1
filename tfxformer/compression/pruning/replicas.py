"""Values that every replica computes alike, written where its own copy of a variable is."""

from __future__ import annotations

from tfxformer.backend import tensorflow as tf


def assign_on_replicas(variable: tf.Variable, value: tf.Tensor) -> None:
    """Assigns each replica's value to its own copy: exact, where a mean over replicas would round.

    Args:
        variable: tf.Variable of the strategy in force, or without one.
        value: tensor; in replica context the same on all replicas.
    """

    def assign(strategy, value):
        strategy.extended.update(variable, lambda copy, value: copy.assign(value), args=(value,), group=False)

    context = tf.distribute.get_replica_context()
    if context is None:
        assign(tf.distribute.get_strategy(), value)
    else:
        context.merge_call(assign, args=(value,))
