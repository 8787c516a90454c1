"""Tasks: Keras models that take texts, and that `fit`, save and export."""

from tfxformer.tasks.causal_lm import CausalLM
from tfxformer.tasks.masked_lm import MaskedLM
from tfxformer.tasks.question_answering import QuestionAnswering
from tfxformer.tasks.task import Task
from tfxformer.tasks.text_classifier import TextClassifier
from tfxformer.tasks.text_embedder import TextEmbedder
from tfxformer.tasks.token_classifier import TokenClassifier

__all__ = [
    "CausalLM",
    "MaskedLM",
    "QuestionAnswering",
    "Task",
    "TextClassifier",
    "TextEmbedder",
    "TokenClassifier",
]
