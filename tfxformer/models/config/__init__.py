"""What a Transformer is, as data."""

from tfxformer.models.config.stack import StackConfig
from tfxformer.models.config.transformer import HeadConfig, TransformerConfig
from tfxformer.models.config.values import AttentionConfig, ConvolutionConfig, FeedForwardConfig, NormConfig

__all__ = [
    "AttentionConfig",
    "ConvolutionConfig",
    "FeedForwardConfig",
    "HeadConfig",
    "NormConfig",
    "StackConfig",
    "TransformerConfig",
]
