"""One block of a Transformer encoder."""

from __future__ import annotations

import keras
from keras import ops

from tfxformer.layers import kernels
from tfxformer.layers.attention import Attention
from tfxformer.layers.dropout import drop_path, split_seed
from tfxformer.layers.feed_forward import FeedForward
from tfxformer.layers.normalization import LayerNormalization
from tfxformer.layers.numerics import DEFAULT, Numerics

NORM_POSITIONS = ("post", "pre")


@keras.saving.register_keras_serializable("tfxformer")
class EncoderBlock(keras.layers.Layer):
    """Self-attention and feed-forward, each with dropout, a residual sum and a norm.

    Args:
        attention: dict, arguments of `Attention`.
        feed_forward: dict, arguments of `FeedForward`.
        norm_position: "post" norms the sum (BERT), "pre" norms what a half reads (Xiong et al., arXiv:2002.04745).
        norm_epsilon: float.
        dropout: float, dropout rate of each half's output.
        stochastic_depth: float, rate at which a half is left out per sample (Huang et al., arXiv:1603.09382).
        gradient_checkpointing: bool, recompute the block in the backward pass instead of keeping its activations.

    Call:
        inputs: [B, S, D].
        bias: additive attention bias, broadcastable to [B, N, S, S].
        first_only: bool, compute the first position alone (it still attends to all): what a classifier reads of the
            last block, at a fraction of its cost.

    Returns:
        [B, S, D], or [B, 1, D] with `first_only`.
    """

    def __init__(
        self,
        attention,
        feed_forward,
        norm_position="post",
        norm_epsilon=1e-12,
        dropout=0.0,
        stochastic_depth=0.0,
        gradient_checkpointing=False,
        **kwargs,
    ):
        super().__init__(**kwargs)
        if norm_position not in NORM_POSITIONS:
            raise ValueError(f"Unknown norm position {norm_position!r}; known: {', '.join(NORM_POSITIONS)}.")
        self.attention_config = dict(attention)
        self.feed_forward_config = dict(feed_forward)
        self.norm_position = norm_position
        self.norm_epsilon = norm_epsilon
        self.dropout = dropout
        self.stochastic_depth = stochastic_depth
        self.gradient_checkpointing = gradient_checkpointing
        self.seed_generator = keras.random.SeedGenerator()

    def build(self, input_shape):
        self.self_attention = Attention(**self.attention_config, dtype=self.dtype_policy, name="self_attention")
        self.attention_norm = self._norm("attention_norm")
        self.feed_forward = FeedForward(**self.feed_forward_config, dtype=self.dtype_policy, name="feed_forward")
        self.feed_forward_norm = self._norm("feed_forward_norm")
        for layer in (self.self_attention, self.attention_norm, self.feed_forward, self.feed_forward_norm):
            layer.build(input_shape)

    def _norm(self, name):
        return LayerNormalization(epsilon=self.norm_epsilon, dtype=self.dtype_policy, name=name)

    @property
    def _random(self) -> bool:
        return bool(self.dropout or self.stochastic_depth or self.self_attention.dropout)

    def call(self, inputs, bias=None, first_only=False, training=None, numerics: Numerics = DEFAULT):
        # The seed is drawn outside of what a checkpointed backward pass runs again: drawn inside, the second
        # run would drop other units than the first and the gradient would be silently wrong.
        seed = self.seed_generator.next() if training and self._random else None
        if training and self.gradient_checkpointing:
            return keras.remat(lambda x: self._transform(x, bias, first_only, seed, training, numerics))(inputs)
        return self._transform(inputs, bias, first_only, seed, training, numerics)

    def _transform(self, x, bias, first_only, seed, training, numerics):
        seeds = [None] * 5 if seed is None else [split_seed(seed, i) for i in range(5)]
        stream = x[:, :1] if first_only else x
        if training and self.norm_position == "post" and not self.stochastic_depth:
            return self._train_post(stream, x if first_only else None, bias, seeds)

        def attend(y):
            query, source = (y[:, :1], y) if first_only else (y, None)
            y = self.self_attention(
                query, source=source, bias=bias, training=training, seed=seeds[0], numerics=numerics
            )
            return self._regularize(y, seeds[1], seeds[2])

        def feed_forward(y):
            return self._regularize(self.feed_forward(y, training=training, numerics=numerics), seeds[3], seeds[4])

        if self.norm_position == "pre":
            stream = stream + attend(self.attention_norm(x, numerics=numerics))
            return stream + feed_forward(self.feed_forward_norm(stream, numerics=numerics))
        stream = self.attention_norm(stream + attend(x), numerics=numerics)
        return self.feed_forward_norm(stream + feed_forward(stream), numerics=numerics)

    def _train_post(self, x, source, bias, seeds):
        """The same block, its bias, dropout, sum and norm in one kernel each."""
        context = self.self_attention.training_context(x, source, bias, seeds[0])
        x = self._add_norm(context, self.self_attention.output_projection, x, self.attention_norm, seeds[1])
        inner = self.feed_forward.inner(x, training=True)
        return self._add_norm(inner, self.feed_forward.output_projection, x, self.feed_forward_norm, seeds[3])

    def _add_norm(self, inputs, projection, residual, norm, seed):
        product = ops.matmul(inputs, ops.cast(projection.kernel, inputs.dtype))
        return kernels.add_norm(
            product, residual, norm.gamma, norm.beta, norm.epsilon, projection.bias, self.dropout, seed
        )

    def _regularize(self, x, dropout_seed, path_seed):
        if dropout_seed is None:
            return x
        if self.dropout:
            x = kernels.dropout(x, self.dropout, dropout_seed)
        return drop_path(x, self.stochastic_depth, path_seed) if self.stochastic_depth else x

    def compute_output_spec(self, inputs, *args, first_only=False, **kwargs):
        length = 1 if first_only else inputs.shape[1]
        return keras.KerasTensor((inputs.shape[0], length, inputs.shape[2]), dtype=self.compute_dtype)

    def get_config(self):
        return {
            **super().get_config(),
            "attention": self.attention_config,
            "feed_forward": self.feed_forward_config,
            "norm_position": self.norm_position,
            "norm_epsilon": self.norm_epsilon,
            "dropout": self.dropout,
            "stochastic_depth": self.stochastic_depth,
            "gradient_checkpointing": self.gradient_checkpointing,
        }
