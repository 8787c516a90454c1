"""Strategies, the train step, optimizers, schedules and metrics for any Keras 3 model."""

from tfxformer.training.distributed_model import DistributedModel
from tfxformer.training.metrics import Perplexity
from tfxformer.training.optimizers import NO_DECAY, AdamW, adamw
from tfxformer.training.schedules import WarmupCosine, WarmupLinear
from tfxformer.training.strategy import strategy

__all__ = [
    "NO_DECAY",
    "AdamW",
    "DistributedModel",
    "Perplexity",
    "WarmupCosine",
    "WarmupLinear",
    "adamw",
    "strategy",
]
