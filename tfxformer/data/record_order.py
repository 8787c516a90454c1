"""The order in which the records of an epoch come, as a function of seed and epoch, from any position."""

from __future__ import annotations

import numpy as np


def serialized_rows(records, seed, epochs: range, position: int, worker: int, workers: int, window: int):
    """The rows of one worker over epochs, from `position` of the first on, as a `tf.data.Dataset` of strings."""
    import tensorflow as tf

    turns = [_turns(records, seed, e, position * (e == epochs[0]), worker, workers) for e in epochs]
    columns = tuple(np.stack(column) for column in zip(*turns, strict=True))  # each [epochs, shards]
    files = tf.constant([str(records.folder / shard.file) for shard in records.shards])
    own = columns[0].shape[1]

    def shard(index, count, taken, key):
        file = tf.gather(files, index)
        return _shard_records(file, count, taken, key, records.format.record_bytes, window, seed is not None)

    def epoch(*columns):
        rows = tf.data.Dataset.from_tensor_slices(columns).interleave(
            shard, cycle_length=own, block_length=1, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True
        )
        return rows if len(records.shards) % workers == 0 else rows.shard(workers, 0)

    return tf.data.Dataset.from_tensor_slices(columns).flat_map(epoch)


def _turns(records, seed, epoch: int, position: int, worker: int, workers: int):
    """Whose turn it is in an epoch from `position` on, and how far each is: int64 [shards] of the worker.

    All shards take turns, row by row, in an order of their own each epoch; those with one row more come first, so that
    the turns stay in step to the end, and worker i of n, where n divides the number of shards, has every n-th row of
    all by taking every n-th shard.

    Returns:
        (shards, the rows in each, the rows already read of each, the keys of their shuffles).
    """
    shards = np.arange(len(records.shards))
    counts = np.array([shard.count for shard in records.shards], np.int64)
    if seed is not None:
        generator = np.random.default_rng([seed, epoch])
        longer = counts > counts.min()
        shards = np.concatenate([generator.permutation(shards[longer]), generator.permutation(shards[~longer])])
    if len(shards) % workers == 0:
        shards = shards[worker::workers]
    else:  # all rows are read, every `workers`-th is this worker's
        position = worker + position * workers
    rounds, begun = divmod(position, len(shards))
    taken = np.minimum(rounds + (np.arange(len(shards)) < begun), counts[shards])
    keys = [np.random.SeedSequence([seed or 0, epoch, shard]).generate_state(1)[0] for shard in shards.tolist()]
    first = np.roll(np.arange(len(shards)), -begun)
    return shards[first], counts[shards][first], taken[first], np.array(keys, np.int64)[first]


def _shard_records(file, count, taken, key, record_bytes: int, window: int, shuffled: bool):
    """The serialized rows of a shard but the first `taken` in its order: windows anywhere in it, shuffled inside."""
    import tensorflow as tf

    from tfxformer.data.record_format import FRAME

    windows = (count + window - 1) // window
    order = tf.range(windows)
    if shuffled:
        order = _permuted(order, key, -1)
    sizes = tf.minimum(tf.constant(window, tf.int64), count - order * window)
    begins = tf.concat([tf.zeros(1, tf.int64), tf.cumsum(sizes)], 0)
    first = tf.searchsorted(begins[1:], taken[None], side="right")[0]  # the window that is begun

    def read(index, size):
        begin = index * window
        rows = tf.data.FixedLengthRecordDataset(
            file,
            record_bytes,
            header_bytes=begin * record_bytes,
            footer_bytes=(count - begin - size) * record_bytes,
        ).batch(size)
        if shuffled:
            rows = rows.map(lambda batch: _permuted(batch, key, index))
        return rows.unbatch()

    rows = tf.data.Dataset.from_tensor_slices((order[first:], sizes[first:])).flat_map(read).skip(taken - begins[first])
    return rows.map(lambda row: tf.strings.substr(row, 12, record_bytes - FRAME))  # the frame: 12 bytes, row, 4 bytes


def _permuted(values, key, index):
    """Values in an order that depends on (key, index) alone, never on TensorFlow's global seed."""
    import tensorflow as tf

    seed = tf.stack([tf.cast(key, tf.int64), tf.cast(index, tf.int64)])
    return tf.random.experimental.stateless_shuffle(values, seed=seed, alg="philox")
