"""Text to token ids and back: Hugging Face `tokenizers` is the source of truth."""

from tfxformer.text.chat import TURNS
from tfxformer.text.encoding import Encoding
from tfxformer.text.stopping import StopStrings
from tfxformer.text.streaming import TextStream
from tfxformer.text.tokenizer import Tokenizer

__all__ = ["TURNS", "Encoding", "StopStrings", "TextStream", "Tokenizer"]
