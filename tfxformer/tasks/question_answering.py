"""Extractive question answering: the answer is a span of the context."""

from __future__ import annotations

import keras
import numpy as np

from tfxformer.arguments.keywords import checked
from tfxformer.checkpoints.family import SETTINGS_KEY
from tfxformer.data.batches import Examples, is_raw
from tfxformer.data.targets.labels import label_keys
from tfxformer.data.targets.spans import Answer, Windows, answer_spans, best_answers, encode_windows, span_targets
from tfxformer.data.targets.weights import example_weights
from tfxformer.layers import DEFAULT, GraphForm
from tfxformer.models.backbone import config_of
from tfxformer.models.heads import ClassificationHead, transform_arguments
from tfxformer.models.parts import initializer
from tfxformer.tasks.base.task import Task
from tfxformer.training.compiling.outputs import Output
from tfxformer.training.inputs.array_checks import Limit


@keras.saving.register_keras_serializable("tfxformer")
class SpanLoss(keras.losses.Loss):
    """Mean cross-entropy of an answer's first and last token.

    y_true: int [B, 2] token positions; y_pred: logits [B, S, 2].
    """

    def call(self, y_true, y_pred):
        positions = keras.ops.cast(y_true, "int32")
        logits = keras.ops.transpose(y_pred, (0, 2, 1))  # [B, S, 2] -> [B, 2, S]
        losses = keras.losses.sparse_categorical_crossentropy(positions, logits, from_logits=True)
        return keras.ops.mean(losses, axis=-1)


@keras.saving.register_keras_serializable("tfxformer")
def span_accuracy(y_true, y_pred):
    """Share of the windows whose best first and best last token are both right."""
    best = keras.ops.argmax(y_pred, axis=1)  # [B, S, 2] -> [B, 2]
    right = keras.ops.equal(keras.ops.cast(y_true, "int32"), keras.ops.cast(best, "int32"))
    return keras.ops.cast(keras.ops.all(right, axis=-1), "float32")


@keras.saving.register_keras_serializable("tfxformer")
class QuestionAnswering(Task):
    """Finds answers in contexts (Devlin et al., 2018, arXiv:1810.04805, 4.2 and 4.3).

    Args:
        backbone: `models.Encoder` or `models.Decoder`.
        overlap: int, context tokens that two neighbouring windows of a long context share; None for a quarter of the
            sequence length, at most 128.
        tokenizer, sequence_length: see `Task`.

    Examples are (question, context) pairs; a target is None for no answer, (start, end) characters, or a dict with
    "text" and "answer_start". Logits: float32 [B, S, 2]. `predict` gives each question's best answers.

    Example:
        model = QuestionAnswering.from_pretrained(folder)
        model.fit([("Who wrote it?", "Ada wrote it.")], [{"text": "Ada", "answer_start": 0}])
        model.predict([("Who wrote it?", "Ada wrote it.")])[0][0].text
    """

    task_name = "question-answering"
    learns_from_labels = True

    def __init__(self, backbone, overlap=None, tokenizer=None, **kwargs):
        config = config_of(backbone)
        classifier = ClassificationHead(
            2,
            initializer=initializer(config),
            **transform_arguments(config),
            dtype=backbone.dtype_policy,
            name="span_classifier",
        )
        super().__init__(backbone, {"classifier": classifier}, tokenizer=tokenizer, **kwargs)
        self.overlap = overlap

    @staticmethod
    def graph(backbone, heads, inputs, graph_form: GraphForm = DEFAULT):
        return heads["classifier"](backbone.forward(inputs, graph_form)["sequence_output"], graph_form=graph_form)

    @classmethod
    def arguments_from(cls, reference, arguments):
        settings = reference.get(SETTINGS_KEY) or {}
        name = "stride" if "stride" in settings else "overlap"  # the first of 0.5.0
        stated = {"overlap": settings[name]} if name in settings else {}
        return {**stated, **super().arguments_from(reference, arguments)}

    def reference_changes(self):
        settings = {**super().reference_changes()[SETTINGS_KEY], "overlap": self.overlap}
        # The reference gives its span head one row a label: a classifier's labels, left over, would misshape it.
        return {SETTINGS_KEY: settings, **label_keys(["LABEL_0", "LABEL_1"])}

    @property
    def output_kinds(self):
        return Output("spans")

    def default_loss(self):
        return SpanLoss()

    def target_limits(self):
        return Limit(0, self._maximum - 1, "token positions")

    def default_metrics(self):
        return [span_accuracy]

    def windows(self, examples: Examples) -> Windows:
        """The contexts in windows of `sequence_length` tokens, each behind its question."""
        if examples.pairs is None:
            raise TypeError(f"Give (question, context) pairs; the first example is {examples.texts[0]!r:.80} alone.")
        return encode_windows(
            self._tokenizer(),
            examples.texts,
            examples.pairs,
            sequence_length=self.sequence_length or self._longest(examples),
            overlap=self.overlap,
            segment_ids=self._has_segments,
        )

    def prepare(self, examples: Examples, sample_weight=None):
        windows = self.windows(examples)
        if sample_weight is not None:
            sample_weight = example_weights(sample_weight, len(examples.texts))[windows.example_ids]
        if examples.labels is None:
            return windows.batch, None, sample_weight
        targets = span_targets(windows, answer_spans(examples.labels, examples.pairs))
        return windows.batch, np.stack(targets, axis=-1), sample_weight

    @checked(to="logits")
    def predict(
        self,
        x,
        batch_size=None,
        *,
        n_best=1,
        max_answer_length=30,
        allow_no_answer=False,
        no_answer_threshold=0.0,
        **kwargs,
    ) -> list[list[Answer]]:
        """The `n_best` answers to each question, best first; see `data.spans.best_answers`."""
        x = self.read_given(x, labelled=False).x
        if not is_raw(x):
            raise TypeError("predict takes (question, context) pairs; for batches of ids, use logits(batch).")
        examples = self.read(x)
        windows = self.windows(examples)
        return best_answers(
            windows,
            self.logits(windows.batch, batch_size, **kwargs),
            examples.pairs,
            n_best=n_best,
            max_answer_length=max_answer_length,
            allow_no_answer=allow_no_answer,
            no_answer_threshold=no_answer_threshold,
        )

    @checked(to="predict")
    def answer(self, question: str, context: str, **kwargs) -> Answer:
        """The best answer to one question; `data.highlight(context, [answer])` shows where it stands.

        Raises:
            ValueError: for a context without tokens, unless `allow_no_answer` is True.
        """
        answers = self.predict([(question, context)], **{"verbose": 0, **kwargs})[0]
        if not answers:
            raise ValueError("The context has no token that could be an answer; allow_no_answer=True permits none.")
        return answers[0]

    def get_config(self):
        return {**super().get_config(), "overlap": self.overlap}

    @classmethod
    def from_config(cls, config, custom_objects=None):
        if "stride" in config:  # of 0.5.0
            config = {("overlap" if name == "stride" else name): value for name, value in config.items()}
        return super().from_config(config, custom_objects)
