"""The layers that encoders and decoders make of a config in the same way."""

from __future__ import annotations

import keras

from tfxformer.layers import TokenEmbedding
from tfxformer.models.config import StackConfig, TransformerConfig


def initializer(config: TransformerConfig):
    """The initializer of a kernel; a new one for each variable: one initializer gives everybody the same numbers."""
    return keras.initializers.TruncatedNormal(stddev=config.initializer_range)


def token_embedding(config: TransformerConfig, dtype=None) -> TokenEmbedding:
    """The token table."""
    return TokenEmbedding(
        config.vocabulary_size,
        config.table_size,
        initializer(config),
        config.token_table_rank,
        dtype=dtype,
        name="token_embedding",
    )


def block_arguments(config: TransformerConfig, stack: StackConfig, index: int) -> dict:
    """What `layers.TransformerBlock` takes for the weights number `index` of a stack."""
    scale = stack.head_width**-0.5 if stack.scale_attention else 1.0
    return {
        "attention": {
            "num_heads": stack.num_heads,
            "head_size": stack.head_width,
            "num_key_value_heads": stack.num_key_value_heads,
            "use_bias": stack.attention_bias,
            "output_bias": stack.attention_output_bias,
            "scale": scale / (index + 1) if stack.scale_attention_by_layer else scale,
            "dropout": stack.attention_dropout,
            "kernel_initializer": initializer(config),
        },
        "feed_forward": {
            "size": stack.feed_forward_size,
            "activation": stack.activation,
            "gated": stack.gated,
            "use_bias": stack.feed_forward_bias,
            "kernel_initializer": initializer(config),
        },
        "norm_position": stack.norm_position,
        "norm_epsilon": stack.norm_epsilon,
        "norm": stack.norm,
        "dropout": stack.dropout,
        "stochastic_depth": stack.stochastic_depth * (index + 1) / (max(stack.block_order) + 1),
    }
