"""What all tasks share: texts in, Keras `fit` in the middle, checkpoints and `.keras` files out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import keras
import numpy as np

from tfxformer.arguments.keywords import FUNCTIONAL, NamedInputs, checked, refuse_unknown
from tfxformer.checkpoints.family import SETTINGS_KEY
from tfxformer.checkpoints.files.hub import resolve
from tfxformer.checkpoints.pretrained import load_model, save_pretrained
from tfxformer.data.batches import Examples, read_examples, to_batch
from tfxformer.data.lengths import default_sequence_length, round_length
from tfxformer.data.targets.labels import check_read_labels
from tfxformer.data.targets.weights import example_weights
from tfxformer.keras_files import folder_of_first_process, refuse_legacy
from tfxformer.layers import DEFAULT, GraphForm
from tfxformer.layers.kernels.clusters import plain_operations
from tfxformer.layers.quantization.graph_form import writing_in_force
from tfxformer.models.adapted import collect_adapters, describe_adapters, restore_adapters
from tfxformer.models.backbone import Backbone
from tfxformer.models.build import make_backbone
from tfxformer.tasks.base.class_weights import weigh_classes
from tfxformer.tasks.base.task_data import TaskData
from tfxformer.tasks.base.tokenizer import check_tokenizer, find_tokenizer
from tfxformer.tasks.explaining.attention_maps import AttentionMaps, attention_maps
from tfxformer.text import Tokenizer
from tfxformer.training.inputs.array_checks import check_outputs
from tfxformer.training.inputs.checked_batches import checked_batches, filled_batches, refusals
from tfxformer.training.inputs.given import Given
from tfxformer.training.scheduled_model import ScheduledModel

if TYPE_CHECKING:
    from typing_extensions import Self

# The kind that is wanted -> what is said of the other one.
WRONG_BACKBONES = {
    "encoder": (
        "{task} fills in hidden tokens from both sides and needs an encoder (BERT, RoBERTa, ...); this is a decoder: "
        "take CausalLM, or an encoder's checkpoint."
    ),
    "decoder": (
        "{task} predicts each token from those before it and needs a decoder (GPT-2, Llama, ...); this is an encoder, "
        "whose tokens see the very ones to predict: take MaskedLM, or a decoder's checkpoint."
    ),
    "encoder-decoder": (
        "{task} writes a target for a source and needs an encoder with a decoder (T5, BART, ...); this model has one "
        "of them: take CausalLM for a decoder, MaskedLM for an encoder, or the checkpoint of a T5."
    ),
}
WITH_BOTH = "{task} stands on an encoder or a decoder; this model has both, which Seq2SeqLM and TextClassifier are for."


class Task(TaskData, NamedInputs, ScheduledModel):
    """A functional Keras model that takes texts too; its subclasses are the tasks.

    `fit`, `evaluate` and `predict` accept texts, arrays (dicts of int32 [B, S]) and datasets of either. Texts are
    tokenized once, before the first step. Calling a task on a batch returns its logits.

    Args:
        backbone: `models.Encoder` or `models.Decoder`.
        heads: dict of the layers on top.
        tokenizer: `text.Tokenizer`, or None for a model fed with arrays only.
        sequence_length: tokens per text; None until the first `fit` chooses it from its texts.

    A subclass says `task_name` and `graph`, and how examples become arrays (`prepare`, `encode_labels`).

    Raises ValueError for a sequence_length beyond the model's, a tokenizer of another vocabulary, or a wrong backbone.
    """

    keras_keywords = FUNCTIONAL
    task_name = ""
    head_name = ""  # of its head in checkpoints, where that is another task's
    backbone_kind = None  # "encoder", "decoder" or "encoder-decoder", where it is right on that alone
    takes_both = False  # whether it is right on an encoder with a decoder, too

    def __init__(self, backbone: Backbone, heads: dict, *, tokenizer=None, sequence_length=None, **kwargs):
        refuse_unknown(kwargs, self.keras_keywords, type(self).__name__)
        self.check_backbone(backbone.config)
        maximum = backbone.config.max_sequence_length
        if sequence_length is not None and not 0 < sequence_length <= maximum:
            raise ValueError(f"sequence_length={sequence_length} must be 1 to {maximum}, the model's positions.")
        if tokenizer is not None:
            check_tokenizer(tokenizer, backbone.config)
        inputs = self.make_inputs(backbone)
        super().__init__(inputs=inputs, outputs=self.graph(backbone, heads, inputs), **kwargs)
        self.backbone = backbone
        self.heads = heads
        self.tokenizer = tokenizer
        self.sequence_length = sequence_length
        self.dtype_policy = backbone.dtype_policy
        if backbone.config.heads.pooler and not self.wants_pooler(backbone.config):
            backbone.get_layer("pooler").trainable = False  # no output reads it, so it has no gradient

    # ---- what a subclass says ---------------------------------------------------------------------------------

    def make_inputs(self, backbone: Backbone) -> dict:
        """New symbolic inputs of the task: int32 [B, S] by name."""
        return backbone.make_inputs()

    # Tokens that an exported file reads where `sequence_length` is not chosen; None for export's own.
    file_length = None

    def file_facts(self) -> dict:
        """What an exported file must know, beside labels and tokenizer, to read texts as the task does: JSON-ready."""
        return {}

    @staticmethod
    def graph(backbone: Backbone, heads: dict, inputs: dict, graph_form: GraphForm = DEFAULT):
        """The logits of a batch, written as `graph_form` says."""
        raise NotImplementedError("A task defines its graph.")

    @classmethod
    def wants_pooler(cls, config) -> bool | None:
        """Whether the task reads the family's pooler; None keeps what the checkpoint has."""
        return False

    @classmethod
    def arguments_in(cls, folder) -> dict:
        """Constructor arguments from other files of a checkpoint than config.json, under those the caller gave."""
        return {}

    @classmethod
    def arguments_from(cls, reference: dict, arguments: dict) -> dict:
        """Constructor arguments from a config.json, under those the caller gave."""
        settings = reference.get(SETTINGS_KEY) or {}
        if not isinstance(settings, dict):
            raise ValueError(
                f"config.json says {SETTINGS_KEY}={settings!r}: wanted an object, as save_pretrained writes."
            )
        return {"sequence_length": settings.get("sequence_length"), **arguments}

    @classmethod
    def check_backbone(cls, config) -> None:
        """Refuses the config of a backbone that this task is not right on.

        Raises:
            ValueError: naming the tasks that are.
        """
        kind = "-".join(config.stacks)  # "encoder-decoder" of both
        if cls.backbone_kind != kind and len(config.stacks) > 1 and not cls.takes_both:
            raise ValueError(WITH_BOTH.format(task=cls.__name__))
        if cls.backbone_kind not in (None, kind):
            raise ValueError(WRONG_BACKBONES[cls.backbone_kind].format(task=cls.__name__))

    def reference_changes(self) -> dict:
        """What the task adds to config.json."""
        return {SETTINGS_KEY: {"sequence_length": self.sequence_length}}

    def default_loss(self):
        """The loss of compile(loss="auto")."""
        raise NotImplementedError("A task defines its default loss.")

    def default_metrics(self) -> list:
        """The metrics of compile(metrics="auto")."""
        return []

    @property
    def class_names(self) -> list[str] | None:
        """The labels of which each row (or token) has one, as `class_weight` names them; None where it has none."""
        return None

    # ---- graph ------------------------------------------------------------------------------------------------

    def forward(self, inputs: dict, graph_form: GraphForm = DEFAULT):
        """The logits of the same layers in another writing: what export traces; see `GraphForm`."""
        return self._unprompted(self.graph(self.backbone, self.heads, self.backbone.prompted(inputs), graph_form))

    def call(self, inputs, training=None, mask=None):
        graph_form = writing_in_force()
        if graph_form is not None:
            return self.forward({name: inputs[name] for name in self.input}, graph_form)
        return self._unprompted(super().call(self.backbone.prompted(inputs), training=training, mask=mask))

    def _unprompted(self, logits):
        length = self.backbone.prompt_length
        return logits[:, length:] if length and len(logits.shape) == 3 else logits  # per token: [B, P + S, ...]

    def as_on_accelerators(self):
        """Inside, steps are traced as a TPU or GPU runs them, wherever they are traced: `training.tpu_check` asks."""
        return plain_operations()

    # ---- texts ------------------------------------------------------------------------------------------------

    def encode(self, texts, *, sequence_length=None, truncation=True) -> dict:
        """Texts, or (text, text) pairs, as a batch.

        Args:
            texts: list of str, or of pairs of str.
            sequence_length: tokens per text; None for the task's own, or the longest text's where it has none.
            truncation: whether a longer text is cut (said in one warning) or an error.

        Returns:
            dict of int32 [B, S], the model's inputs.
        """
        return self._encode(read_examples(texts), sequence_length, truncation)

    def _encode(self, examples: Examples, sequence_length=None, truncation=True) -> dict:
        encoding = self._tokenizer().encode(
            examples.texts,
            examples.pairs,
            sequence_length=sequence_length or self.sequence_length or self._longest(examples),
            truncation=truncation,
        )
        return to_batch(encoding, self._has_segments)

    @property
    def _has_segments(self) -> bool:
        return self.backbone.config.token_types > 1

    @property
    def _maximum(self) -> int:
        return self.backbone.longest_text

    def _tokenizer(self) -> Tokenizer:
        if self.tokenizer is None:
            raise ValueError("This model has no tokenizer, so it cannot read texts: give arrays, or set .tokenizer.")
        return self.tokenizer

    def _counts(self, examples: Examples) -> np.ndarray:
        return self._tokenizer().token_counts(examples.texts, examples.pairs)

    def _longest(self, examples: Examples) -> int:
        return round_length(int(self._counts(examples).max()), self._maximum)

    def choose_sequence_length(self, examples: Examples) -> None:
        """Fixes `sequence_length` by the 95th percentile of the training texts, unless it is set."""
        if self.sequence_length is None:
            self.sequence_length = default_sequence_length(self._counts(examples), self._maximum)

    def prepare(self, examples: Examples, sample_weight=None):
        """Examples as what Keras fits on: (inputs, targets or None, sample weights or None)."""
        labels = None if examples.labels is None else self.encode_labels(examples.labels)
        if sample_weight is not None:
            sample_weight = example_weights(sample_weight, len(examples.texts))
        return self._encode(examples), labels, sample_weight

    def encode_labels(self, labels):
        """Labels as the array that the loss takes."""
        return np.asarray(labels)

    def weigh_classes(self, class_weight, data: Given) -> Given:
        """What Keras trains on with the weights of classes; see `tasks.class_weights.weigh_classes`."""
        return data.with_arrays(*weigh_classes(self, class_weight, data.x, data.y, data.sample_weight))

    @checked(to=keras.Model.predict)
    def logits(self, x, batch_size=None, **kwargs):
        """Keras' own `predict`: the logits of texts, arrays, or a stream of either.

        Raises:
            ValueError: where they are not finite.
        """
        given = self.read_given(x, batch_size=batch_size, steps=kwargs.get("steps"), labelled=False)
        if given.steps:
            kwargs["steps"] = None
        x = checked_batches(self._examples(given.x)[0], None, None, self.limits())
        x, rows = filled_batches(x, given.batch_size) if kwargs.get("steps") is None else (x, None)
        with refusals():
            outputs = super().predict(x, batch_size=given.batch_size, **kwargs)
        if rows is not None:
            outputs = keras.tree.map_structure(lambda array: array[:rows], outputs)
        check_outputs(outputs, self.name)
        return outputs

    def attention_maps(self, text) -> AttentionMaps:
        """What each token of one text reads of each other one, in every layer and head.

        `task.attention_maps("a good film").plot(layer=0)` draws a layer.

        Args:
            text: one example as `encode` takes it: a text, a pair, or a list of words.

        Returns:
            `AttentionMaps`, of which `weights` is float32 [layers, heads, S, S], and `tokens` holds S str.

        Raises:
            ValueError: for a model with layers that have no attention, with two stacks, or with trained vectors in
                front of its texts.
        """
        self._tokenizer()
        return attention_maps(self, text)

    # ---- saving -----------------------------------------------------------------------------------------------

    @classmethod
    @checked(to="__init__")
    def from_pretrained(
        cls, folder_or_hub_id, *, tokenizer=None, dtype=None, gradient_checkpointing=False, revision=None, **arguments
    ) -> Self:
        """A task on a checkpoint: its head is read where the file has it, else new (said in a warning).

        Args:
            folder_or_hub_id: a folder with config.json and safetensors, a GGUF file, or a hub id ("owner/name").
            tokenizer: `text.Tokenizer`; None reads the checkpoint's. One without tokenizer files loads with a warning,
                for arrays only.
            dtype: dtype policy, such as "mixed_bfloat16".
            gradient_checkpointing: bool, recompute blocks in the backward pass.
            revision: branch, tag or commit of a hub id; None for its main branch.
            arguments: the task's own (`labels`, `sequence_length`, ...); None takes the checkpoint's.

        Raises:
            CheckpointError: for a checkpoint that cannot be read or does not fit.
        """
        folder = resolve(folder_or_hub_id, revision)
        tokenizer = tokenizer or find_tokenizer(folder)
        given = {name: value for name, value in arguments.items() if value is not None}
        stated = cls.arguments_in(folder)

        def make(config, reference):
            cls.check_backbone(config)  # before anything as large as a model is made
            backbone = make_backbone(
                config, gradient_checkpointing=gradient_checkpointing, reference_config=reference, dtype=dtype
            )
            return cls(backbone, tokenizer=tokenizer, **cls.arguments_from(reference, {**stated, **given}))

        model, report = load_model(folder, make, task=cls.head_name or cls.task_name, wants_pooler=cls.wants_pooler)
        if "labels" in given and not report.new:
            check_read_labels(model.backbone.reference_config, given["labels"], folder)
        report.warn()
        return model

    def checkpoint_model(self) -> keras.Model:
        """What of this model a checkpoint holds."""
        return self

    @checked
    def save_pretrained(self, folder, *, dtype="float32", max_shard_bytes=5_000_000_000) -> Path:
        """Writes a folder that transformers opens with the same logits; see `checkpoints.save_pretrained`."""
        config = self.backbone.config
        if self.wants_pooler(config) is False:
            config = config.replace(heads__pooler=False)  # the reference's class with this head has none
        with folder_of_first_process(folder) as new:
            save_pretrained(
                new,
                self.checkpoint_model(),
                config,
                task=self.head_name or self.task_name,
                reference_config=self.backbone.reference_config,
                changes=self.reference_changes(),
                dtype=dtype,
                max_shard_bytes=max_shard_bytes,
            )
            if self.tokenizer is not None:
                self.tokenizer.save_pretrained(new)
        return Path(folder).expanduser()

    def get_config(self):
        refuse_legacy()
        return {
            "backbone": keras.saving.serialize_keras_object(self.backbone),
            "tokenizer": None if self.tokenizer is None else self.tokenizer.to_json(),
            "sequence_length": self.sequence_length,
            "name": self.name,
            "trainable": self.trainable,
            **describe_adapters(self),
        }

    @classmethod
    def from_config(cls, config, custom_objects=None) -> Self:
        config = dict(config)
        adapters = collect_adapters(config)
        if isinstance(config["backbone"], dict):  # else one that several tasks share
            config["backbone"] = keras.saving.deserialize_keras_object(
                config["backbone"], custom_objects=custom_objects
            )
        if config["tokenizer"] is not None:
            config["tokenizer"] = Tokenizer.from_json(config["tokenizer"])
        return restore_adapters(cls(**config), adapters)
