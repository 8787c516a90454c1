"""Smaller models: pruning on tfmot's engine, for any Keras 3 model."""

from tfxformer.compression.prune import Prune
from tfxformer.compression.schedules import ConstantSparsity, PolynomialDecay
from tfxformer.compression.sparsity import SparsityReport, sparsity_report

__all__ = ["ConstantSparsity", "PolynomialDecay", "Prune", "SparsityReport", "sparsity_report"]
