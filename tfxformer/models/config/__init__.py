"""What a Transformer is, as data."""

from tfxformer.models.config.stack import StackConfig
from tfxformer.models.config.transformer import HeadConfig, TransformerConfig
from tfxformer.models.config.values import (
    AttentionConfig,
    BottleneckConfig,
    ConvolutionConfig,
    DeltaRuleConfig,
    EmbeddingConvolutionConfig,
    FeedForwardConfig,
    NormConfig,
)

__all__ = [
    "AttentionConfig",
    "BottleneckConfig",
    "ConvolutionConfig",
    "DeltaRuleConfig",
    "EmbeddingConvolutionConfig",
    "FeedForwardConfig",
    "HeadConfig",
    "NormConfig",
    "StackConfig",
    "TransformerConfig",
]
