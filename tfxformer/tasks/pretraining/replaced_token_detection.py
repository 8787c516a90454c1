"""Replaced-token detection: a small generator fills masks, and the model finds what it has changed."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
from keras import ops

from tfxformer.arguments.keywords import checked
from tfxformer.keras_files import folder_of_first_process
from tfxformer.layers import DEFAULT, GraphForm
from tfxformer.models import Encoder
from tfxformer.models.heads import ReplacedTokenHead
from tfxformer.models.parts import initializer
from tfxformer.models.pooling import scatter_positions
from tfxformer.tasks.base.task import Task
from tfxformer.tasks.masked_lm import POSITIONS, MaskedLM
from tfxformer.training.compiling.outputs import OF_TOKENS, Output

GENERATOR, DISCRIMINATOR = "generator", "discriminator"


@keras.saving.register_keras_serializable("tfxformer")
class ReplacedTokenLoss(keras.losses.Loss):
    """Binary cross-entropy of "was replaced", which the model alone knows: it has drawn the tokens.

    Call: original ids [B, S]; [B, S, 2], a logit and the id that the discriminator has seen.
    """

    def __init__(self, reduction="mean_with_sample_weight", name="replaced_token_loss", dtype=None):
        super().__init__(name=name, reduction=reduction, dtype=dtype)

    def call(self, y_true, y_pred):
        logits, replaced = _logits_and_truth(y_true, y_pred)
        return ops.relu(logits) - logits * replaced + ops.log1p(ops.exp(-ops.abs(logits)))


@keras.saving.register_keras_serializable("tfxformer")
class ReplacedTokenAccuracy(keras.metrics.Mean):
    """The share of tokens that are rightly called original or replaced; a call as `ReplacedTokenLoss` has it."""

    def __init__(self, name="accuracy", dtype=None):
        super().__init__(name, dtype)

    def update_state(self, y_true, y_pred, sample_weight=None):
        logits, replaced = _logits_and_truth(y_true, y_pred)
        return super().update_state(ops.cast(ops.equal(logits > 0, replaced > 0), "float32"), sample_weight)

    def get_config(self):
        return {"name": self.name, "dtype": self.dtype}


@keras.saving.register_keras_serializable("tfxformer")
class ReplacedTokenDetection(MaskedLM):
    """ELECTRA's pretraining (Clark et al., 2020, arXiv:2003.10555): a signal from every token, not from the hidden.

    A generator, smaller and on the same token, position and segment tables, is trained to fill masks; what it draws
    stands in for them, and the backbone learns which tokens are not the text's own.

    Args:
        backbone: `models.Encoder`, the discriminator: what is kept.
        generator_size: float, the generator's share of width, heads and feed-forward, at the same depth; None for no
            generator, which is enough for everything but `fit`.
        discriminator_weight: float, of its loss beside the generator's.
        others: see `MaskedLM`.

    Logits: float32 [B, S], above 0 where a token looks replaced. `fit(texts)`; `predict(texts)` -> for each text the
    probability of each of its tokens, special ones included. `save_pretrained` writes the discriminator, which
    every other task reads, and the generator in a folder of its own inside.
    """

    task_name = "replaced-token-detection"

    def __init__(self, backbone, generator_size=0.25, discriminator_weight=50.0, **kwargs):
        super().__init__(backbone, **kwargs)
        self.generator_size = generator_size
        self.discriminator_weight = discriminator_weight
        self.seed_generator = keras.random.SeedGenerator(self.seed)
        self.generator = None
        if generator_size is not None:
            config = generator_config(backbone.config, generator_size)
            encoder = Encoder(config, dtype=backbone.dtype_policy, tables=backbone)
            self.generator = MaskedLM(encoder, tokenizer=self.tokenizer, name=GENERATOR)

    @staticmethod
    def make_heads(backbone) -> dict:
        config = backbone.config
        return {
            "discriminator": ReplacedTokenHead(
                config.heads.classifier_activation or config.encoder.feed_forward.activation,
                initializer(config),
                dtype=backbone.dtype_policy,
                name="replaced_token_head",
            )
        }

    @staticmethod
    def graph(backbone, heads, inputs, graph_form: GraphForm = DEFAULT):
        return heads["discriminator"](backbone.forward(inputs, graph_form)["sequence_output"])

    def call(self, inputs, training=None, mask=None):
        if POSITIONS not in inputs:
            return Task.call(self, inputs, training=training, mask=mask)
        if self.generator is None:
            raise ValueError("This model has no generator to train with: make it with generator_size=0.25 or another.")
        logits = self.generator(inputs, training=training)  # [B, P, V]
        token_ids = self._filled(inputs["token_ids"], inputs[POSITIONS], logits)
        found = self.graph(self.backbone, self.heads, {**inputs, "token_ids": token_ids})
        # The loss compares with the ids that were seen; float32 holds every id exactly up to 2 ** 24.
        return {GENERATOR: logits, DISCRIMINATOR: ops.stack([found, ops.cast(token_ids, "float32")], axis=-1)}

    def _filled(self, token_ids, positions, logits):
        """The ids [B, S] with what the generator draws at its positions."""
        count = positions.shape[1]
        flat = ops.reshape(ops.stop_gradient(logits), (-1, logits.shape[-1]))  # [B, P, V] -> [B * P, V]
        drawn = keras.random.categorical(flat, 1, dtype="int32", seed=self.seed_generator)
        drawn = ops.reshape(drawn, (-1, count))
        length = ops.shape(token_ids)[1]
        placed = scatter_positions(ops.ones_like(positions), positions, length)
        return ops.where(placed > 0, scatter_positions(drawn, positions, length), token_ids)

    @property
    def output_kinds(self):
        return {GENERATOR: OF_TOKENS, DISCRIMINATOR: Output("replaced", partial=True)}

    def target_limits(self):
        return {GENERATOR: super().target_limits()}

    def default_loss(self):
        return {GENERATOR: super().default_loss(), DISCRIMINATOR: ReplacedTokenLoss()}

    def default_weighted_metrics(self):
        masked = keras.metrics.SparseCategoricalAccuracy(name="masked_accuracy")
        return {GENERATOR: [masked], DISCRIMINATOR: [ReplacedTokenAccuracy()]}

    def compile(self, *args, loss_weights=None, **kwargs):
        """See `Task.compile`; the losses are weighted by 1 and `discriminator_weight`."""
        weights = loss_weights or {GENERATOR: 1.0, DISCRIMINATOR: self.discriminator_weight}
        super().compile(*args, loss_weights=weights, **kwargs)

    def hidden_batch(self, inputs: dict, generator: np.random.Generator) -> tuple:
        """See `MaskedLM.hidden_batch`; the discriminator is asked about every real token, by the original ids."""
        hidden, labels, weights = super().hidden_batch(inputs, generator)
        real = inputs["padding_mask"].astype("float32")
        return (
            hidden,
            {GENERATOR: labels, DISCRIMINATOR: inputs["token_ids"]},
            {GENERATOR: weights, DISCRIMINATOR: real},
        )

    @checked(to="logits")
    def predict(self, x, batch_size=None, **kwargs) -> list[np.ndarray]:
        """For each text the probability that each of its tokens was replaced: float32 [tokens], special ones too."""
        batch = self._encode(self.read(x))
        chances = np.asarray(ops.sigmoid(self.logits(batch, batch_size, **kwargs)))
        lengths = batch["padding_mask"].sum(axis=1)
        return [row[:length] for row, length in zip(chances, lengths, strict=True)]

    @classmethod
    def arguments_from(cls, reference: dict, arguments: dict) -> dict:
        """A folder holds the discriminator; another generator would begin anew, so there is none unless asked for."""
        return {"generator_size": None, **super().arguments_from(reference, arguments)}

    def checkpoint_model(self) -> keras.Model:
        """The discriminator alone."""
        return keras.Model(self.inputs, self.outputs)

    @checked
    def save_pretrained(self, folder, **kwargs) -> Path:
        """Writes the discriminator, and the generator, where there is one, into the folder "generator" inside."""
        with folder_of_first_process(folder, (GENERATOR,)) as new:
            super().save_pretrained(new, **kwargs)
            if self.generator is not None:
                self.generator.save_pretrained(new / GENERATOR, **kwargs)
        return Path(folder).expanduser()

    def get_config(self):
        own = {"generator_size": self.generator_size, "discriminator_weight": self.discriminator_weight}
        return {**super().get_config(), **own}


def generator_config(config, size: float):
    """The config of a generator on the tables of an encoder: a share of its width, heads and feed-forward.

    Raises:
        ValueError: for a share that leaves no head, or heads of another width.
    """
    if not isinstance(size, (int, float)):
        raise TypeError(f"generator_size is a {type(size).__name__}: wanted a share of the encoder's width, up to 1.")
    heads = round(config.encoder.heads * size)
    width = heads * config.encoder.head_width
    if not 0 < size <= 1 or not heads:
        raise ValueError(
            f"generator_size={size} of {config.encoder.heads} heads leaves {heads}: give a share up to 1 that "
            f"leaves one, at least {1 / config.encoder.heads:.3g}."
        )
    return config.replace(
        embedding_size=config.table_size,
        encoder__hidden_size=width,
        encoder__attention__heads=heads,
        encoder__feed_forward__size=max(1, round(config.encoder.feed_forward.size * size)),
        heads__pooler=False,
    )


def _logits_and_truth(original, seen):
    """(logits, 1 where the id seen is not the original), float32 [B, S] each."""
    logits, token_ids = seen[..., 0], seen[..., 1]
    return logits, ops.cast(ops.not_equal(token_ids, ops.cast(original, token_ids.dtype)), logits.dtype)
