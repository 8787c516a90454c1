"""Checkpoints of the reference implementations, read and written exactly."""

from tfxformer.checkpoints.files.errors import CheckpointError
from tfxformer.extras import needs

needs("tfxformer.checkpoints", "keras", "tensorflow")

from tfxformer.checkpoints.files.gguf import GGUFFile
from tfxformer.checkpoints.files.safetensors import SafetensorsFile
from tfxformer.checkpoints.pretrained import from_pretrained, save_pretrained

__all__ = ["CheckpointError", "GGUFFile", "SafetensorsFile", "from_pretrained", "save_pretrained"]
