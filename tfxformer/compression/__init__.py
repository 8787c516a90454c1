"""Smaller and cheaper models: pruning on tfmot's engine and adapters, for any Keras 3 model."""

from tfxformer.compression.adapters import Adapters, LoRA, TrainableTable, trainable_table
from tfxformer.compression.prune import Prune
from tfxformer.compression.schedules import ConstantSparsity, PolynomialDecay
from tfxformer.compression.sparsity import SparsityReport, sparsity_report

__all__ = [
    "Adapters",
    "ConstantSparsity",
    "LoRA",
    "PolynomialDecay",
    "Prune",
    "SparsityReport",
    "TrainableTable",
    "sparsity_report",
    "trainable_table",
]
