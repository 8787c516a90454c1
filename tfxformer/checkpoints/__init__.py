"""Checkpoints of the reference implementations, read and written exactly."""

from tfxformer.checkpoints.gguf import GGUFFile
from tfxformer.checkpoints.pretrained import from_pretrained, save_pretrained
from tfxformer.checkpoints.safetensors import CheckpointError, SafetensorsFile

__all__ = ["CheckpointError", "GGUFFile", "SafetensorsFile", "from_pretrained", "save_pretrained"]
