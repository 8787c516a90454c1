"""Tasks: Keras models that take texts, and that `fit`, save and export."""

from tfxformer.backend import needs_keras

needs_keras("tfxformer.tasks")

from tfxformer.tasks.base.task import Task
from tfxformer.tasks.causal_lm import CausalLM
from tfxformer.tasks.embedding.contrastive_embedder import ContrastiveEmbedder
from tfxformer.tasks.embedding.text_embedder import TextEmbedder
from tfxformer.tasks.masked_lm import MaskedLM
from tfxformer.tasks.multi_task import MultiTask
from tfxformer.tasks.pretraining.bert_pretraining import BertPretraining
from tfxformer.tasks.pretraining.denoising_lm import DenoisingLM
from tfxformer.tasks.pretraining.permutation_lm import PermutationLM
from tfxformer.tasks.pretraining.replaced_token_detection import ReplacedTokenDetection
from tfxformer.tasks.question_answering import QuestionAnswering
from tfxformer.tasks.seq2seq_lm import Seq2SeqLM
from tfxformer.tasks.text_classifier import TextClassifier
from tfxformer.tasks.token_classifier import TokenClassifier

__all__ = [
    "BertPretraining",
    "CausalLM",
    "ContrastiveEmbedder",
    "DenoisingLM",
    "MaskedLM",
    "MultiTask",
    "PermutationLM",
    "QuestionAnswering",
    "ReplacedTokenDetection",
    "Seq2SeqLM",
    "Task",
    "TextClassifier",
    "TextEmbedder",
    "TokenClassifier",
]
