"""Data that can be read from any position: the batches of an epoch, from one of them on.

What `fit` takes becomes one of four sources here. A source has

- `num_batches`: of an epoch, or None where only reading tells;
- `signature`: dict of what must be the same in a run that goes on, its values JSON;
- `first_epoch(epoch, batch)`: the `tf.data.Dataset` that begins there, on JAX an iterable of batches; called once;
- `next_epoch(epoch)`: that of a later epoch, from its beginning; None to go on reading the one before;
- `end_epoch()`: called when an epoch has been read.
"""

from __future__ import annotations

import hashlib
import json
import sys

import keras
import numpy as np
from keras import ops

from tfxformer.backend import on_jax
from tfxformer.backend import tensorflow as tf

_FINGERPRINT_ROWS = 1024  # of an array, spread evenly


class Epochs:
    """Batches of any epoch from any position, made by a function: what `fit` can resume without reading to and fro.

    ```python
    records = data.Records(folder)  # with tokens and labels

    def batches(epoch, first):
        dataset = records.dataset(32, seed=0, epoch=epoch, position=32 * first)
        return dataset.map(lambda row: ({"token_ids": row["token_ids"]}, row["label"]))

    model.fit(training.Epochs(batches, records.count // 32, records.fingerprint), epochs=3,
              callbacks=[training.Resume("run")])
    ```

    Under a strategy the batches are global ones, and every worker reads them all; replicas share each batch.

    Args:
        make: function (epoch, first) -> `tf.data.Dataset` of that epoch's batches from the `first` on, in an order
            that depends on the two alone.
        num_batches: int, of an epoch.
        fingerprint: str that differs for other data, to be compared by workers and on resuming; None for none.

    Raises ValueError for what is no function, and for no batch.
    """

    def __init__(self, make, num_batches: int, fingerprint: str | None = None):
        if not callable(make) or int(num_batches) < 1:
            raise ValueError(f"Epochs wants a function (epoch, first) -> dataset and batches, got {num_batches!r}.")
        self.make, self.num_batches = make, int(num_batches)
        self.signature = {"kind": "Epochs", "batches": self.num_batches, "fingerprint": fingerprint}

    def through(self, function) -> Epochs:
        """The same epochs, each of their datasets as `function(dataset)` returns it."""
        return Epochs(lambda *place: function(self.make(*place)), self.num_batches, self.signature["fingerprint"])

    def first_epoch(self, epoch: int, batch: int) -> tf.data.Dataset:
        """The batches of an epoch from one on."""
        return _by_batches(self.make(epoch, batch))

    def next_epoch(self, epoch: int) -> tf.data.Dataset:
        """All batches of an epoch."""
        return _by_batches(self.make(epoch, 0))

    def end_epoch(self) -> None:
        """Nothing: an epoch depends on its number alone."""


def _by_batches(dataset):
    """Of workers each reads all, and takes its part of every batch: the global batch is that of one device."""
    if on_jax():
        return dataset
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    return dataset.with_options(options)


