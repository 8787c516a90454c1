"""Checkpoints of the reference implementations, read and written exactly."""

from tfxformer.backend import needs_keras
from tfxformer.checkpoints.files.errors import CheckpointError

needs_keras("tfxformer.checkpoints")

from tfxformer.checkpoints.files.gguf import GGUFFile
from tfxformer.checkpoints.files.pickles.reader import PickleFile
from tfxformer.checkpoints.files.safetensors import SafetensorsFile
from tfxformer.checkpoints.pretrained import from_pretrained, save_pretrained

__all__ = ["CheckpointError", "GGUFFile", "PickleFile", "SafetensorsFile", "from_pretrained", "save_pretrained"]
