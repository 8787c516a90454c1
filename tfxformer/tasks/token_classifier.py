"""Token classification: a label per word, such as parts of speech or entities."""

from __future__ import annotations

import keras

from tfxformer.arguments.keywords import checked
from tfxformer.data.batches import Examples, to_batch
from tfxformer.data.lengths import round_length
from tfxformer.data.targets.labels import check_labels, encode_word_labels, label_keys, stated_labels
from tfxformer.data.targets.weights import on_first_pieces, word_weights
from tfxformer.data.targets.words.entities import Entity, find_entities, split_texts
from tfxformer.data.targets.words.labels import entity_scores, piece_targets
from tfxformer.data.targets.words.windows import encode_word_windows, named_labels, word_values
from tfxformer.layers import DEFAULT, GraphForm
from tfxformer.models.backbone import config_of
from tfxformer.models.heads import ClassificationHead, transform_arguments
from tfxformer.models.parts import initializer
from tfxformer.numpy_ops import NUMPY
from tfxformer.tasks.base.task import Task
from tfxformer.text.inputs import as_list
from tfxformer.training.compiling.outputs import IGNORED, OF_TOKENS
from tfxformer.training.inputs.array_checks import Limit


@keras.saving.register_keras_serializable("tfxformer")
class TokenClassifier(Task):
    """Labels words; a word's first piece carries its label.

    Args:
        backbone: `models.Encoder`.
        labels: list of str, the names of the columns.
        tokenizer, sequence_length: see `Task`.

    Examples are lists of words, targets lists of as many labels, -100 for words that have none, or rows of the labels'
    probabilities. `sample_weight` has a number for each text, or a list with one for each word.
    Logits: float32 [B, S, C], one row per piece. `predict` gives each text's labels, one per word.

    Example:
        tagger = TokenClassifier.from_pretrained(folder, labels=["O", "B-PER", "I-PER"])
        tagger.fit([["Ada", "Lovelace", "wrote"]], [["B-PER", "I-PER", "O"]])
        tagger.predict([["Alan", "Turing"]])
    """

    task_name = "token-classification"
    learns_from_labels = True
    lists_are_examples = True

    def __init__(self, backbone, labels, tokenizer=None, **kwargs):
        labels = check_labels(labels)
        config = config_of(backbone)
        classifier = ClassificationHead(
            len(labels),
            dropout=config.heads.classifier_dropout,
            initializer=initializer(config),
            **transform_arguments(config),
            dtype=backbone.dtype_policy,
            name="token_classifier",
        )
        super().__init__(backbone, {"classifier": classifier}, tokenizer=tokenizer, **kwargs)
        self.labels = labels

    @staticmethod
    def graph(backbone, heads, inputs, graph_form: GraphForm = DEFAULT):
        return heads["classifier"](backbone.forward(inputs, graph_form)["sequence_output"], graph_form=graph_form)

    @classmethod
    def arguments_from(cls, reference, arguments):
        return {
            **super().arguments_from(reference, arguments),
            "labels": stated_labels(reference, arguments.get("labels")),
        }

    def reference_changes(self):
        return {**super().reference_changes(), **label_keys(self.labels)}

    @property
    def class_names(self):
        return self.labels

    @property
    def output_kinds(self):
        return OF_TOKENS

    def target_limits(self):
        return Limit(0, len(self.labels) - 1, f"ids of the labels {', '.join(self.labels)}"[:200], IGNORED)

    def default_loss(self):
        return keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction="mean_with_sample_weight")

    def default_weighted_metrics(self):
        """Of labelled pieces only."""
        return [keras.metrics.SparseCategoricalAccuracy(name="accuracy")]

    def encode(self, texts, *, sequence_length=None, truncation=True) -> dict:
        """Lists of words, or whole texts, as a batch; see `Task.encode`."""
        texts = as_list(texts, "texts")
        words = not all(isinstance(text, str) for text in texts)
        counts = self._tokenizer().token_counts(texts, is_split_into_words=words)
        encoding = self._tokenizer().encode(
            texts,
            sequence_length=sequence_length or self.sequence_length or round_length(int(counts.max()), self._maximum),
            truncation=truncation,
            is_split_into_words=words,
        )
        return to_batch(encoding, self._has_segments)

    def _counts(self, examples):
        return self._tokenizer().token_counts(examples.texts, is_split_into_words=True)

    def _encode_words(self, examples: Examples, sequence_length=None):
        length = sequence_length or self.sequence_length or self._longest(examples)
        return self._tokenizer().encode(
            examples.texts, sequence_length=length, is_split_into_words=True, return_offsets=True
        )

    def prepare(self, examples: Examples, sample_weight=None):
        encoding = self._encode_words(examples)
        batch = to_batch(encoding, self._has_segments)
        if examples.labels is None:
            return batch, None, None
        ids = encode_word_labels(examples.labels, self.labels, examples.texts, IGNORED)
        soft = any(labels.ndim == 2 for labels in ids)
        targets = piece_targets(encoding.word_ids, [labels.argmax(-1) for labels in ids] if soft else ids)
        labels, weights = targets.labels, targets.weights * (targets.labels != IGNORED)
        if soft:
            labels = on_first_pieces(encoding.word_ids, ids)
        if sample_weight is not None:
            weights = weights * on_first_pieces(encoding.word_ids, word_weights(sample_weight, examples.texts))
        return batch, labels, weights.astype("float32")

    @checked(to="logits")
    def predict(self, x, batch_size=None, **kwargs) -> list[list[str]]:
        """The labels of each text's words.

        A text longer than the model is read in windows that overlap, each word where it has the most context. A word
        without a piece (made of what the tokenizer drops) gets the label "O" where there is one, else None; that is
        said in a warning.
        """
        windows = self._windows(self.read(x))
        logits = self.logits(windows.batch, batch_size, **kwargs)
        return named_labels(word_values(windows, logits.argmax(-1)), self.labels)

    def _windows(self, examples: Examples):
        # Every word wants its label, so the texts' own length counts here, not the training texts'.
        return encode_word_windows(
            self._tokenizer(),
            examples.texts,
            sequence_length=self._longest(examples),
            segment_ids=self._has_segments,
        )

    @checked(to="logits")
    def entities(self, x, batch_size=None, *, aggregation="first", **kwargs) -> list[list[Entity]]:
        """The entities of each text: text, label, score, and where it stands.

        Texts longer than the model are read in windows, as `predict` reads them.

        Args:
            x: texts, split at spaces and signs (Chinese and Japanese at every character), or lists of words, whose
                characters are counted with a space between any two words.
            aggregation: whose probabilities a word gets: those of its "first" piece, which alone `fit` teaches a
                label; the "mean" of all its pieces; or "max", those of the surest one.

        Example:
            tagger.entities(["Ada Lovelace wrote it."])[0][0].text  # "Ada Lovelace"
            print(data.highlight(text, tagger.entities([text])[0]))
        """
        split = split_texts(x)
        windows = self._windows(self.read(split.words))
        logits = self.logits(windows.batch, batch_size, **kwargs)
        return find_entities(split, windows, NUMPY.softmax(logits), self.labels, aggregation)

    @checked(to="predict")
    def evaluate_entities(self, x, y, batch_size=None, **kwargs) -> dict:
        """Entity-level precision, recall and F1; see `data.targets.words.labels.entity_scores`."""
        names = [[label if isinstance(label, str) else self.labels[label] for label in row] for row in y]
        return entity_scores(names, self.predict(x, batch_size, **kwargs))

    def get_config(self):
        return {**super().get_config(), "labels": self.labels}
