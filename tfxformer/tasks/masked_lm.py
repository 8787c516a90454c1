"""Masked language modelling: fills masks, and trains on texts with tokens hidden at random."""

from __future__ import annotations

import keras
import numpy as np

from tfxformer.arguments.keywords import checked
from tfxformer.data.batches import read_examples
from tfxformer.data.targets.masking import (
    MASKINGS,
    MaskedPositions,
    MaskedTokens,
    best_fillings,
    by_positions,
    mask_tokens,
    most_positions,
)
from tfxformer.layers import DEFAULT, Dense, GraphForm
from tfxformer.models.backbone import config_of
from tfxformer.models.heads import LogitsBias, MaskedLMTransform
from tfxformer.models.parts import initializer
from tfxformer.models.pooling import gather_positions
from tfxformer.tasks.base.hiding import HidingMethods
from tfxformer.tasks.base.language_head import language_heads, language_logits
from tfxformer.tasks.base.streams import read_given
from tfxformer.tasks.base.task import Task
from tfxformer.training.compiling.outputs import IGNORED, OF_TOKENS
from tfxformer.training.inputs.array_checks import Limit, Limits

POSITIONS = "masked_positions"


@keras.saving.register_keras_serializable("tfxformer")
class MaskedLM(HidingMethods, Task):
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
        """The layers behind the encoder, but for a token table that is read in reverse."""
        config, policy, heads = backbone.config, backbone.dtype_policy, {}
        if config.heads.masked_lm_transform:
            heads["transform"] = MaskedLMTransform(
                config.hidden_size if config.heads.masked_lm_split else config.table_size,
                config.heads.masked_lm_activation or config.encoder.feed_forward.activation,
                config.encoder.norm.epsilon,
                initializer(config),
                norm_bias=config.encoder.norm.bias,
                use_bias=config.heads.transform_bias,
                dtype=policy,
                name="masked_lm_transform",
            )
        heads |= language_heads(backbone)
        if config.heads.masked_lm_split:
            arguments = {"use_bias": False, "kernel_initializer": initializer(config), "dtype": policy}
            heads["beyond"] = Dense(config.vocabulary_size, **arguments, name="masked_lm_beyond")
        if config.heads.masked_lm_bias:
            heads["bias"] = LogitsBias(dtype=policy, name="masked_lm_bias")
        return heads

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

    def limits(self) -> Limits:
        """See `Task.limits`."""
        limits = super().limits()
        return limits._replace(inputs={**limits.inputs, POSITIONS: Limit(-1, None, "positions, -1 for none")})

    def target_limits(self):
        return Limit(0, self.backbone.config.vocabulary_size - 1, "ids of the vocabulary", IGNORED)

    def hidden_rows(self, texts, fitting: bool) -> dict:
        """See `HidingMethods.hidden_rows`."""
        examples = self.read(texts)
        if fitting:
            self.choose_sequence_length(examples)
        return self._encode(examples)

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
    """[B, S, D] -> float32 [B, S, V], by the transform, the table (or a Dense of the head's own) and a bias."""
    if "transform" in heads:
        sequence = heads["transform"](sequence, graph_form=graph_form)
    if "beyond" not in heads:
        return language_logits(backbone, heads, sequence, graph_form)
    width = backbone.config.table_size
    inner, outer = sequence[..., :width], sequence[..., width:]
    logits = backbone.token_embedding(inner, reverse=True, graph_form=graph_form) + heads["beyond"](outer)
    return heads["bias"](logits)
