"""Text embeddings: one vector per text, compared by cosine."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import keras
import numpy as np
from keras import ops

from tfxformer.checkpoints.hub import read_json, resolve
from tfxformer.checkpoints.safetensors import CheckpointError
from tfxformer.data.batches import Examples
from tfxformer.data.examples import is_raw
from tfxformer.data.labels import cosine_targets
from tfxformer.data.weights import example_weights
from tfxformer.files import replacing_folder, write_json
from tfxformer.keywords import KnownKeywords, checked
from tfxformer.layers import DEFAULT, Numerics
from tfxformer.tasks.task import SETTINGS_KEY, Task
from tfxformer.training.outputs import Output

POOLINGS = ("mean", "cls")
POOLING_FOLDER = "1_Pooling"  # where sentence-transformers keeps it
MODULES_FILE = "modules.json"  # its list of the parts of a model
MODULES = "sentence_transformers.models."


@keras.saving.register_keras_serializable("tfxformer")
class Pooling(KnownKeywords, keras.layers.Layer):
    """One vector per text, from one per token.

    Args:
        pooling: "mean" over the real tokens, or "cls", the first token.
        normalize: bool, vectors of length one.

    Call: sequence [B, S, D], padding_mask [B, S] -> float32 [B, D].
    """

    def __init__(self, pooling="mean", normalize=True, **kwargs):
        super().__init__(**kwargs)
        if pooling not in POOLINGS:
            raise ValueError(f"Unknown pooling {pooling!r}; known: {', '.join(POOLINGS)}.")
        self.pooling = pooling
        self.normalize = normalize

    def call(self, sequence, padding_mask):
        sequence = ops.cast(sequence, "float32")
        if self.pooling == "cls":
            pooled = sequence[:, 0]
        else:
            weights = ops.expand_dims(ops.cast(padding_mask, "float32"), -1)  # [B, S] -> [B, S, 1]
            pooled = ops.sum(sequence * weights, axis=1) / ops.maximum(ops.sum(weights, axis=1), 1.0)
        if self.normalize:
            pooled = pooled * ops.rsqrt(ops.maximum(ops.sum(pooled * pooled, axis=-1, keepdims=True), 1e-24))
        return pooled

    def get_config(self):
        return {**super().get_config(), "pooling": self.pooling, "normalize": self.normalize}


@keras.saving.register_keras_serializable("tfxformer")
class TextEmbedder(Task):
    """Embeds texts (Reimers and Gurevych, 2019, arXiv:1908.10084).

    Args:
        backbone: `models.Encoder`.
        pooling: "mean" over real tokens, or "cls", the first one.
        normalize: bool, vectors of length one.
        tokenizer, sequence_length: see `Task`.

    Output: float32 [B, D]; for pairs (inputs [B, 2, S]) their cosines, float32 [B], which `fit(pairs, scores)`
    regresses on scores in [-1, 1].

    Example:
        embedder = TextEmbedder.from_pretrained(folder)
        vectors = embedder.predict(["eating food", "having a meal"])
        similarity = vectors @ vectors.T
    """

    task_name = "text-embedding"

    def __init__(self, backbone, pooling="mean", normalize=True, tokenizer=None, **kwargs):
        heads = {"pooling": Pooling(pooling, normalize, dtype="float32", name="pooling")}
        super().__init__(backbone, heads, tokenizer=tokenizer, **kwargs)
        self.pooling = pooling
        self.normalize = normalize

    @staticmethod
    def graph(backbone, heads, inputs, numerics: Numerics = DEFAULT):
        outputs = backbone.forward(inputs, numerics, first_only=heads["pooling"].pooling == "cls")
        return heads["pooling"](outputs["sequence_output"], inputs["padding_mask"])

    # A pair is one example of rank 3, so that shuffling and batching keep it together; the functional graph has
    # rank 2, and would refuse it.
    input_spec = None

    def call(self, inputs, training=None, mask=None):
        if len(inputs["token_ids"].shape) == 2:
            return super().call(inputs, training=training, mask=mask)
        length = ops.shape(inputs["token_ids"])[2]
        flat = {name: ops.reshape(ids, (-1, length)) for name, ids in inputs.items()}  # [B, 2, S] -> [2B, S]
        vectors = ops.normalize(super().call(flat, training=training), axis=-1)
        pairs = ops.reshape(vectors, (-1, 2, vectors.shape[-1]))  # [2B, D] -> [B, 2, D]
        return ops.sum(pairs[:, 0] * pairs[:, 1], axis=-1)

    @classmethod
    def wants_pooler(cls, config):
        return None

    @classmethod
    def arguments_from(cls, reference, arguments):
        settings = reference.get(SETTINGS_KEY) or {}
        stated = {name: settings[name] for name in ("pooling", "normalize") if name in settings}
        return {**stated, **super().arguments_from(reference, arguments)}

    def reference_changes(self):
        settings = super().reference_changes()[SETTINGS_KEY]
        return {SETTINGS_KEY: {**settings, "pooling": self.pooling, "normalize": self.normalize}}

    @classmethod
    @checked
    def from_pretrained(cls, folder_or_hub_id, *, pooling=None, **arguments):
        """See `Task.from_pretrained`; the pooling is the folder's own where it says one (sentence-transformers)."""
        folder = resolve(folder_or_hub_id)
        return super().from_pretrained(folder, pooling=pooling or _stated_pooling(folder), **arguments)

    @checked
    def save_pretrained(self, folder, **kwargs) -> Path:
        modules = [("", "Transformer"), (POOLING_FOLDER, "Pooling")]
        modules += [("2_Normalize", "Normalize")] if self.normalize else []
        stated = {
            "word_embedding_dimension": self.backbone.config.stack.hidden_size,
            "pooling_mode_mean_tokens": self.pooling == "mean",
            "pooling_mode_cls_token": self.pooling == "cls",
        }
        listed = [
            {"idx": i, "name": str(i), "path": path, "type": f"{MODULES}{kind}"}
            for i, (path, kind) in enumerate(modules)
        ]
        with replacing_folder(folder) as new:
            super().save_pretrained(new, **kwargs)
            write_json(new / POOLING_FOLDER / "config.json", stated, indent=2)
            write_json(new / MODULES_FILE, listed, indent=2)
        return Path(folder).expanduser()

    @property
    def output_kinds(self):
        return Output("scores")

    def default_loss(self):
        return keras.losses.MeanSquaredError()

    def default_metrics(self):
        return [keras.metrics.MeanAbsoluteError(name="mean_absolute_error")]

    def prepare(self, examples: Examples, sample_weight=None):
        if examples.pairs is None:
            return super().prepare(examples, sample_weight)
        if sample_weight is not None:
            sample_weight = example_weights(sample_weight, len(examples.texts))
        # Both texts at one length, side by side: [B, S] twice -> [B, 2, S].
        first = Examples(examples.texts, None, None)
        second = Examples(examples.pairs, None, None)
        length = self.sequence_length or max(self._longest(first), self._longest(second))
        batches = [self._encode(part, length) for part in (first, second)]
        inputs = {name: np.stack([batch[name] for batch in batches], axis=1) for name in batches[0]}
        labels = None if examples.labels is None else cosine_targets(examples.labels)
        return inputs, labels, sample_weight

    def _ready(self, x, y, sample_weight):
        if y is not None and isinstance(x, Mapping) and np.ndim(x["token_ids"]) == 3:
            y = cosine_targets(y)
        return super()._ready(x, y, sample_weight)

    def choose_sequence_length(self, examples: Examples) -> None:
        super().choose_sequence_length(Examples([*examples.texts, *(examples.pairs or [])], None, None))

    @checked(to="logits")
    def predict(self, x, batch_size=None, **kwargs) -> np.ndarray:
        """Vectors of texts, arrays or datasets, float32 [B, D]; of pairs of texts their cosines, float32 [B]."""
        if not is_raw(x):
            return self.logits(x, batch_size, **kwargs)
        inputs, _, _ = self._examples(x)
        if inputs["token_ids"].ndim == 2:
            return self.logits(inputs, batch_size, **kwargs)
        # One side at a time: the compiled step that has seen single texts takes no batch of another rank.
        sides = [{name: ids[:, i] for name, ids in inputs.items()} for i in (0, 1)]
        first, second = (self.logits(side, batch_size, **kwargs) for side in sides)
        lengths = np.linalg.norm(first, axis=-1) * np.linalg.norm(second, axis=-1)
        return (first * second).sum(-1) / np.maximum(lengths, 1e-12)

    def get_config(self):
        return {**super().get_config(), "pooling": self.pooling, "normalize": self.normalize}


