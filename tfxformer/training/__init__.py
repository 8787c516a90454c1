"""Optimizers, schedules and metrics for any Keras 3 model."""

from tfxformer.training.metrics import Perplexity
from tfxformer.training.optimizers import NO_DECAY, AdamW, adamw
from tfxformer.training.schedules import WarmupCosine, WarmupLinear

__all__ = ["NO_DECAY", "AdamW", "Perplexity", "WarmupCosine", "WarmupLinear", "adamw"]
