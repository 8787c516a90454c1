"""Smaller models: pruning on tfmot's engine, for any Keras 3 model; removal of heads, neurons, layers and tokens."""

from tfxformer.compression.importance import head_importance, layer_importance, neuron_importance
from tfxformer.compression.prune import Prune
from tfxformer.compression.schedules import ConstantSparsity, PolynomialDecay
from tfxformer.compression.sparsity import SparsityReport, sparsity_report
from tfxformer.compression.structured import remove_heads, remove_layers, remove_neurons, shrink_gradually
from tfxformer.compression.vocabulary import keep_tokens, trim_vocabulary

__all__ = [
    "ConstantSparsity",
    "PolynomialDecay",
    "Prune",
    "SparsityReport",
    "head_importance",
    "keep_tokens",
    "layer_importance",
    "neuron_importance",
    "remove_heads",
    "remove_layers",
    "remove_neurons",
    "shrink_gradually",
    "sparsity_report",
    "trim_vocabulary",
]
