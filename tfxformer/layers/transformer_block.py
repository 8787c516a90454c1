"""What the blocks of encoders and decoders share."""

from __future__ import annotations

import keras

from tfxformer.keywords import KnownKeywords
from tfxformer.layers.adapters.base import adapted_layers
from tfxformer.layers.attention.attention import Attention
from tfxformer.layers.feed_forward import FeedForward
from tfxformer.layers.kernels import formulas as kernels
from tfxformer.layers.kernels.dropout import drop_path, split_seed
from tfxformer.layers.normalization import make_norm

NORM_POSITIONS = ("post", "pre", "parallel")


class TransformerBlock(KnownKeywords, keras.layers.Layer):
    """Halves with dropout, a residual sum and a norm each; its subclasses say how they are put together.

    Args:
        attention: dict, arguments of `Attention`.
        feed_forward: dict, arguments of `FeedForward`.
        norm_position: "post" norms the sum (BERT), "pre" norms what a half reads (Xiong et al., arXiv:2002.04745),
            "parallel" too, and lets both halves read the block's input (GPT-NeoX, arXiv:2204.06745).
        norm_epsilon: float.
        norm: "layer" or "rms".
        dropout: float, dropout rate of each half's output.
        stochastic_depth: float, rate at which a half is left out per sample (Huang et al., arXiv:1603.09382).
        gradient_checkpointing: bool, recompute the block in the backward pass instead of keeping its activations.
    """

    norm_positions = NORM_POSITIONS
    random_draws = 5  # seeds a training call may need

    def __init__(
        self,
        attention,
        feed_forward,
        norm_position="post",
        norm_epsilon=1e-12,
        norm="layer",
        dropout=0.0,
        stochastic_depth=0.0,
        gradient_checkpointing=False,
        **kwargs,
    ):
        super().__init__(**kwargs)
        if norm_position not in self.norm_positions:
            raise ValueError(f"Unknown norm position {norm_position!r}; known: {', '.join(self.norm_positions)}.")
        self.attention_config = dict(attention)
        self.feed_forward_config = dict(feed_forward)
        self.norm_position = norm_position
        self.norm_epsilon = norm_epsilon
        self.norm = norm
        self.dropout = dropout
        self.stochastic_depth = stochastic_depth
        self.gradient_checkpointing = gradient_checkpointing
        self.seed_generator = keras.random.SeedGenerator()

    def build(self, input_shape):
        self.self_attention = self._attention("self_attention")
        self.attention_norm = self._norm("attention_norm")
        self.feed_forward = FeedForward(**self.feed_forward_config, dtype=self.dtype_policy, name="feed_forward")
        self.feed_forward_norm = self._norm("feed_forward_norm")
        for layer in (self.self_attention, self.attention_norm, self.feed_forward, self.feed_forward_norm):
            layer.build(input_shape)

    def _attention(self, name):
        return Attention(**self.attention_config, dtype=self.dtype_policy, name=name)

    def _norm(self, name):
        return make_norm(self.norm, self.norm_epsilon, self.dtype_policy, name)

    def _seeds(self, training) -> list:
        """What a call draws; outside of what a checkpointed backward pass runs again.

        Drawn inside, the second run would drop other units than the first and the gradient would be silently wrong.
        """
        adapters = any(layer.adapter.rate for layer in adapted_layers(self))
        count = self.random_draws + 1  # the last one is for the adapters
        if not training or not (self.dropout or self.stochastic_depth or self.self_attention.dropout or adapters):
            return [None] * count
        seed = self.seed_generator.next()
        return [split_seed(seed, index) for index in range(count)]

    def _regularize(self, x, dropout_seed, path_seed):
        if dropout_seed is None:
            return x
        if self.dropout:
            x = kernels.dropout(x, self.dropout, dropout_seed)
        return drop_path(x, self.stochastic_depth, path_seed) if self.stochastic_depth else x

    def get_config(self):
        return {
            **super().get_config(),
            "attention": self.attention_config,
            "feed_forward": self.feed_forward_config,
            "norm_position": self.norm_position,
            "norm_epsilon": self.norm_epsilon,
            "norm": self.norm,
            "dropout": self.dropout,
            "stochastic_depth": self.stochastic_depth,
            "gradient_checkpointing": self.gradient_checkpointing,
        }
