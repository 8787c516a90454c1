"""Smaller models: pruning and clustering on tfmot's engine, distillation, structures removed, adapters."""

from tfxformer.backend import needs_keras

needs_keras("tfxformer.compression")

from tfxformer.compression.adapters import (
    IA3,
    AdaLoRA,
    Adapters,
    AllocateRanks,
    BitFit,
    Bottleneck,
    LoRA,
    PrefixTuning,
    PromptTuning,
    TrainableTable,
    trainable_table,
)
from tfxformer.compression.distillation.distiller import Distiller
from tfxformer.compression.distillation.losses import (
    AttentionLoss,
    EmbeddingLoss,
    HiddenStateLoss,
    LogitsLoss,
    RelationLoss,
)
from tfxformer.compression.distillation.teacher_targets import teacher_targets
from tfxformer.compression.pruning.cluster import Cluster
from tfxformer.compression.pruning.prune import Prune
from tfxformer.compression.pruning.sparsity_schedules import ConstantSparsity, PolynomialDecay
from tfxformer.compression.quantization_aware import QuantizationAware
from tfxformer.compression.smaller.factorized import factorize_embeddings
from tfxformer.compression.smaller.importance import head_importance, layer_importance, neuron_importance
from tfxformer.compression.smaller.structured import remove_heads, remove_layers, remove_neurons, shrink_gradually
from tfxformer.compression.smaller.student import student_from
from tfxformer.compression.smaller.vocabulary import add_tokens, keep_tokens, trim_vocabulary
from tfxformer.compression.weights.sensitivity import SensitivityReport, sensitivity
from tfxformer.compression.weights.sparsity import SparsityReport, sparsity_report

__all__ = [
    "IA3",
    "AdaLoRA",
    "Adapters",
    "AllocateRanks",
    "AttentionLoss",
    "BitFit",
    "Bottleneck",
    "Cluster",
    "ConstantSparsity",
    "Distiller",
    "EmbeddingLoss",
    "HiddenStateLoss",
    "LoRA",
    "LogitsLoss",
    "PolynomialDecay",
    "PrefixTuning",
    "PromptTuning",
    "Prune",
    "QuantizationAware",
    "RelationLoss",
    "SensitivityReport",
    "SparsityReport",
    "TrainableTable",
    "add_tokens",
    "factorize_embeddings",
    "head_importance",
    "keep_tokens",
    "layer_importance",
    "neuron_importance",
    "remove_heads",
    "remove_layers",
    "remove_neurons",
    "sensitivity",
    "shrink_gradually",
    "sparsity_report",
    "student_from",
    "teacher_targets",
    "trainable_table",
    "trim_vocabulary",
]
