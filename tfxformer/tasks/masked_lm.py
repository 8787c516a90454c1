"""Masked language modelling: fills masks, and trains on texts with tokens hidden at random."""

from __future__ import annotations

import keras
import numpy as np

from tfxformer.data.examples import is_raw
from tfxformer.data.masking import best_fillings, mask_tokens
from tfxformer.layers import DEFAULT, Numerics
from tfxformer.models.heads import LogitsBias, MaskedLMTransform
from tfxformer.tasks.task import Task


@keras.saving.register_keras_serializable("tfxformer")
class MaskedLM(Task):
    """Predicts hidden tokens (Devlin et al., 2018, arXiv:1810.04805).

    Args:
        backbone: `models.Encoder`.
        masking_rate: float, share of tokens that `fit` hides, chosen anew in every epoch.
        seed: int, of that choice.
        tokenizer, sequence_length: see `Task`.

    Logits: float32 [B, S, V]. `fit(texts)`; `predict(texts with masks)` -> for each text, for each mask, the best
    `Filling`s.
    """

    task_name = "masked-lm"

    def __init__(self, backbone, masking_rate=0.15, seed=0, tokenizer=None, **kwargs):
        config, policy = backbone.config, backbone.dtype_policy
        initializer = keras.initializers.TruncatedNormal(stddev=config.initializer_range)
        heads = {
            "transform": MaskedLMTransform(
                config.table_size,
                config.heads.masked_lm_activation or config.encoder.activation,
                config.encoder.norm_epsilon,
                initializer,
                dtype=policy,
                name="masked_lm_transform",
            ),
            "bias": LogitsBias(dtype=policy, name="masked_lm_bias"),
        }
        super().__init__(backbone, heads, tokenizer=tokenizer, **kwargs)
        self.masking_rate = masking_rate
        self.seed = seed

    @staticmethod
    def graph(backbone, heads, inputs, numerics: Numerics = DEFAULT):
        sequence = backbone.forward(inputs, numerics)["sequence_output"]
        transformed = heads["transform"](sequence, numerics=numerics)
        return heads["bias"](backbone.token_embedding(transformed, reverse=True, numerics=numerics))

    def default_loss(self):
        return keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction="mean_with_sample_weight")

    def compile(self, *args, weighted_metrics=None, **kwargs):
        """See `Task.compile`; the default metric counts hidden tokens only."""
        if weighted_metrics is None:
            weighted_metrics = [keras.metrics.SparseCategoricalAccuracy(name="masked_accuracy")]
        super().compile(*args, weighted_metrics=weighted_metrics, **kwargs)

    def fit(self, x=None, y=None, batch_size=None, *args, validation_data=None, **kwargs):
        """Fits on texts (`y` stays None), arrays or datasets; see `Task.fit`.

        Every epoch hides other tokens of `x`; those of `validation_data` (texts, or a dataset of them) stay the same.
        """
        hidden = self._hiding(x, batch_size, fitting=True) if is_raw(x) else None
        validation = validation_data[0] if isinstance(validation_data, tuple) else validation_data
        if validation is not None and is_raw(validation):
            validation_data = self._hiding(validation, batch_size)
        if hidden is not None:
            x, batch_size = hidden, None
        return super().fit(x, y, batch_size, *args, validation_data=validation_data, **kwargs)

    def evaluate(self, x=None, y=None, batch_size=None, **kwargs):
        """The loss on hidden tokens of texts, arrays or datasets."""
        if is_raw(x):
            x, batch_size = self._hiding(x, batch_size), None
        return super().evaluate(x, y, batch_size, **kwargs)

    def _hiding(self, texts, batch_size, fitting=False):
        examples = self.read(texts)
        if fitting:
            self.choose_sequence_length(examples)
        return _MaskedBatches(self._encode(examples), self, batch_size or 32, changing=fitting)

    def hide(self, token_ids, generator: np.random.Generator):
        """(ids with tokens hidden, original ids, weights of the hidden ones), each [B, S]."""
        tokenizer = self._tokenizer()
        if tokenizer.mask_id is None:
            raise ValueError("The tokenizer has no mask token, so no token can be hidden.")
        return mask_tokens(
            token_ids,
            mask_id=tokenizer.mask_id,
            vocabulary_size=tokenizer.vocabulary_size,
            special_ids=tokenizer.special_ids,
            generator=generator,
            rate=self.masking_rate,
        )

    def predict(self, x, batch_size=None, *, top_k=5, **kwargs):
        """The `top_k` best fillings of each mask of each text: list (texts) of list (masks) of list of `Filling`."""
        texts = self.read(x)
        batch = self._encode(texts)
        masks = batch["token_ids"] == self._tokenizer().mask_id
        without = np.flatnonzero(~masks.any(axis=1))
        if len(without):
            raise ValueError(f"Text {without[0]} has no mask token (or it was cut): {texts.texts[without[0]]!r:.80}.")
        fillings, batch_size = [], batch_size or 32
        for first in range(0, len(masks), batch_size):  # all logits at once would be gigabytes: [B, S, V]
            part = slice(first, first + batch_size)
            logits = self.logits({name: array[part] for name, array in batch.items()}, batch_size, **kwargs)
            for row, mask in zip(logits, masks[part], strict=True):
                fillings.append([best_fillings(row[i], self.tokenizer, top_k) for i in np.flatnonzero(mask)])
        return fillings

    def get_config(self):
        return {**super().get_config(), "masking_rate": self.masking_rate, "seed": self.seed}


class _MaskedBatches(keras.utils.PyDataset):
    """Batches of encoded texts with tokens hidden, if `changing` others in every epoch; the same for the same seed."""

    def __init__(self, batch: dict, model: MaskedLM, batch_size: int, changing: bool):
        super().__init__()
        self._changing = changing
        self._batch, self._model, self._batch_size = batch, model, batch_size
        self._epoch = 0
        self._order = np.random.default_rng(model.seed).permutation(len(batch["token_ids"]))

    def __len__(self):
        return -(-len(self._order) // self._batch_size)

    def __getitem__(self, index):
        rows = self._order[index * self._batch_size : (index + 1) * self._batch_size]
        inputs = {name: array[rows] for name, array in self._batch.items()}
        generator = np.random.default_rng((self._model.seed, self._epoch, index))
        hidden = self._model.hide(inputs["token_ids"], generator)
        return {**inputs, "token_ids": hidden.token_ids}, hidden.labels, hidden.weights

    def on_epoch_end(self):
        if not self._changing:
            return
        self._epoch += 1
        self._order = np.random.default_rng((self._model.seed, self._epoch)).permutation(len(self._order))
