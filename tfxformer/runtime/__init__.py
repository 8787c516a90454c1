"""Running and reading LiteRT files, without TensorFlow and Keras."""

from tfxformer.runtime.inspection import Inspection, inspect
from tfxformer.runtime.litert_generator import LiteRTGenerator
from tfxformer.runtime.litert_model import LiteRTModel

__all__ = ["Inspection", "LiteRTGenerator", "LiteRTModel", "inspect"]
