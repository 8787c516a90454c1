"""Text classification: one label, several labels or a score per text or pair of texts."""

from __future__ import annotations

import keras
import numpy as np

from tfxformer.arguments.keywords import checked
from tfxformer.data.targets.labels import check_labels, encode_labels, label_keys, stated_labels
from tfxformer.layers import DEFAULT, GraphForm
from tfxformer.models.backbone import config_of
from tfxformer.models.heads import ClassificationHead
from tfxformer.tasks.base.task import Task
from tfxformer.training.compiling.outputs import Output
from tfxformer.training.inputs.array_checks import Limit

OUTPUT_KINDS = {
    "single_label_classification": "softmax",
    "multi_label_classification": "sigmoid",
    "regression": "scores",
}
PROBLEM_TYPES = tuple(OUTPUT_KINDS)


@keras.saving.register_keras_serializable("tfxformer")
class TextClassifier(Task):
    """Classifies texts or pairs of texts; `problem_type` has transformers' names.

    Args:
        backbone: `models.Encoder`.
        labels: list of str, the names of the columns; for regression the names of the scores.
        problem_type: "single_label_classification", "multi_label_classification" or "regression".
        tokenizer, sequence_length: see `Task`.

    Targets: label names or ids for one label, a list of them per text (or a 0/1 matrix) for several, floats for
    regression. Logits: float32 [B, C]. `predict`: probabilities [B, C], for regression the scores.

    Example:
        classifier = TextClassifier.from_pretrained(folder, labels=["negative", "positive"])
        classifier.fit(texts, labels, epochs=3, batch_size=32)
        classifier.predict(["what a film"])

    Raises ValueError for an unknown problem_type, too few labels, and a backbone without the pooler it reads.
    """

    task_name = "text-classification"
    learns_from_labels = True

    def __init__(self, backbone, labels, problem_type="single_label_classification", tokenizer=None, **kwargs):
        if problem_type not in PROBLEM_TYPES:
            raise ValueError(f"Unknown problem_type {problem_type!r}; known: {', '.join(PROBLEM_TYPES)}.")
        labels = check_labels(labels)
        if len(labels) < 2 and problem_type == "single_label_classification":
            raise ValueError(f"One label out of {labels} is no choice: give at least two, or another problem_type.")
        config = config_of(backbone)
        if self.wants_pooler(config) and not config.heads.pooler:
            raise ValueError(
                f"A {config.family!r} classifier reads the pooled output, and this backbone has no pooler: build it "
                "with heads__pooler=True, or load it by TextClassifier.from_pretrained."
            )
        classifier = ClassificationHead(
            len(labels),
            config.heads.classifier_activation,
            config.heads.classifier_dropout,
            keras.initializers.TruncatedNormal(stddev=config.initializer_range),
            use_bias=config.heads.classifier_bias,
            dtype=backbone.dtype_policy,
            name="classifier",
        )
        super().__init__(backbone, {"classifier": classifier}, tokenizer=tokenizer, **kwargs)
        self.labels = labels
        self.problem_type = problem_type

    @staticmethod
    def graph(backbone, heads, inputs, graph_form: GraphForm = DEFAULT):
        return heads["classifier"](backbone.summary_vector(inputs, graph_form))

    @classmethod
    def wants_pooler(cls, config):
        return "encoder" in config.stacks and config.heads.classifier_activation is None

    @classmethod
    def arguments_from(cls, reference, arguments):
        arguments = super().arguments_from(reference, arguments)
        arguments["labels"] = stated_labels(reference, arguments.get("labels"))
        if arguments.get("problem_type") is None:
            # One column is a score, as in transformers: rerankers say no more than that they have one label.
            default = "regression" if len(arguments["labels"]) == 1 else "single_label_classification"
            arguments["problem_type"] = reference.get("problem_type") or default
        return arguments

    def reference_changes(self):
        changes = {**super().reference_changes(), **label_keys(self.labels), "problem_type": self.problem_type}
        if self.backbone.stack_name == "decoder":  # by it the reference finds the last real token
            changes["pad_token_id"] = self.backbone.config.padding_id
        return changes

    @property
    def class_names(self):
        return self.labels if self.problem_type == "single_label_classification" else None

    @property
    def output_kinds(self):
        return Output(OUTPUT_KINDS[self.problem_type])

    def default_loss(self):
        return {
            "single_label_classification": keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            "multi_label_classification": keras.losses.BinaryCrossentropy(from_logits=True),
            "regression": keras.losses.MeanSquaredError(),
        }[self.problem_type]

    def default_metrics(self):
        return {
            "single_label_classification": [keras.metrics.SparseCategoricalAccuracy(name="accuracy")],
            "multi_label_classification": [keras.metrics.BinaryAccuracy(name="accuracy")],
            "regression": [keras.metrics.MeanAbsoluteError(name="mean_absolute_error")],
        }[self.problem_type]

    def target_limits(self):
        single = self.problem_type == "single_label_classification"
        return Limit(0, len(self.labels) - 1, f"ids of the labels {', '.join(self.labels)}"[:200]) if single else None

    def encode_labels(self, labels):
        return encode_labels(labels, self.labels, self.problem_type)

    @checked(to="logits")
    def predict(self, x, batch_size=None, **kwargs) -> np.ndarray:
        """Probabilities of texts, pairs, arrays or datasets: float32 [B, C] in the order of `labels`."""
        return probabilities(self.logits(x, batch_size, **kwargs), self.problem_type)

    def get_config(self):
        return {**super().get_config(), "labels": self.labels, "problem_type": self.problem_type}


def probabilities(logits: np.ndarray, problem_type: str) -> np.ndarray:
    """Logits [B, C] as probabilities: softmax over the labels, a sigmoid for each, or (regression) as they are."""
    logits = np.asarray(logits, "float32")
    if problem_type == "regression":
        return logits
    if problem_type == "multi_label_classification":
        return 1.0 / (1.0 + np.exp(-logits))
    exponents = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return exponents / exponents.sum(axis=-1, keepdims=True)