class _Arrays:
    """Arrays in memory, shuffled by (seed, epoch)."""

    def __init__(self, arrays, batch_size, shuffle, seed):
        self.arrays = keras.tree.map_structure(_with_keras_dtype, arrays)
        self.batch_size, self.shuffle, self.seed = int(batch_size or 32), bool(shuffle), seed
        rows = {int(leaf.shape[0]) for leaf in keras.tree.flatten(self.arrays) if leaf is not None}
        if len(rows) != 1:
            raise ValueError(f"x, y and sample_weight must have as many rows, they have {sorted(rows)}.")
        (self.rows,) = rows
        self.num_batches = -(-self.rows // self.batch_size)
        self.signature = {
            "kind": "arrays",
            "rows": self.rows,
            "batch size": self.batch_size,
            "shuffle": self.shuffle,
            "seed": seed if self.shuffle else None,
            "fingerprint": _fingerprint(self.arrays),
        }

    def first_epoch(self, epoch, batch):
        order = np.arange(self.rows)
        if self.shuffle:
            order = np.random.default_rng([self.seed, epoch]).permutation(self.rows)
        left = order[batch * self.batch_size :]
        if on_jax():
            return map(self._rows, np.split(left, range(self.batch_size, len(left), self.batch_size)))
        whole = self.rows % self.batch_size == 0  # then all batches have one static shape
        index = tf.data.Dataset.from_tensor_slices(left).batch(self.batch_size, drop_remainder=whole)
        dataset = index.map(self._take, tf.data.AUTOTUNE, deterministic=True)
        return _by_batches(dataset.prefetch(tf.data.AUTOTUNE))

    def _rows(self, index):
        return keras.tree.map_structure(lambda leaf: None if leaf is None else leaf[index], self.arrays)

    def _take(self, index):
        return tf.nest.map_structure(lambda leaf: None if leaf is None else tf.gather(leaf, index), self.arrays)

    def next_epoch(self, epoch):
        return self.first_epoch(epoch, 0)

    def end_epoch(self):
        """Nothing: an epoch depends on its number alone."""


class _PyBatches:
    """A `keras.utils.PyDataset` whose batches depend on their index and on how often its hooks were called."""

    def __init__(self, dataset, shuffle, seed):
        if dataset.num_batches is None:
            raise ValueError("This PyDataset never ends; wanted one whose num_batches says how long an epoch is.")
        self.dataset, self.shuffle, self.seed = dataset, bool(shuffle), seed
        self.num_batches = int(dataset.num_batches)
        if self.num_batches < 1:
            raise ValueError("The PyDataset has no batches.")
        samples = [self._batch(index) for index in sorted({0, min(1, self.num_batches - 1), self.num_batches - 1})]
        self.spec = None if on_jax() else tf.nest.map_structure(_common_spec, *samples)
        own = getattr(dataset, "fingerprint", None)
        self.signature = {
            "kind": getattr(dataset, "kind", type(dataset).__name__),
            "batches": self.num_batches,
            "shuffle": self.shuffle,
            "seed": seed if self.shuffle else None,
            "first batch": own if isinstance(own, str) else _fingerprint(samples[0]),
        }

    def _batch(self, index):
        batch = self.dataset[index]
        return tuple(batch) if isinstance(batch, (tuple, list)) else (batch,)

    def first_epoch(self, epoch, batch):
        self.dataset.on_epoch_end()  # as Keras does before the first epoch
        for _ in range(epoch):
            self.dataset.on_epoch_begin()
            self.dataset.on_epoch_end()
        return self._from(epoch, batch)

    def next_epoch(self, epoch):
        return self._from(epoch, 0)

    def end_epoch(self):
        self.dataset.on_epoch_end()

    def _from(self, epoch, batch):
        self.dataset.on_epoch_begin()
        order = np.arange(self.num_batches)
        if self.shuffle:
            order = np.random.default_rng([self.seed, epoch]).permutation(self.num_batches)
        if on_jax():
            return map(self._batch, map(int, order[batch:]))
        flat = [spec for spec in tf.nest.flatten(self.spec) if spec is not None]

        def read(index):
            leaves = [leaf for leaf in tf.nest.flatten(self._batch(int(index))) if leaf is not None]
            return [np.asarray(leaf, spec.dtype.as_numpy_dtype) for leaf, spec in zip(leaves, flat, strict=True)]

        def batch_of(index):
            leaves = iter(tf.numpy_function(read, [index], [spec.dtype for spec in flat]))
            return tf.nest.map_structure(
                lambda spec: None if spec is None else tf.ensure_shape(next(leaves), spec.shape), self.spec
            )

        dataset = tf.data.Dataset.from_tensor_slices(order[batch:])
        dataset = dataset.map(batch_of, num_parallel_calls=max(1, self.dataset.workers), deterministic=True)
        return _by_batches(dataset.prefetch(tf.data.AUTOTUNE))


class _Dataset:
    """A `tf.data.Dataset` that gives the same batches in every run; those before the position are read and left out."""

    def __init__(self, dataset, steps):
        self.dataset, self.steps = dataset, steps
        cardinality = int(dataset.cardinality())
        if cardinality == tf.data.INFINITE_CARDINALITY and steps is None:
            raise ValueError("The dataset never ends (repeat()?): pass steps_per_epoch.")
        self.num_batches = steps or (cardinality if cardinality > 0 else None)
        first = next(iter(dataset), None)
        if first is None:
            raise ValueError("The dataset has no batches.")
        self.signature = {
            "kind": "tf.data.Dataset",
            "batches": self.num_batches,
            "elements": str(dataset.element_spec),
            "first batch": _fingerprint(first),
        }
        if steps is not None and cardinality != tf.data.INFINITE_CARDINALITY:
            self.dataset = dataset.repeat()

    def first_epoch(self, epoch, batch):
        if self.steps is not None:  # one reading over all epochs
            return self.dataset.skip(epoch * self.steps + batch)
        for _ in range(epoch):  # shuffle(reshuffle_each_iteration=True) counts the readings
            next(iter(self.dataset))
        return self.dataset.skip(batch) if batch else self.dataset

    def next_epoch(self, epoch):
        return self.dataset if self.steps is None else None

    def end_epoch(self):
        """Nothing: Keras gives datasets no hook either."""


def _is_dataset(x) -> bool:
    """Whether this is a `tf.data.Dataset`, for which TensorFlow is not imported."""
    return "tensorflow" in sys.modules and isinstance(x, tf.data.Dataset)


def positioned(x, y=None, sample_weight=None, *, batch_size=None, steps_per_epoch=None, shuffle=True, seed=0):
    """The source of what `fit` was given.

    Raises:
        ValueError, TypeError: for data without positions (generators, data loaders), and for arguments that do not go
            together.
    """
    if isinstance(x, (Epochs, keras.utils.PyDataset)) or _is_dataset(x):
        if y is not None or sample_weight is not None:
            raise ValueError(f"A {type(x).__name__} holds targets and weights itself: leave y and sample_weight out.")
        if steps_per_epoch is not None and not _is_dataset(x):
            raise ValueError(f"steps_per_epoch goes with a tf.data.Dataset; a {type(x).__name__} says its own length.")
        if isinstance(x, Epochs):
            return x
        if _is_dataset(x):
            return _Dataset(x, steps_per_epoch)
        return _PyBatches(x, shuffle, seed)
    parts = (x,) if y is None and sample_weight is None else (x, y) if sample_weight is None else (x, y, sample_weight)
    leaves = [leaf for leaf in keras.tree.flatten(parts) if leaf is not None]
    if not leaves or not all(hasattr(leaf, "__array__") and len(leaf.shape) for leaf in leaves):
        raise TypeError(
            f"Training on a {type(x).__name__} cannot be resumed: it has no positions. Give arrays, a "
            "keras.utils.PyDataset, a tf.data.Dataset that is the same in every run, or training.Epochs."
        )
    if steps_per_epoch is not None:
        raise ValueError("steps_per_epoch goes with a tf.data.Dataset; of arrays an epoch is all rows.")
    if shuffle not in (True, False):
        raise ValueError(f"shuffle must be True or False where training can be resumed, got {shuffle!r}.")
    return _Arrays(parts, batch_size, shuffle, seed)


def split_validation(arrays, share: float):
    """(the first rows, the last `share` of them) of arrays, as Keras splits them.

    Args:
        arrays: (x, y, sample_weight), each a nest of arrays or None.
    """
    leaves = [leaf for leaf in keras.tree.flatten(arrays) if leaf is not None]
    if not all(hasattr(leaf, "__array__") for leaf in leaves):
        raise ValueError("validation_split needs arrays; of other data give validation_data.")
    rows = int(leaves[0].shape[0])
    kept = int(np.floor(rows * (1.0 - share)))
    if not 0 < kept < rows:
        raise ValueError(f"validation_split={share} of {rows} rows leaves nothing to train on, or to validate.")

    def rows_of(part):
        return keras.tree.map_structure(lambda leaf: None if leaf is None else leaf[part], arrays)

    return rows_of(slice(kept)), rows_of(slice(kept, None))


def describe(x, y=None, sample_weight=None, batch_size=None) -> dict:
    """What workers compare of their data, without reading any that can be read once only; values are JSON."""
    signature = getattr(x, "signature", None)
    if isinstance(signature, dict):
        return signature
    told = {"kind": type(x).__name__}
    if isinstance(getattr(x, "fingerprint", None), str):
        told["fingerprint"] = x.fingerprint
    if _is_dataset(x):
        return {**told, "batches": int(x.cardinality()), "elements": str(x.element_spec)}
    if isinstance(x, keras.utils.PyDataset):
        return {**told, "batches": x.num_batches}
    arrays = [leaf for leaf in keras.tree.flatten((x, y, sample_weight)) if leaf is not None]
    if arrays and all(hasattr(leaf, "__array__") and len(leaf.shape) for leaf in arrays):
        told |= {"rows": int(arrays[0].shape[0]), "batch size": batch_size or 32, "fingerprint": _fingerprint(arrays)}
    return told


def _with_keras_dtype(leaf):
    """An array as a tensor; floats become Keras' own, as in its `fit`."""
    if leaf is None:
        return None
    if on_jax():
        leaf = np.asarray(leaf)
        return leaf.astype(keras.config.floatx()) if leaf.dtype.kind == "f" else leaf
    if not tf.is_tensor(leaf):
        leaf = np.asarray(leaf)
    name = getattr(leaf.dtype, "name", str(leaf.dtype))
    return tf.cast(leaf, keras.config.floatx()) if "float" in name else tf.convert_to_tensor(leaf)


def _common_spec(*leaves):
    """The spec of batches in memory; a dimension in which they differ is None."""
    if leaves[0] is None:
        return None
    arrays = [np.asarray(leaf) for leaf in leaves]
    shape = [sizes[0] if len(set(sizes)) == 1 else None for sizes in zip(*(a.shape for a in arrays), strict=True)]
    dtype = keras.config.floatx() if arrays[0].dtype.kind == "f" else arrays[0].dtype
    return tf.TensorSpec(shape, dtype)


def _fingerprint(nest) -> str:
    """A SHA-256 of shapes, dtypes and up to 1,024 rows of each array, the first and the last among them."""
    digest = hashlib.sha256(json.dumps(str(keras.tree.map_structure(lambda _: 0, nest))).encode())
    for leaf in keras.tree.flatten(nest):
        if leaf is None:
            continue
        rows = int(leaf.shape[0]) if len(leaf.shape) else 0
        if rows > _FINGERPRINT_ROWS:
            chosen = np.linspace(0, rows - 1, _FINGERPRINT_ROWS).astype("int64")
            sample = ops.take(leaf, chosen, axis=0) if ops.is_tensor(leaf) else np.asarray(leaf)[chosen]
        else:
            sample = leaf
        sample = np.asarray(sample)
        digest.update(f"{tuple(leaf.shape)} {sample.dtype}".encode())
        digest.update(np.ascontiguousarray(sample).tobytes() if sample.dtype != object else repr(sample).encode())
    return digest.hexdigest()
