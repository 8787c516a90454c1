"""Functional Keras models and the configs that they are made from."""

from tfxformer.models.config import HeadConfig, StackConfig, TransformerConfig
from tfxformer.models.encoder import Encoder, build
from tfxformer.models.presets import PRESETS, preset

__all__ = ["PRESETS", "Encoder", "HeadConfig", "StackConfig", "TransformerConfig", "build", "preset"]
