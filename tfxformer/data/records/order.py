"""The order in which the records of an epoch come, as a function of seed and epoch, from any position."""

from __future__ import annotations

import numpy as np

_TOGETHER = 512  # rows of all shards that are handled at once: a step of tf.data costs more than copying a row


def framed_rows(records, seed, epochs: range, position: int, worker: int, workers: int, window: int):
    """The rows of one worker over epochs, from `position` of the first on.

    Returns:
        A `tf.data.Dataset` of some rows each, uint8 [any, record_bytes], as they stand in their files.
    """
    import tensorflow as tf

    turns = [_turns(records, seed, e, position * (e == epochs[0]), worker, workers) for e in epochs]
    columns = tuple(np.stack(column) for column in zip(*turns, strict=True))  # each [epochs, shards]
    files = tf.constant([str(records.folder / shard.file) for shard in records.shards])
    own = columns[0].shape[1]
    block = -(-_TOGETHER // own)

    def shard(index, count, taken, key):
        file = tf.gather(files, index)
        rows = _shard_rows(file, count, taken, key, records.format.record_bytes, window, seed is not None)
        return rows.rebatch(block).map(lambda some: _padded(some, block))

    def epoch(*columns):
        blocks = tf.data.Dataset.from_tensor_slices(columns).interleave(
            shard, cycle_length=own, block_length=1, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True
        )
        rows = blocks.batch(own).map(_in_turn, tf.data.AUTOTUNE)
        return rows if len(records.shards) % workers == 0 else _every(rows, workers)

    return tf.data.Dataset.from_tensor_slices(columns).flat_map(epoch)


def rows_in_order(records, seed, epoch: int, position: int, worker: int, workers: int, window: int):
    """The rows of one worker in an epoch, from `position` on, without TensorFlow.

    The same turns of the shards as `framed_rows`, and windows as large; inside of them an order of its own, for
    TensorFlow's shuffle is its own too.

    Returns:
        An iterator of some rows each, uint8 [any, record_bytes].
    """
    shards, counts, taken, keys = _turns(records, seed, epoch, position, worker, workers)
    # Read from the disk row by row, where it is asked for.
    files = [np.memmap(records.folder / records.shards[shard].file, np.uint8, "r") for shard in shards]
    files = [file.reshape(-1, records.format.record_bytes) for file in files]
    orders = [_shard_order(*pair, window, seed is not None) for pair in zip(counts, keys, strict=True)]
    step = 1 if len(records.shards) % workers == 0 else workers  # all rows are read, every `workers`-th is given
    block, at = step * -(-_TOGETHER // len(shards)), 0
    while (taken + at < counts).any():
        rounds = taken[:, None] + np.arange(at, at + block)  # [shards, block]
        places = [(turn, shard) for turn in range(block) for shard in range(len(shards))]
        there = [(turn, shard) for turn, shard in places if rounds[shard, turn] < counts[shard]]
        some = [files[shard][orders[shard][rounds[shard, turn]]] for turn, shard in there[::step]]
        if some:
            yield np.stack(some)
        at += block


def _shard_order(count: int, key: int, window: int, shuffled: bool) -> np.ndarray:
    """The rows of a shard in an epoch's order: its windows shuffled, and each of them inside."""
    if not shuffled:
        return np.arange(count)
    generator = np.random.default_rng(key)
    begins = generator.permutation(np.arange(0, count, window))
    return np.concatenate([begin + generator.permutation(min(window, count - begin)) for begin in begins])


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


def _shard_rows(file, count, taken, key, record_bytes: int, window: int, shuffled: bool):
    """The rows of a shard but the first `taken` in its order: windows anywhere in it, shuffled inside."""
    import tensorflow as tf

    windows = (count + window - 1) // window
    order = tf.range(windows)
    if shuffled:
        order = _permuted(order, key, -1)
    sizes = tf.minimum(tf.constant(window, tf.int64), count - order * window)
    begins = tf.concat([tf.zeros(1, tf.int64), tf.cumsum(sizes)], 0)
    first = tf.searchsorted(begins[1:], taken[None], side="right")[0]  # the window that is begun
    left_out = tf.maximum(taken - begins[:-1], 0)  # of the windows from there on

    def read(index, size, skip):
        begin = index * window
        rows = tf.data.FixedLengthRecordDataset(
            file,
            size * record_bytes,
            header_bytes=begin * record_bytes,
            footer_bytes=(count - begin - size) * record_bytes,
        )

        def rows_of_window(content):
            rows = tf.reshape(tf.io.decode_raw(content, tf.uint8), (-1, record_bytes))
            return tf.gather(rows, _permuted(tf.range(size), key, index)[skip:]) if shuffled else rows[skip:]

        return rows.map(rows_of_window)

    return tf.data.Dataset.from_tensor_slices((order[first:], sizes[first:], left_out[first:])).flat_map(read)


def _padded(rows, block: int):
    """Rows [n, record_bytes] -> (with zeros to [block, record_bytes], n)."""
    import tensorflow as tf

    count = tf.shape(rows)[0]
    return tf.ensure_shape(tf.pad(rows, [[0, block - count], [0, 0]]), (block, rows.shape[1])), count


def _in_turn(blocks, counts):
    """Blocks of shards [shards, block, record_bytes], `counts` [shards] rows of each -> their rows, taking turns.

    No block is more than one row longer than another, and the longer come first, so all turns but the last are whole.
    """
    import tensorflow as tf

    shards, block = tf.shape(blocks)[0], blocks.shape[1]
    places = tf.range(shards) * block + tf.range(block)[:, None]  # [block, shards]
    there = tf.range(block)[:, None] < counts
    rows = tf.reshape(blocks, (-1, blocks.shape[2]))  # [shards * block, record_bytes]
    return tf.gather(rows, tf.boolean_mask(places, there))


def _every(rows, step: int):
    """Every `step`-th row, from the first on."""
    return rows.rebatch(step * -(-_TOGETHER // step)).map(lambda some: some[::step])


def _permuted(values, key, index):
    """Values in an order that depends on (key, index) alone, never on TensorFlow's global seed."""
    import tensorflow as tf

    seed = tf.stack([tf.cast(key, tf.int64), tf.cast(index, tf.int64)])
    return tf.random.experimental.stateless_shuffle(values, seed=seed, alg="philox")
