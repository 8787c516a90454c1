"""Functional Keras models and the configs that they are made from."""

from tfxformer.backend import needs_keras

needs_keras("tfxformer.models")

from tfxformer.models.build import build
from tfxformer.models.config import (
    AttentionConfig,
    ConvolutionConfig,
    DeltaRuleConfig,
    FeedForwardConfig,
    HeadConfig,
    NormConfig,
    StackConfig,
    TransformerConfig,
)
from tfxformer.models.decoder import Decoder
from tfxformer.models.encoder import Encoder
from tfxformer.models.encoder_decoder import EncoderDecoder
from tfxformer.models.presets import PRESETS, preset

__all__ = [
    "PRESETS",
    "AttentionConfig",
    "ConvolutionConfig",
    "Decoder",
    "DeltaRuleConfig",
    "Encoder",
    "EncoderDecoder",
    "FeedForwardConfig",
    "HeadConfig",
    "NormConfig",
    "StackConfig",
    "TransformerConfig",
    "build",
    "preset",
]
