"""Masked language modelling: fills masks, and trains on texts with tokens hidden at random."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import keras
import numpy as np

from tfxformer.arguments.keywords import checked, our_inputs
from tfxformer.data.batches import is_dataset, read_examples
from tfxformer.data.examples import is_py_dataset, is_raw
from tfxformer.data.targets.masking import (
    MASKINGS,
    MaskedPositions,
    MaskedTokens,
    best_fillings,
    by_positions,
    mask_tokens,
    most_positions,
)
from tfxformer.layers import DEFAULT, GraphForm
from tfxformer.models.backbone import config_of
from tfxformer.models.heads import LogitsBias, MaskedLMTransform
from tfxformer.models.pooling import gather_positions
from tfxformer.tasks.base.record_epochs import record_epochs
from tfxformer.tasks.base.streams import read_given
from tfxformer.tasks.base.task import Task
from tfxformer.training import Epochs
from tfxformer.training.compiling.outputs import IGNORED, OF_TOKENS
from tfxformer.training.inputs.array_checks import Limit, Limits, check_batch
from tfxformer.training.inputs.checked_batches import each_batch
from tfxformer.training.inputs.given import Given

POSITIONS = "masked_positions"


@keras.saving.register_keras_serializable("tfxformer")
class MaskedLM(Task):
    """Predicts hidden tokens (Devlin et al., 2018, arXiv:1810.04805).

    `fit` takes texts; datasets of batches without labels, as `data.Records.dataset` gives them, in which it hides
    tokens on the way; or ids with tokens hidden, labels and weights, as every task takes its arrays.

    Args:
        backbone: `models.Encoder`.
        masking_rate: float, share of tokens that `fit` hides, chosen anew in every epoch.
        masking: what is chosen: single "tokens", whole "words", or "spans" of words; see `data.masking.mask_tokens`.
        seed: int, of that choice.
        tokenizer, sequence_length: see `Task`.

    Logits: float32 [B, S, V]; of a batch with `masked_positions` int32 [B, P] (-1 for none) those of these positions
    alone, [B, P, V]: what `fit` computes, a seventh of the work and the memory. `predict(texts with masks)` -> for
    each text, for each mask, the best `Filling`s.

    Raises ValueError for an unknown masking, and for a backbone that is no encoder.
    """

    task_name = "masked-lm"
    backbone_kind = "encoder"
    input_spec = None  # a batch may have positions too
    further_inputs = (POSITIONS,)

    def __init__(self, backbone, masking_rate=0.15, masking="tokens", seed=0, tokenizer=None, **kwargs):
        if masking not in MASKINGS:
            raise ValueError(f"masking={masking!r} is unknown; known: {', '.join(MASKINGS)}.")
        self.check_backbone(config_of(backbone))
        super().__init__(backbone, self.make_heads(backbone), tokenizer=tokenizer, **kwargs)
        self.masking_rate = masking_rate
        self.masking = masking
        self.seed = seed
        self._continuations = None

    @staticmethod
    def make_heads(backbone) -> dict:
        """The layers between the encoder and the token table."""
        config, policy = backbone.config, backbone.dtype_policy
        initializer = keras.initializers.TruncatedNormal(stddev=config.initializer_range)
        return {
            "transform": MaskedLMTransform(
                config.table_size,
                config.heads.masked_lm_activation or config.encoder.feed_forward.activation,
                config.encoder.norm.epsilon,
                initializer,
                dtype=policy,
                name="masked_lm_transform",
            ),
            "bias": LogitsBias(dtype=policy, name="masked_lm_bias"),
        }

    @staticmethod
    def graph(backbone, heads, inputs, graph_form: GraphForm = DEFAULT):
        sequence = backbone.forward(inputs, graph_form)["sequence_output"]
        if POSITIONS in inputs:
            sequence = gather_positions(sequence, inputs[POSITIONS])
        return token_logits(backbone, heads, sequence, graph_form)

    def call(self, inputs, training=None, mask=None):
        if POSITIONS not in inputs:
            return super().call(inputs, training=training, mask=mask)
        return self.graph(self.backbone, self.heads, inputs)

    @property
    def output_kinds(self):
        return OF_TOKENS

    def default_loss(self):
        return keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction="mean_with_sample_weight")

    def default_weighted_metrics(self):
        """Of hidden tokens only."""
        return [keras.metrics.SparseCategoricalAccuracy(name="masked_accuracy")]

    # ---- training ---------------------------------------------------------------------------------------------

    def arrays(self, given: Given, *, fitting=False) -> Given:
        """Batches with tokens hidden, of texts and of batches without labels; others as every task takes them.

        Every epoch hides other tokens of what `fit` trains on; those of `validation_data` stay the same.
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

    def _hidden_where_unlabelled(self, index: int, batch: tuple) -> tuple:
        """A batch of a stream with tokens hidden, where it has no labels."""
        if len(batch) > 1 or not isinstance(batch[0], Mapping):
            return batch
        inputs = dict(our_inputs(batch[0]))
        check_batch(inputs, None, None, self.limits())
        return self.hidden_batch(inputs, np.random.default_rng((self.seed, index)))

    def limits(self) -> Limits:
        """See `Task.limits`."""
        limits = super().limits()
        return limits._replace(inputs={**limits.inputs, POSITIONS: Limit(-1, None, "positions, -1 for none")})

    def target_limits(self):
        return Limit(0, self.backbone.config.vocabulary_size - 1, "ids of the vocabulary", IGNORED)

    def fixed_arrays(self, given: Given, *, fitting=False) -> Given:
        if is_raw(given.x):
            raise ValueError(
                "Tokens are hidden batch by batch, others in every epoch: of texts there are no arrays to train on. "
                "Give a dataset of batches, as mask_batches(dataset) returns it, or one of hidden_batch(encode(texts), "
                "generator)."
            )
        return super().fixed_arrays(given, fitting=fitting)

    def _hiding(self, texts, batch_size, fitting=False):
        examples = self.read(texts)
        if fitting:
            self.choose_sequence_length(examples)
        return MaskedBatches(self, self._encode(examples), batch_size or 32, changing=fitting)

    def hide(self, token_ids, generator: np.random.Generator) -> MaskedTokens:
        """Rows of ids [B, S] with tokens hidden; `generator` is the only source of chance."""
        tokenizer = self._tokenizer()
        if tokenizer.mask_id is None:
            raise ValueError("The tokenizer has no mask token, so no token can be hidden.")
        if self._continuations is None and self.masking != "tokens":
            self._continuations = tokenizer.continuations()
        return mask_tokens(
            token_ids,
            mask_id=tokenizer.mask_id,
            vocabulary_size=tokenizer.vocabulary_size,
            special_ids=tokenizer.special_ids,
            generator=generator,
            rate=self.masking_rate,
            masking=self.masking,
            continuations=self._continuations,
        )

    def mask_positions(self, token_ids, generator: np.random.Generator) -> MaskedPositions:
        """The same by places, as many columns as a row of this length may have."""
        return by_positions(self.hide(token_ids, generator), most_positions(np.shape(token_ids)[1], self.masking_rate))

    def hidden_batch(self, inputs: dict, generator: np.random.Generator) -> tuple:
        """A batch of arrays with tokens hidden, as `fit` takes it: (inputs, targets, weights)."""
        places = self.mask_positions(inputs["token_ids"], generator)
        return {**inputs, "token_ids": places.token_ids, POSITIONS: places.positions}, places.labels, places.weights

    def epochs(self, records, batch_size: int = 32, *, seed: int = 0) -> Epochs:
        """Records with other tokens hidden in every epoch, for a `fit` that `training.Resume` can go on with anywhere.

        `lm.fit(lm.epochs(records, 256), epochs=10, callbacks=[training.Resume("run")])`

        Args:
            records: `data.Records` that `data.prepare_records(..., kind="masked")` made.
            batch_size: int, rows of a batch.
            seed: int, of their order, which is another one in every epoch; what is hidden hangs on the task's seed.

        Raises:
            ValueError: for records of another kind, or of fewer rows than a batch. RecordsError: of another tokenizer.
        """

        def batches(rows, number):
            if not self._has_segments:  # prepared for any encoder
                rows = rows.map(lambda row: {name: x for name, x in row.items() if name != "segment_ids"})
            return self.mask_batches(rows, first=number)

        return record_epochs(self, records, batch_size, seed, self.input, batches)

    def mask_batches(self, dataset, first: int = 0, changing: bool = False):
        """A `tf.data.Dataset` of batches without labels, such as `data.Records.dataset`, with tokens hidden.

        Args:
            dataset: of dicts of int32 [B, S], `token_ids` among them.
            first: the number of its first batch; the chance of a batch depends on the task's seed and its number. A
                dataset that goes on from the middle goes on with the masks too.
            changing: another pass over the dataset hides other tokens. That is not known to a process that goes on
                in a later epoch: to resume exactly, give one dataset of all epochs and `steps_per_epoch`.

        Returns:
            A dataset of what `hidden_batch` returns.
        """
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

    # ---- filling ----------------------------------------------------------------------------------------------

    @checked(to="logits")
    def predict(self, x, batch_size=None, *, top_k=5, **kwargs):
        """The `top_k` best fillings of each mask of each text: list (texts) of list (masks) of list of `Filling`."""
        texts = read_examples(read_given(x).x)  # a text each, also where `fit` learns from lists of sentences
        batch = self._encode(texts)
        masks = batch["token_ids"] == self._tokenizer().mask_id
        without = np.flatnonzero(~masks.any(axis=1))
        if len(without):
            raise ValueError(f"Text {without[0]} has no mask token (or it was cut): {texts.texts[without[0]]!r:.80}.")
        columns = 8 * -(-int(masks.sum(axis=1).max()) // 8)  # in steps, or each number of masks would be traced anew
        positions = by_positions(MaskedTokens(batch["token_ids"], batch["token_ids"], masks), columns).positions
        fillings, batch_size = [], batch_size or 32
        for first in range(0, len(masks), batch_size):
            part = slice(first, first + batch_size)
            inputs = self._at({name: array[part] for name, array in batch.items()}, positions[part])
            for row, places in zip(self.logits(inputs, batch_size, **kwargs), positions[part], strict=True):
                fillings.append([best_fillings(row[i], self.tokenizer, top_k) for i in np.flatnonzero(places >= 0)])
        return fillings

    def _at(self, inputs: dict, positions) -> dict:
        """The inputs of the call that gives the logits of masks [B, P]."""
        return {**inputs, POSITIONS: positions}

    def get_config(self):
        config = {"masking_rate": self.masking_rate, "masking": self.masking, "seed": self.seed}
        return {**super().get_config(), **config}


def token_logits(backbone, heads: dict, sequence, graph_form: GraphForm = DEFAULT):
    """[B, S, D] -> float32 [B, S, V], by the transform, the tied table and its bias."""
    transformed = heads["transform"](sequence, graph_form=graph_form)
    return heads["bias"](backbone.token_embedding(transformed, reverse=True, graph_form=graph_form))


class MaskedBatches(keras.utils.PyDataset):
    """Batches of rows with tokens hidden, if `changing` others in every epoch; the same for the same seed.

    Args:
        model: `MaskedLM`.
        rows: dict of arrays [R, ...].
    """

    def __init__(self, model: MaskedLM, rows: dict, batch_size: int, changing: bool):
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
