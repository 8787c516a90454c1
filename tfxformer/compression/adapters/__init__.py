"""Adapters: a few new weights trained in place of all old ones, merged when done, in peft's files."""

from tfxformer.compression.adapters.adapters import Adapters
from tfxformer.compression.adapters.lora import LoRA
from tfxformer.compression.adapters.table import TrainableTable, trainable_table

__all__ = ["Adapters", "LoRA", "TrainableTable", "trainable_table"]
