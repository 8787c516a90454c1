"""Adapters: a few new weights trained in place of all old ones, merged when done, in peft's files."""

from tfxformer.compression.adapters.adapters import Adapters
from tfxformer.compression.adapters.kinds import IA3, BitFit, Bottleneck, PrefixTuning, PromptTuning
from tfxformer.compression.adapters.lora import AdaLoRA, LoRA
from tfxformer.compression.adapters.rank_allocation import AllocateRanks
from tfxformer.compression.adapters.trainable_report import TrainableTable, trainable_table

__all__ = [
    "IA3",
    "AdaLoRA",
    "Adapters",
    "AllocateRanks",
    "BitFit",
    "Bottleneck",
    "LoRA",
    "PrefixTuning",
    "PromptTuning",
    "TrainableTable",
    "trainable_table",
]
