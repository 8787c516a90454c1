"""Text to token ids and back: Hugging Face `tokenizers` is the source of truth."""

from tfxformer.text.chat.reasoning import split_reasoning
from tfxformer.text.chat.templates import TURNS
from tfxformer.text.chat.tool_calls import parse_tool_calls
from tfxformer.text.encoding import Encoding
from tfxformer.text.generation.stopping import StopStrings
from tfxformer.text.generation.streaming import TextStream
from tfxformer.text.tokenizer import Tokenizer

__all__ = ["TURNS", "Encoding", "StopStrings", "TextStream", "Tokenizer", "parse_tool_calls", "split_reasoning"]
