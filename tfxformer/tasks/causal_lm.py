"""Causal language modelling: the next token, in training, in scoring, and one step at a time on a cache."""

from __future__ import annotations

import keras
from keras import ops

from tfxformer.layers import DEFAULT, Cache, Dense, Numerics
from tfxformer.tasks.task import Task


@keras.saving.register_keras_serializable("tfxformer")
class CausalLM(Task):
    """Predicts each next token (Radford et al., 2019).

    Args:
        backbone: `models.Decoder`.
        tokenizer, sequence_length: see `Task`.

    Logits: float32 [B, S, V], those of token s + 1 at position s.
    """

    task_name = "causal-lm"

    def __init__(self, backbone, tokenizer=None, **kwargs):
        config = backbone.config
        heads = {}
        if not config.heads.tied:
            heads["head"] = Dense(
                config.vocabulary_size,
                use_bias=False,
                kernel_initializer=keras.initializers.TruncatedNormal(stddev=config.initializer_range),
                dtype=backbone.dtype_policy,
                name="language_model_head",
            )
        super().__init__(backbone, heads, tokenizer=tokenizer, **kwargs)

    @staticmethod
    def graph(backbone, heads, inputs, numerics: Numerics = DEFAULT):
        return language_logits(backbone, heads, backbone.forward(inputs, numerics)["sequence_output"], numerics)

    def default_loss(self):
        return keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction="mean_with_sample_weight")

    def new_cache(self, batch_size: int, length: int) -> Cache:
        """An empty cache of `length` slots; see `models.Decoder.new_cache`."""
        return self.backbone.new_cache(batch_size, length)

    def step(self, inputs: dict, cache: Cache, numerics: Numerics = DEFAULT, logits: str | None = "last"):
        """New tokens on a cache, as one graph over tensors or symbolic inputs.

        Args:
            inputs: as `models.Decoder.step` takes them.
            cache: `Cache`, see `new_cache`.
            numerics: how the graph is written.
            logits: "last" for those of the last token alone, "all", or None for none.

        Returns:
            (float32 [B, 1, V], [B, S, V] or None, new cache).
        """
        outputs = self.backbone.step(inputs, cache, numerics)
        if logits is None:
            return None, outputs["cache"]
        x = outputs["sequence_output"]
        x = x[:, -1:] if logits == "last" else x
        return language_logits(self.backbone, self.heads, x, numerics), outputs["cache"]


def language_logits(backbone, heads: dict, x, numerics: Numerics = DEFAULT):
    """[B, S, table width] -> float32 [B, S, V], by the head or in its absence by the token table."""
    if "head" in heads:
        return ops.cast(heads["head"](x), "float32")
    return ops.cast(backbone.token_embedding(x, reverse=True, numerics=numerics), "float32")
