"""Text to token ids and back: Hugging Face `tokenizers` is the source of truth."""

from tfxformer.text.encoding import Encoding
from tfxformer.text.tokenizer import Tokenizer

__all__ = ["Encoding", "Tokenizer"]
