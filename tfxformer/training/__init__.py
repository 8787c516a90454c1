"""Optimizers and schedules for any Keras 3 model."""

from tfxformer.training.optimizers import NO_DECAY, AdamW, adamw
from tfxformer.training.schedules import WarmupLinear

__all__ = ["NO_DECAY", "AdamW", "WarmupLinear", "adamw"]
