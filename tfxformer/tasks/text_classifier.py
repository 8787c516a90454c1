"""Text classification: one label, several labels or a score per text or pair of texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import keras
import numpy as np

from tfxformer.arguments.keywords import checked
from tfxformer.data.retrieval import Found, ranked
from tfxformer.data.targets.entity_markers import ENTITY_MARKERS
from tfxformer.data.targets.labels import check_labels, encode_labels, label_keys, stated_labels
from tfxformer.layers import DEFAULT, GraphForm
from tfxformer.models.backbone import config_of
from tfxformer.models.config.transformer import MEAN_OF_LOGITS
from tfxformer.models.heads import ClassificationHead, EntityHead, transform_arguments
from tfxformer.models.parts import initializer
from tfxformer.models.pooling import mean_vector
from tfxformer.tasks.base.task import Task
from tfxformer.tasks.explaining.explain import explain
from tfxformer.tasks.explaining.words import Explanation
from tfxformer.text.inputs import as_list, as_texts
from tfxformer.training.compiling.outputs import Output
from tfxformer.training.inputs.array_checks import Limit

OUTPUT_KINDS = {
    "single_label_classification": "softmax",
    "multi_label_classification": "sigmoid",
    "regression": "scores",
}
PROBLEM_TYPES = tuple(OUTPUT_KINDS)
ENTITIES = "entities"


@keras.saving.register_keras_serializable("tfxformer")
class TextClassifier(Task):
    """Classifies texts or pairs of texts; `problem_type` has transformers' names.

    Args:
        backbone: `models.Encoder`, `models.Decoder`, or a `models.EncoderDecoder` whose decoder reads the text again.
        labels: list of str, the names of the columns; for regression the names of the scores.
        problem_type: "single_label_classification", "multi_label_classification" or "regression".
        tokenizer, sequence_length: see `Task`.
        reads: None, what the model's family reads of a text; or "entities", its first token and the two entities that
            `data.mark_entities` marks (R-BERT; Wu and He, 2019, arXiv:1905.08284), on an encoder. transformers has no
            such head: it is saved by `save("relations.keras")`.

    Targets: label names or ids for one label, a list of them per text (or a 0/1 matrix) for several, floats for
    regression. Logits: float32 [B, C]. `predict`: probabilities [B, C], for regression the scores.

    Example:
        classifier = TextClassifier.from_pretrained(folder, labels=["negative", "positive"])
        classifier.fit(texts, labels, epochs=3, batch_size=32)
        classifier.predict(["what a film"])
        classifier.zero_shot(["what a film"], ["sports", "culture"])  # of a classifier of inference (MNLI)

    Raises ValueError for an unknown problem_type, too few labels, and a backbone without the pooler it reads.
    """

    task_name = "text-classification"
    learns_from_labels = True
    takes_both = True

    def __init__(
        self, backbone, labels, problem_type="single_label_classification", tokenizer=None, reads=None, **kwargs
    ):
        if reads not in (None, ENTITIES):
            raise ValueError(f"reads={reads!r}; wanted None, or {ENTITIES!r} for the relation of two entities.")
        if problem_type not in PROBLEM_TYPES:
            raise ValueError(f"Unknown problem_type {problem_type!r}; known: {', '.join(PROBLEM_TYPES)}.")
        labels = check_labels(labels)
        if len(labels) < 2 and problem_type == "single_label_classification":
            raise ValueError(f"One label out of {labels} is no choice: give at least two, or another problem_type.")
        config = config_of(backbone)
        if reads is None and self.wants_pooler(config) and not config.heads.pooler:
            raise ValueError(
                f"A {config.family!r} classifier reads the pooled output, and this backbone has no pooler: build it "
                "with heads__pooler=True, or load it by TextClassifier.from_pretrained."
            )
        arguments = {"dropout": config.heads.classifier_dropout, "initializer": initializer(config)}
        arguments |= {"dtype": backbone.dtype_policy, "name": "classifier"}
        if reads == ENTITIES:
            classifier = EntityHead(len(labels), entity_marker_ids(config, tokenizer), **arguments)
        else:
            # BART, T5 and their kin have a Dense of their own there, and tanh.
            hidden = "tanh" if len(config.stacks) > 1 else config.heads.classifier_activation
            arguments |= {"hidden_activation": hidden, "use_bias": config.heads.classifier_bias}
            classifier = ClassificationHead(len(labels), **{**arguments, **transform_arguments(config)})
        super().__init__(backbone, {"classifier": classifier}, tokenizer=tokenizer, **kwargs)
        self.labels = labels
        self.problem_type = problem_type
        self.reads = reads
        if reads == ENTITIES and config.heads.pooler:
            backbone.get_layer("pooler").trainable = False  # no output reads it, so it has no gradient

    def make_inputs(self, backbone):
        if len(backbone.config.stacks) == 1:
            return backbone.make_inputs()
        return {name: keras.Input((None,), dtype="int32", name=name) for name in ("token_ids", "padding_mask")}

    @staticmethod
    def graph(backbone, heads, inputs, graph_form: GraphForm = DEFAULT):
        if isinstance(heads["classifier"], EntityHead):
            sequence = backbone.forward(inputs, graph_form)["sequence_output"]
            return heads["classifier"](sequence, inputs["token_ids"], inputs["padding_mask"])
        if backbone.config.heads.classifier_pooling == MEAN_OF_LOGITS:
            tokens = heads["classifier"](backbone.forward(inputs, graph_form)["sequence_output"], graph_form=graph_form)
            return mean_vector(tokens, keras.ops.not_equal(inputs["padding_mask"], 0))
        return heads["classifier"](backbone.summary_vector(inputs, graph_form), graph_form=graph_form)

    @classmethod
    def wants_pooler(cls, config):
        return tuple(config.stacks) == ("encoder",) and (
            config.heads.classifier_activation is None and config.heads.classifier_reads_pooler
        )

    @classmethod
    def arguments_from(cls, reference, arguments):
        arguments = super().arguments_from(reference, arguments)
        if arguments.get("reads") == ENTITIES:
            raise ValueError(
                'from_pretrained(reads="entities"): checkpoints have no such head, and their tokenizers no marks of '
                "entities. Load the classifier without it, add the marks by compression.add_tokens(classifier, "
                "data.ENTITY_MARKERS), and make the new one of that one's .backbone and .tokenizer."
            )
        arguments["labels"] = stated_labels(reference, arguments.get("labels"))
        if arguments.get("problem_type") is None:
            # One column is a score, as in transformers: rerankers say no more than that they have one label.
            default = "regression" if len(arguments["labels"]) == 1 else "single_label_classification"
            arguments["problem_type"] = reference.get("problem_type") or default
        return arguments

    def checkpoint_model(self):
        if self.reads == ENTITIES:
            raise ValueError(
                'save_pretrained: transformers has no head of two entities (reads="entities"), and could not open '
                'this model; save it with model.save("relations.keras").'
            )
        return self

    def reference_changes(self):
        changes = {**super().reference_changes(), **label_keys(self.labels), "problem_type": self.problem_type}
        if self.backbone.stack_name == "decoder":  # by it the reference finds the last real token
            changes["pad_token_id"] = self.backbone.config.padding_id
        if len(self.backbone.config.stacks) > 1:
            changes |= {"decoder_start_token_id": self.backbone.start_id, "is_encoder_decoder": True}
            if self.tokenizer is not None and self.tokenizer.eos_id is not None:  # behind which the reference reads
                changes["eos_token_id"] = self.tokenizer.eos_id
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

    def _encode(self, examples, sequence_length=None, truncation=True):
        batch = super()._encode(examples, sequence_length, truncation)
        if self.reads == ENTITIES:
            check_marked(batch["token_ids"], self.heads["classifier"].markers, examples.texts)
        return batch

    def encode_labels(self, labels):
        return encode_labels(labels, self.labels, self.problem_type)

    @checked(to="logits")
    def predict(self, x, batch_size=None, **kwargs) -> np.ndarray:
        """Probabilities of texts, pairs, arrays or datasets: float32 [B, C] in the order of `labels`."""
        return probabilities(self.logits(x, batch_size, **kwargs), self.problem_type)

    @checked(to="logits")
    def zero_shot(
        self,
        texts: Sequence[str],
        labels: Sequence[str],
        batch_size: int | None = None,
        *,
        template: str = "This example is {}.",
        multi_label: bool = False,
        **kwargs,
    ) -> np.ndarray:
        """Probabilities of labels that the model has never seen, by what it knows of inference (Yin et al., 2019,
        arXiv:1909.00161): how much a text entails the sentence that it is of the label.

        Args:
            texts: list of str; one that is too long is cut, the sentence never.
            labels: list of str, words that go into the template.
            batch_size, others: of `predict`; the rows of a batch are pairs of a text and a label.
            template: str with {} where the label goes.
            multi_label: False where one label is right: the shares of a softmax over the labels. True where each may
                be: its entailment beside its contradiction, as with one label alone.

        Returns:
            float32 [texts, labels], as transformers' pipeline "zero-shot-classification" has them.

        Raises:
            ValueError: for a classifier of another kind than entailment, and a template without {}.
        """
        texts, labels = as_texts(texts), as_texts(labels, "labels")
        entailed, contradicted = inference_columns(self.labels, self.problem_type)
        if not texts or not labels:
            raise ValueError(f"zero_shot wants texts and labels, got {len(texts)} and {len(labels)}.")
        if "{}" not in template:
            raise ValueError(f"template={template!r} has no {{}}, where the label goes.")
        pairs = [(text, template.replace("{}", label)) for text in texts for label in labels]
        logits = np.asarray(self.logits(self.encode(pairs, truncation="only_first"), batch_size, **kwargs), "float32")
        logits = logits.reshape(len(texts), len(labels), -1)
        if multi_label or len(labels) == 1:
            both = logits[..., [contradicted, entailed]]
            return probabilities(both, "single_label_classification")[..., 1]
        return probabilities(logits[..., entailed], "single_label_classification")

    @checked(to="logits")
    def rank(
        self, query: str, documents: Sequence[str], batch_size: int | None = None, *, top_k: int | None = None, **kwargs
    ) -> list[Found]:
        """Documents by how well they answer a query, the best first: for a reranker, a classifier with one label.

        `TextClassifier.from_pretrained("cross-encoder/ms-marco-MiniLM-L6-v2").rank("what is a cache?", documents)`

        Args:
            query: str.
            documents: list of str; one that is too long is cut.
            batch_size, others: of `predict`.
            top_k: int, documents to give back; None for all.

        Returns:
            list of `data.retrieval.Found`: index, score and text. The scores are those of the `CrossEncoder` of
            sentence-transformers: a sigmoid of the logit unless the checkpoint says it shall stay as it is.

        Raises:
            ValueError: for a classifier with several labels.
        """
        documents = as_texts(documents, "documents")
        if len(self.labels) != 1:
            raise ValueError(
                f"rank asks a reranker, which has one score for a query and a document; this classifier has the labels "
                f"{', '.join(self.labels)}. For vectors compared with each other see TextEmbedder.search."
            )
        if not isinstance(query, str):
            raise TypeError(f"rank takes one query, a text, not {type(query).__name__}: call it for each query.")
        pairs = self.encode([(query, document) for document in documents], truncation="longest_first")
        scores = np.asarray(self.logits(pairs, batch_size, **kwargs), "float32")[:, 0]
        return ranked(reranker_scores(scores, self.backbone.reference_config or {}), top_k, documents)

    def explain(
        self,
        texts: str | tuple[str, str] | Sequence,
        *,
        label: str | None = None,
        method: str = "integrated_gradients",
        baseline: str | None = None,
        steps: int = 32,
        batch_size: int = 32,
    ) -> Explanation | list[Explanation]:
        """Why it answers so: what each word of a text adds to a label.

        `print(classifier.explain("what a dull film"))` shows the text in colours; so does a notebook.

        Args:
            texts: a text, a pair of texts as a tuple, or a list of either. A text too long for the model is cut, as
                `predict` cuts it.
            label: str, the label to explain; None for the one that is most probable.
            method: "integrated_gradients" (Sundararajan et al., 2017, arXiv:1703.01365): the weights of all words sum
                to `score - baseline_score`, and may speak against the label. "attention_rollout" (Abnar and Zuidema,
                2020, arXiv:2005.00928): the share of each word in what the classifier reads, by attention alone; it is
                the same for every label.
            baseline: what stands in the place of every token where the way of integrated gradients begins: the "mask"
                or the "pad" token's embedding, or "zeros". None takes the first that the tokenizer has.
            steps: int, points of that way.
            batch_size: int, points at a time.

        Returns:
            `Explanation`, or a list of them for a list.

        Raises:
            ValueError: for a label or method that is unknown, several scores of which none is named, and a rollout in a
                model whose layers have no attention, or that has two stacks.
        """
        self._tokenizer()
        alone = isinstance(texts, (str, tuple))
        given = [texts] if alone else as_list(texts, "texts")
        found = explain(self, given, label, method, baseline, steps, batch_size)
        return found[0] if alone else found

    def get_config(self):
        own = {"labels": self.labels, "problem_type": self.problem_type, "reads": self.reads}
        return {**super().get_config(), **own}


def entity_marker_ids(config, tokenizer) -> tuple[int, ...]:
    """The ids of the marks of `data.mark_entities`, for a classifier that reads what they mark.

    Raises:
        ValueError: for a model that is no encoder, and a tokenizer that has not all of them.
    """
    if tuple(config.stacks) != ("encoder",):
        raise ValueError(
            'reads="entities" reads tokens that have seen the whole text, those of an encoder; without it any model '
            "classifies marked texts."
        )
    known = {} if tokenizer is None else {token: index for index, token in enumerate(tokenizer.vocabulary())}
    if missing := [marker for marker in ENTITY_MARKERS if marker not in known]:
        raise ValueError(
            f'reads="entities" finds entities by the tokens {", ".join(missing)}, which '
            f"{'no tokenizer was given for' if tokenizer is None else 'the tokenizer lacks'}: add them with "
            "compression.add_tokens(classifier, data.ENTITY_MARKERS), and make the new classifier of that one's "
            ".backbone and .tokenizer."
        )
    return tuple(known[marker] for marker in ENTITY_MARKERS)


def check_marked(token_ids: np.ndarray, markers: Sequence[int], texts: Sequence[str]) -> None:
    """Refuses texts [B] whose tokens [B, S] lack a mark of an entity.

    Raises:
        ValueError: naming the first.
    """
    found = np.stack([(token_ids == marker).any(-1) for marker in markers], -1)  # [B, 4]
    if not found.all():
        row, missing = np.argwhere(~found)[0]
        raise ValueError(
            f"{int((~found.all(-1)).sum())} of {len(found)} texts lack marks of their entities, the first is "
            f"texts[{row}], {texts[row]!r:.80}, without {ENTITY_MARKERS[missing]}: mark them by data.mark_entities("
            "text, first, second); where a mark was cut off with a text's end, give a longer sequence_length than "
            f"{token_ids.shape[1]}."
        )


def inference_columns(labels: Sequence[str], problem_type: str) -> tuple[int, int]:
    """The columns of entailment and of its contrary, of a classifier of premise and hypothesis.

    The contrary is the label "contradiction"; without one the first label, or the last where entailment is the first,
    as transformers has it.

    Raises:
        ValueError: for a classifier of something else.
    """
    names = [label.lower() for label in labels]
    entailed = next((index for index, name in enumerate(names) if name.startswith("entail")), None)
    if entailed is None or len(names) < 2 or problem_type != "single_label_classification":
        raise ValueError(
            "zero_shot asks a classifier of premise and hypothesis (MNLI), one of whose labels is entailment; the "
            f"labels of this one are {', '.join(labels)}. For other names give labels=[...] to from_pretrained."
        )
    usual = len(names) - 1 if entailed == 0 else 0
    return entailed, next((index for index, name in enumerate(names) if name.startswith("contradict")), usual)


def reranker_scores(logits: np.ndarray, reference_config: Mapping) -> np.ndarray:
    """Scores of a reranker's logits, as `config.json` says in either spelling of sentence-transformers.

    Raises:
        ValueError: for another activation than none and the sigmoid.
    """
    named = (reference_config.get("sentence_transformers") or {}).get("activation_fn")
    named = named or reference_config.get("sbert_ce_default_activation_function") or "Sigmoid"
    kind = named.rpartition(".")[2]
    if kind not in ("Identity", "Sigmoid"):
        raise ValueError(f"config.json says that scores go through {named}; rank has Identity and Sigmoid of torch.nn.")
    return logits if kind == "Identity" else 1.0 / (1.0 + np.exp(-logits))


def probabilities(logits: np.ndarray, problem_type: str) -> np.ndarray:
    """Logits [B, C] as probabilities: softmax over the labels, a sigmoid for each, or (regression) as they are."""
    logits = np.asarray(logits, "float32")
    if problem_type == "regression":
        return logits
    if problem_type == "multi_label_classification":
        return 1.0 / (1.0 + np.exp(-logits))
    exponents = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return exponents / exponents.sum(axis=-1, keepdims=True)