def _stated_pooling(folder: Path) -> str | None:
    """The pooling that a sentence-transformers folder says; None where it says none.

    Raises:
        CheckpointError: for a pooling, or a further module, that is not implemented here.
    """
    if (folder / MODULES_FILE).is_file():
        listed = json.loads((folder / MODULES_FILE).read_text(encoding="utf-8"))
        kinds = [module["type"].rpartition(".")[2] for module in listed]
        others = sorted(set(kinds) - {"Transformer", "Pooling", "Normalize"})
        if others:
            raise CheckpointError(
                f"{folder / MODULES_FILE} lists {', '.join(others)}: tfxformer reads Transformer, Pooling and "
                "Normalize only, and its vectors would be others. Take the bare encoder by tfxformer.from_pretrained."
            )
    path = folder / POOLING_FOLDER / "config.json"
    if not path.is_file():
        return None
    stated = [key for key, value in read_json(path).items() if key.startswith("pooling_mode") and value is True]
    known = {"pooling_mode_cls_token": "cls", "pooling_mode_mean_tokens": "mean"}
    if len(stated) != 1 or stated[0] not in known:
        raise CheckpointError(
            f"{path} says {' and '.join(stated) or 'no pooling'}; tfxformer pools by {' or '.join(known)}. To pool "
            'otherwise than the checkpoint, pass pooling="mean" or "cls".'
        )
    return known[stated[0]]
