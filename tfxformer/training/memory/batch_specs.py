"""The specs of batches, and a batch in memory as replicas share it."""

from __future__ import annotations

import keras

from tfxformer.backend import tensorflow as tf


def local_spec(spec):
    """The spec of one replica's batch, of that of all; None for what a dataset does not have."""

    def local(leaf):
        if isinstance(leaf, tf.OptionalSpec):
            return None
        return next(iter(tf.nest.flatten(leaf, expand_composites=True)), None)

    return tf.nest.map_structure(local, spec)


def spec_of_whole(batch):
    """The spec of a batch in memory, whose size the next one need not have."""
    return tf.nest.map_structure(
        lambda leaf: None if leaf is None else tf.TensorSpec((None, *leaf.shape[1:]), leaf.dtype), batch
    )


def symbolic(spec):
    """A tensor spec as a Keras input."""
    return None if spec is None else keras.KerasTensor(tuple(spec.shape), spec.dtype.name)


def to_tensors(batch):
    """A batch in memory as tensors."""
    return tf.nest.map_structure(lambda leaf: None if leaf is None else tf.convert_to_tensor(leaf), batch)


def split(batch, strategy):
    """A whole batch as the strategy's replicas share it, the first ones one sample more where it does not divide."""
    replicas = strategy.num_replicas_in_sync
    if replicas == 1:
        return batch
    samples = int(next(leaf for leaf in tf.nest.flatten(batch) if leaf is not None).shape[0])

    def part(context):
        share, rest = divmod(samples, replicas)
        index = context.replica_id_in_sync_group
        begin = index * share + min(index, rest)
        end = begin + share + (index < rest)
        return tf.nest.map_structure(lambda leaf: None if leaf is None else leaf[begin:end], batch)

    return strategy.experimental_distribute_values_from_function(part)
