"""Tasks that learn from texts alone: parts of them are hidden by chance, others in every epoch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import keras
import numpy as np

from tfxformer.arguments.keywords import our_inputs
from tfxformer.data.batches import is_dataset, is_py_dataset, is_raw
from tfxformer.tasks.base.record_epochs import Mapped, record_epochs
from tfxformer.training import Epochs
from tfxformer.training.inputs.array_checks import Limits, check_batch
from tfxformer.training.inputs.checked_batches import each_batch
from tfxformer.training.inputs.given import Given

DEFAULT_HIDDEN_BATCH = 32  # rows


class HidingMethods:
    """The data side of a task with a `seed` that says what is hidden of rows (`hidden_batch`), before `Task`.

    The task also says which rows texts become (`hidden_rows`), and what of records it reads (`record_names`).
    """

    def hidden_rows(self, texts, fitting: bool) -> dict:
        """Texts as rows with nothing hidden: dict of arrays [R, ...], token_ids among them."""
        raise NotImplementedError("A task that hides says which rows texts become.")

    def hidden_batch(self, inputs: dict, generator: np.random.Generator) -> tuple:
        """A batch of rows with parts hidden, as `fit` takes it: (inputs, targets, weights)."""
        raise NotImplementedError("A task that hides says what.")

    def row_limits(self) -> Limits:
        """What rows may hold."""
        return self.limits()

    @property
    def record_names(self) -> list[str]:
        """What of a record's row is read."""
        return list(self.input)

    def arrays(self, given: Given, *, fitting=False) -> Given:
        """Batches with parts hidden, of texts and of batches without labels; others as every task takes them.

        Every epoch hides other parts of what `fit` trains on; those of `validation_data` stay the same.
        """
        if is_raw(given.x):
            if given.y is not None:
                raise ValueError(f"{type(self).__name__} learns from texts alone and takes no labels: fit(texts).")
            if given.sample_weight is not None:
                raise ValueError("sample_weight is for arrays: of texts every hidden token counts alike.")
            hidden = self._hiding(given.x, given.batch_size, fitting)
            return given._replace(x=hidden, batch_size=None)
        if is_dataset(given.x) and isinstance(given.x.element_spec, Mapping):
            return given._replace(x=self.mask_batches(given.x.map(our_inputs), changing=fitting))
        if isinstance(given.x, Iterator) or is_py_dataset(given.x):
            given = given._replace(x=each_batch(given.x, self._hidden_where_unlabelled, changing=fitting))
        return super().arrays(given, fitting=fitting)

    def _hiding(self, texts, batch_size, fitting=False) -> HiddenBatches:
        return HiddenBatches(self, self.hidden_rows(texts, fitting), batch_size or DEFAULT_HIDDEN_BATCH, fitting)

    def _hidden_where_unlabelled(self, index: int, batch: tuple) -> tuple:
        """A batch of a stream with parts hidden, where it has no labels."""
        if len(batch) > 1 or not isinstance(batch[0], Mapping):
            return batch
        inputs = dict(our_inputs(batch[0]))
        check_batch(inputs, None, None, self.row_limits())
        return self.hidden_batch(inputs, np.random.default_rng((self.seed, index)))

    def fixed_arrays(self, given: Given, *, fitting=False) -> Given:
        """Arrays of arrays and datasets, as every task has them.

        Raises:
            ValueError: for texts, of which every epoch has others.
        """
        if is_raw(given.x):
            raise ValueError(
                "Tokens are hidden batch by batch, others in every epoch: of texts there are no arrays to train on. "
                "Give a dataset of batches, as mask_batches(dataset) returns it, or one of hidden_batch(encode(texts), "
                "generator)."
            )
        return super().fixed_arrays(given, fitting=fitting)

    def epochs(self, records, batch_size: int = DEFAULT_HIDDEN_BATCH, *, seed: int = 0) -> Epochs:
        """Records with other parts hidden in every epoch, for a `fit` that `training.Resume` can go on with anywhere.

        `lm.fit(lm.epochs(records, 256), epochs=10, callbacks=[training.Resume("run")])`

        Args:
            records: `data.Records` that `data.prepare_records(..., kind=...)` made: "masked" for `tasks.MaskedLM` and
                its kin, "pieces" for `tasks.DenoisingLM`.
            batch_size: int, rows of a batch.
            seed: int, of their order, which is another one in every epoch; what is hidden hangs on the task's seed.

        Raises:
            ValueError: for records of another kind, or of fewer rows than a batch. RecordsError: of another tokenizer.
        """
        names = self.record_names

        def batches(rows, number):  # records for any task may have columns that this one does not read
            return self.mask_batches(rows.map(lambda row: {name: row[name] for name in names}), first=number)

        return record_epochs(self, records, batch_size, seed, names, batches)

    def mask_batches(self, dataset, first: int = 0, changing: bool = False):
        """A `tf.data.Dataset` of batches without labels, such as `data.Records.dataset`, with parts hidden.

        Args:
            dataset: of dicts of int32 [B, S], `token_ids` among them.
            first: the number of its first batch; the chance of a batch depends on the task's seed and its number. A
                dataset that goes on from the middle goes on with what is hidden too.
            changing: another pass over the dataset hides other parts. That is not known to a process that goes on
                in a later epoch: to resume exactly, give one dataset of all epochs and `steps_per_epoch`.

        Returns:
            A dataset of what `hidden_batch` returns.
        """
        if isinstance(dataset, Mapped):  # of records, on JAX: an epoch from its number on, in which nothing changes
            numbered = enumerate(dataset, first)
            return Mapped(self.hidden_batch(b, np.random.default_rng((self.seed, n, 0))) for n, b in numbered)
        import tensorflow as tf

        spec = dataset.element_spec
        blank = {
            name: np.zeros([size or 1 for size in one.shape], one.dtype.as_numpy_dtype) for name, one in spec.items()
        }
        example = self.hidden_batch(blank, np.random.default_rng(0))
        rows = spec["token_ids"].shape[0]

        def draw(number, turn, *arrays):
            generator = np.random.default_rng((self.seed, int(number), int(turn)))
            return keras.tree.flatten(self.hidden_batch(dict(zip(spec, arrays, strict=True)), generator))

        def hide(number, turn, batch):
            leaves = keras.tree.flatten(example)
            arrays = [number, turn, *(batch[name] for name in spec)]
            drawn = tf.numpy_function(draw, arrays, [leaf.dtype for leaf in leaves])
            shaped = [tf.ensure_shape(x, (rows, *leaf.shape[1:])) for x, leaf in zip(drawn, leaves, strict=True)]
            return keras.tree.pack_sequence_as(example, shaped)

        turns = tf.data.Dataset.from_tensors(tf.constant(0, tf.int64)).repeat()
        if changing:
            turns = tf.data.Dataset.random(self.seed, rerandomize_each_iteration=True)
        numbered = tf.data.Dataset.zip(tf.data.Dataset.counter(first), turns, dataset)
        return numbered.map(hide, tf.data.AUTOTUNE, deterministic=True).prefetch(tf.data.AUTOTUNE)


class HiddenBatches(keras.utils.PyDataset):
    """Batches of rows with parts hidden, if `changing` others in every epoch; the same for the same seed.

    Args:
        model: a task of `HidingMethods`.
        rows: dict of arrays [R, ...].
    """

    def __init__(self, model: HidingMethods, rows: dict, batch_size: int, changing: bool):
        super().__init__()
        self._model, self._rows, self._batch_size, self._changing = model, rows, batch_size, changing
        self._epoch = 0
        self._order = np.random.default_rng(model.seed).permutation(len(rows["token_ids"]))

    def __len__(self):
        return -(-len(self._order) // self._batch_size)

    def __getitem__(self, index):
        rows = self._order[index * self._batch_size : (index + 1) * self._batch_size]
        inputs = {name: array[rows] for name, array in self._rows.items()}
        return self._model.hidden_batch(inputs, np.random.default_rng((self._model.seed, self._epoch, index)))

    def on_epoch_end(self):
        if not self._changing:
            return
        self._epoch += 1
        self._order = np.random.default_rng((self._model.seed, self._epoch)).permutation(len(self._order))
