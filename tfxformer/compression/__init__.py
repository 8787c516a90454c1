"""Smaller models: pruning on tfmot's engine and distillation, for any Keras 3 model."""

from tfxformer.compression.distill import Distiller
from tfxformer.compression.distillation_losses import (
    AttentionLoss,
    EmbeddingLoss,
    HiddenStateLoss,
    LogitsLoss,
    RelationLoss,
)
from tfxformer.compression.prune import Prune
from tfxformer.compression.schedules import ConstantSparsity, PolynomialDecay
from tfxformer.compression.sparsity import SparsityReport, sparsity_report
from tfxformer.compression.student import student_from

__all__ = [
    "AttentionLoss",
    "ConstantSparsity",
    "Distiller",
    "EmbeddingLoss",
    "HiddenStateLoss",
    "LogitsLoss",
    "PolynomialDecay",
    "Prune",
    "RelationLoss",
    "SparsityReport",
    "sparsity_report",
    "student_from",
]
