"""BERT's pretraining: hidden tokens, and whether two segments belong together."""

from __future__ import annotations

import keras
import numpy as np

from tfxformer.arguments.keywords import checked
from tfxformer.data.targets.sentence_pairs import OBJECTIVES, sentence_pairs
from tfxformer.layers import DEFAULT, GraphForm
from tfxformer.models.backbone import config_of
from tfxformer.models.heads import ClassificationHead
from tfxformer.models.parts import initializer
from tfxformer.models.pooling import gather_positions
from tfxformer.tasks.masked_lm import POSITIONS, MaskedLM, token_logits
from tfxformer.training.compiling.outputs import OF_TOKENS, Output
from tfxformer.training.inputs.array_checks import Limit

TOKENS, SENTENCES = "tokens", "sentences"
SENTENCE_LABELS = "sentence_labels"
DEFAULT_LENGTH = 128  # segments fill rows of any length


@keras.saving.register_keras_serializable("tfxformer")
class BertPretraining(MaskedLM):
    """Masked language modelling together with a sentence objective.

    `fit(documents)` takes documents as lists of sentences, cuts them once into pairs of segments that fill a row, and
    hides other tokens of them in every epoch.

    Args:
        backbone: `models.Encoder` with segments (`token_types` 2) and a pooler, which the sentence objective trains.
        sentence_objective: "next", whether B follows A (Devlin et al., 2018, arXiv:1810.04805), or "order", whether
            the two are in their order (Lan et al., 2019, arXiv:1909.11942); see `data.sentence_pairs`.
        others: see `MaskedLM`.

    Logits: dict of `tokens`, float32 [B, S, V] ([B, P, V] at `masked_positions`), and `sentences`, float32 [B, 2].
    `save_pretrained` writes what every other task reads: `TextClassifier.from_pretrained(folder)`.

    Raises ValueError for an unknown objective, and for a backbone without segments or pooler.
    """

    task_name = "bert-pretraining"
    lists_are_examples = True

    def __init__(self, backbone, sentence_objective="next", **kwargs):
        if sentence_objective not in OBJECTIVES:
            raise ValueError(f"sentence_objective={sentence_objective!r} is unknown; known: {', '.join(OBJECTIVES)}.")
        self.check_backbone(config_of(backbone))
        if backbone.config.token_types < 2 or not backbone.config.heads.pooler:
            raise ValueError(
                "BertPretraining needs an encoder with segments and a pooler, such as bert-base or albert-base; this "
                f"one has token_types={backbone.config.token_types} and pooler={backbone.config.heads.pooler}. "
                "Without sentences, MaskedLM trains any encoder."
            )
        super().__init__(backbone, **kwargs)
        self.sentence_objective = sentence_objective

    @staticmethod
    def make_heads(backbone) -> dict:
        head = ClassificationHead(
            2, initializer=initializer(backbone.config), dtype=backbone.dtype_policy, name="sentence_classifier"
        )
        return {**MaskedLM.make_heads(backbone), "sentences": head}

    @staticmethod
    def graph(backbone, heads, inputs, graph_form: GraphForm = DEFAULT):
        outputs = backbone.forward(inputs, graph_form)
        sequence = outputs["sequence_output"]
        if POSITIONS in inputs:
            sequence = gather_positions(sequence, inputs[POSITIONS])
        return {
            TOKENS: token_logits(backbone, heads, sequence, graph_form),
            SENTENCES: heads["sentences"](outputs["pooled_output"]),
        }

    @classmethod
    def wants_pooler(cls, config):
        return True

    @property
    def output_kinds(self):
        return {TOKENS: OF_TOKENS, SENTENCES: Output("softmax")}

    def target_limits(self):
        return {TOKENS: super().target_limits(), SENTENCES: Limit(0, 1, "whether two segments belong together")}

    def default_loss(self):
        sentences = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        return {TOKENS: super().default_loss(), SENTENCES: sentences}

    def default_weighted_metrics(self):
        accuracy = keras.metrics.SparseCategoricalAccuracy
        return {TOKENS: accuracy(name="masked_accuracy"), SENTENCES: accuracy(name="accuracy")}

    # ---- documents --------------------------------------------------------------------------------------------

    def pairs(self, documents):
        """Documents (lists of sentences) as `data.sentence_pairs.SentencePairs`; the same for the same seed."""
        if any(isinstance(document, str) for document in documents):
            raise TypeError("A document is a list of sentences, got a str: split texts into sentences first.")
        tokenizer = self._tokenizer()
        if tokenizer.cls_id is None or tokenizer.sep_id is None:
            raise ValueError("The tokenizer has no classifier or separator token: it writes no pairs of segments.")
        rows = iter(tokenizer.ids([sentence for document in documents for sentence in document], special_tokens=False))
        return sentence_pairs(
            [[next(rows) for _ in document] for document in documents],
            self.sequence_length or min(self._maximum, DEFAULT_LENGTH),
            self.sentence_objective,
            cls_id=tokenizer.cls_id,
            sep_id=tokenizer.sep_id,
            padding_id=self.backbone.config.padding_id,
            generator=np.random.default_rng(self.seed),
        )

    def hidden_rows(self, documents, fitting: bool) -> dict:
        """See `HidingMethods.hidden_rows`."""
        if self.sequence_length is None:
            self.sequence_length = min(self._maximum, DEFAULT_LENGTH)
        rows = self.pairs(documents)._asdict()
        rows[SENTENCE_LABELS] = rows.pop("labels")
        return rows

    @property
    def record_names(self):
        return [*super().record_names, SENTENCE_LABELS]

    def hidden_batch(self, inputs: dict, generator: np.random.Generator) -> tuple:
        """See `MaskedLM.hidden_batch`; a batch has `sentence_labels` int32 [B] beside its ids."""
        inputs = dict(inputs)
        sentences = inputs.pop(SENTENCE_LABELS)
        inputs, labels, weights = super().hidden_batch(inputs, generator)
        ones = np.ones(len(sentences), "float32")
        return inputs, {TOKENS: labels, SENTENCES: sentences}, {TOKENS: weights, SENTENCES: ones}

    @checked
    def logits(self, x, batch_size=None, **kwargs):
        """The logits of tokens; those of sentences are in the model's call."""
        return super().logits(x, batch_size, **kwargs)[TOKENS]

    def get_config(self):
        return {**super().get_config(), "sentence_objective": self.sentence_objective}
