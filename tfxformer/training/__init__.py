"""Optimizers, schedules, metrics and callbacks for any Keras 3 model."""

from tfxformer.training.metrics import Perplexity
from tfxformer.training.optimizers import SGD, Adafactor, AdamW, Lamb, Lion, adamw, optimizer
from tfxformer.training.schedules import (
    WarmupCosine,
    WarmupInverseSqrt,
    WarmupLinear,
    WarmupPolynomial,
    WarmupStableDecay,
    schedule,
)
from tfxformer.training.variable_rules import NO_DECAY

__all__ = [
    "NO_DECAY",
    "SGD",
    "Adafactor",
    "AdamW",
    "Lamb",
    "Lion",
    "Perplexity",
    "WarmupCosine",
    "WarmupInverseSqrt",
    "WarmupLinear",
    "WarmupPolynomial",
    "WarmupStableDecay",
    "adamw",
    "optimizer",
    "schedule",
]
