"""Text embeddings: one vector per text, compared by cosine."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import keras
import numpy as np
from keras import ops

from tfxformer.arguments.keywords import checked
from tfxformer.backend import whole_value
from tfxformer.checkpoints import sentence_transformers
from tfxformer.checkpoints.family import SETTINGS_KEY
from tfxformer.checkpoints.files.errors import CheckpointError
from tfxformer.checkpoints.files.hub import resolve
from tfxformer.checkpoints.pretrained import check_no_adapters
from tfxformer.checkpoints.variables import initialize
from tfxformer.data.batches import Examples, is_raw, read_examples
from tfxformer.data.prompts import POOLED_MASK, UNSTATED, Prompts, in_front
from tfxformer.data.targets.labels import cosine_targets
from tfxformer.data.targets.weights import example_weights
from tfxformer.keras_files import folder_of_first_process
from tfxformer.layers import DEFAULT, Dense, GraphForm
from tfxformer.layers.activations import activation
from tfxformer.models.backbone import config_of
from tfxformer.models.pooling import FirstDimensions, Pooling, UnitLength
from tfxformer.tasks.base.task import Task
from tfxformer.tasks.base.tokenizer import has_tokenizer, lowercasing, open_tokenizer
from tfxformer.tasks.embedding.retrieval import Retrieval
from tfxformer.training.compiling.outputs import Output

if TYPE_CHECKING:
    from typing_extensions import Self

LONGEST_FILE = 512  # tokens that an exported file reads unless it is told: attention grows with their square


@keras.saving.register_keras_serializable("tfxformer")
class TextEmbedder(Retrieval, Task):
    """Embeds texts (Reimers and Gurevych, 2019, arXiv:1908.10084), as sentence-transformers does.

    Args:
        backbone: `models.Encoder` or `models.Decoder`.
        pooling: how a text's tokens become one vector, a name of `models.pooling.POOLINGS` or several: "mean" over real
            tokens, "cls", the first one, ...
        normalize: bool, vectors of length one.
        dimensions: int, how many of a vector's first numbers are kept, for models that were trained for it
            (Matryoshka); None for all. As `truncate_dim` of sentence-transformers it comes last, so that vectors of
            length one are shorter then; cosines do not mind.
        modules: what stands between the two, each a dict: {"kind": "dense", "units": 256, "activation": "tanh",
            "use_bias": True} or {"kind": "normalize"}.
        prompts: dict, what may stand in front of every text, by name ("query", "document", ...).
        default_prompt_name: the one that stands there unless another is asked for, in `fit` too; None for none.
        include_prompt: bool, whether a prompt's tokens are part of the vector.
        max_length: tokens of the longest text that is read whole where `sequence_length` does not say; None for the
            model's positions.
        tokenizer, sequence_length: see `Task`.

    Output: float32 [B, D]; for pairs (inputs [B, 2, S]) their cosines, float32 [B], which `fit(pairs, scores)`
    regresses on scores in [-1, 1]. Without `include_prompt` a batch may have `pooled_mask`, int32 [B, S], 0 at tokens
    that are no part of the vector.

    Example:
        embedder = TextEmbedder.from_pretrained(folder)
        vectors = embedder.predict(["eating food", "having a meal"])
        similarity = embedder.similarity(vectors, vectors)
        (found,) = embedder.search(["lunch"], ["eating food", "having a meal"], top_k=1)

    Raises ValueError for a pooling that the backbone does not allow, and for a max_length below 1.
    """

    task_name = "text-embedding"
    learns_from_labels = True

    def __init__(
        self,
        backbone,
        pooling="mean",
        normalize=True,
        tokenizer=None,
        *,
        dimensions=None,
        modules=(),
        prompts=None,
        default_prompt_name=None,
        include_prompt=True,
        max_length=None,
        described_by=None,
        **kwargs,
    ):
        if max_length is not None and (type(max_length) is not int or max_length < 1):
            raise ValueError(f"max_length={max_length!r} must be a positive number of tokens, or None.")
        self.prompts = Prompts(prompts or {}, default_prompt_name, include_prompt)
        first_only = "cls" in ([pooling] if isinstance(pooling, str) else pooling)
        config_of(backbone)  # refuses what is none
        if first_only and backbone.stack_name == "decoder" and backbone.stack.causal:
            raise ValueError(
                'pooling="cls" is the first token, which in a causal decoder has seen nothing of the text: take '
                '"mean" or "lasttoken".'
            )
        heads = make_heads(pooling, modules, normalize, dimensions)
        width = heads["pooling"].compute_output_spec(backbone.output["sequence_output"]).shape[-1]
        width = next((module["units"] for module in modules[::-1] if module["kind"] == "dense"), width)
        if dimensions is not None and not (type(dimensions) is int and 0 < dimensions <= width):
            raise ValueError(f"dimensions={dimensions!r} must be a number of 1 to {width}, the width of the vectors.")
        super().__init__(backbone, heads, tokenizer=tokenizer, **kwargs)
        self.pooling = pooling if isinstance(pooling, str) else list(pooling)
        self.normalize = normalize
        self.dimensions = dimensions
        self.embedding_modules = [dict(module) for module in modules]
        self.max_length = max_length
        self.described_by = dict(described_by or {})  # the files of its folder, written back as they were read

    def make_inputs(self, backbone):
        inputs = backbone.make_inputs()
        if not self.prompts.pooled:
            inputs[POOLED_MASK] = keras.Input((None,), dtype="int32", name=POOLED_MASK)
        return inputs

    @staticmethod
    def graph(backbone, heads, inputs, graph_form: GraphForm = DEFAULT):
        first_only = heads["pooling"].first_only and POOLED_MASK not in inputs
        x = backbone.forward(inputs, graph_form, first_only=first_only)["sequence_output"]
        x = heads["pooling"](x, inputs["padding_mask"], inputs.get(POOLED_MASK))
        for name, layer in heads.items():
            if name != "pooling":
                x = layer(x)
        return x

    # A pair is one example of rank 3, so that shuffling and batching keep it together; the functional graph has
    # rank 2, and would refuse it.
    input_spec = None

    def call(self, inputs, training=None, mask=None):
        if not self.prompts.pooled:
            inputs = {POOLED_MASK: inputs["padding_mask"], **inputs}
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

    @property
    def _maximum(self) -> int:
        longest = super()._maximum
        return longest if self.max_length is None else min(longest, self.max_length)

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
    def from_pretrained(cls, folder_or_hub_id, *, tokenizer=None, revision=None, **arguments) -> Self:
        """See `Task.from_pretrained`; a folder of sentence-transformers says the other arguments itself."""
        folder = resolve(folder_or_hub_id, revision)
        if folder.is_file():  # GGUF
            return super().from_pretrained(folder, tokenizer=tokenizer, **arguments)
        files = sentence_transformers.read_files(folder)
        said = sentence_transformers.describe(files, folder)
        encoder = sentence_transformers.encoder_folder(folder)
        if tokenizer is None and has_tokenizer(encoder):
            tokenizer = open_tokenizer(encoder)
            tokenizer = lowercasing(tokenizer) if said.lowercase else tokenizer
        stated = _stated_arguments(files, said, tokenizer)
        given = {name: value for name, value in arguments.items() if value is not None}
        model = super().from_pretrained(encoder, tokenizer=tokenizer, **{**stated, **given})
        as_stated = "modules" not in given and "pooling" not in given
        model._fill_modules(sentence_transformers.read_dense(folder, files) if as_stated else None)
        return model

    def _fill_modules(self, dense: list[dict] | None) -> None:
        """Gives the layers after the pooling their weights: those read, or new ones."""
        layers = self._dense_layers()
        read = dense if dense is not None and len(dense) == len(layers) else [{}] * len(layers)
        for layer, arrays in zip(layers, read, strict=True):
            for variable in layer.variables:
                array = arrays.get(variable.name)
                if array is not None and array.shape != tuple(variable.shape):
                    raise CheckpointError(
                        f"The dense layer {layer.name!r} of the folder has a {variable.name} of shape "
                        f"{list(array.shape)}, its config.json asks for {list(variable.shape)}."
                    )
                if array is None and arrays:
                    raise CheckpointError(f"The dense layer {layer.name!r} of the folder lacks its {variable.name}.")
                initialize(variable, array)

    def _dense_layers(self) -> list[Dense]:
        return [layer for layer in self.heads.values() if isinstance(layer, Dense)]

    def checkpoint_model(self) -> keras.Model:
        """The backbone: what follows it lies in files of its own."""
        return self.backbone

    @checked
    def save_pretrained(self, folder, **kwargs) -> Path:
        """Writes a folder that sentence-transformers opens with the same vectors, what it was read from unchanged."""
        files = self.described_by
        said = sentence_transformers.SentenceModules(
            pooling=self.heads["pooling"].kinds,
            modules=(*self.embedding_modules, *([{"kind": "normalize"}] if self.normalize else [])),
            max_length=self.sequence_length or self._stated_length(files),
            lowercase=sentence_transformers.describe(files).lowercase,
            prompts=self._stated_prompts(files),
            default_prompt_name=self.prompts.default,
            include_prompt=self.prompts.pooled,
            dimensions=self.dimensions,
        )
        check_no_adapters(self)
        dense = [{v.name: whole_value(v) for v in layer.variables} for layer in self._dense_layers()]
        with folder_of_first_process(folder) as new:
            super().save_pretrained(new, **kwargs)
            sentence_transformers.write(new, said, files, self.backbone.config.hidden_size, dense)
        return Path(folder).expanduser()

    @property
    def output_kinds(self):
        return Output("scores")

    def _stated_length(self, files: dict) -> int | None:
        """What to write as the longest text: nothing where the tokenizer's own file says it."""
        stated = sentence_transformers.describe(files).max_length
        own = None if self.tokenizer is None else self.tokenizer.model_max_length
        return stated if self.max_length == (stated or own) else self.max_length

    def _stated_prompts(self, files: dict) -> dict:
        """The prompts to write: those that sentence-transformers has anyway only where the files have them."""
        stated = sentence_transformers.describe(files).prompts
        return {k: text for k, text in self.prompts.texts.items() if k in stated or UNSTATED.get(k) != text}

    def default_loss(self):
        return keras.losses.MeanSquaredError()

    def default_metrics(self):
        return [keras.metrics.MeanAbsoluteError(name="mean_absolute_error")]

    def encode(self, texts, *, sequence_length=None, truncation=True, prompt_name=None, prompt=None) -> dict:
        """See `Task.encode`; `prompt_name` or `prompt` as `predict` has them."""
        chosen = self.prompts.choose(prompt_name, prompt)
        return self._encode(read_examples(texts), sequence_length, truncation, chosen)

    def _encode(self, examples: Examples, sequence_length=None, truncation=True, prompt=None) -> dict:
        prompt = self.prompts.choose(prompt=prompt)
        examples = examples._replace(texts=in_front(prompt, examples.texts))
        batch = super()._encode(examples, sequence_length, truncation)
        if not self.prompts.pooled:
            batch[POOLED_MASK] = self.prompts.pooled_mask(batch["padding_mask"], self._tokenizer(), prompt)
        return batch

    def prepare(self, examples: Examples, sample_weight=None, prompt=None):
        prompt = self.prompts.choose(prompt=prompt)
        if examples.pairs is None and examples.labels is not None:
            raise ValueError(
                "TextEmbedder learns from pairs of texts and a score for each pair, and these are single texts: "
                "fit([(text, text), ...], scores)."
            )
        if sample_weight is not None:
            sample_weight = example_weights(sample_weight, len(examples.texts))
        if examples.pairs is None:
            return self._encode(examples, prompt=prompt), None, sample_weight
        # Both texts at one length, side by side: [B, S] twice -> [B, 2, S].
        sides = [Examples(texts, None, None) for texts in (examples.texts, examples.pairs)]
        longest = Examples(in_front(prompt, [*examples.texts, *examples.pairs]), None, None)
        length = self.sequence_length or self._longest(longest)
        batches = [self._encode(side, length, prompt=prompt) for side in sides]
        inputs = {name: np.stack([batch[name] for batch in batches], axis=1) for name in batches[0]}
        labels = None if examples.labels is None else cosine_targets(examples.labels)
        return inputs, labels, sample_weight

    def _of_arrays(self, x, y, sample_weight):
        x, y, sample_weight = super()._of_arrays(x, y, sample_weight)
        if y is not None and isinstance(x, Mapping) and np.ndim(x["token_ids"]) == 3:
            y = cosine_targets(y)
        return x, y, sample_weight

    def choose_sequence_length(self, examples: Examples) -> None:
        texts = in_front(self.prompts.choose(), [*examples.texts, *(examples.pairs or [])])
        super().choose_sequence_length(Examples(texts, None, None))

    @checked(to="logits")
    def predict(self, x, batch_size=None, *, prompt_name=None, prompt=None, **kwargs) -> np.ndarray:
        """Vectors of texts, arrays or datasets, float32 [B, D]; of pairs of texts their cosines, float32 [B].

        Args:
            x: what is embedded.
            batch_size: int, texts of a step.
            prompt_name: the name of a prompt of the model, for texts; None for its default one.
            prompt: a text that stands in front of each text instead; "" for none.
            kwargs: Keras' own.
        """
        given = self.read_given(x, batch_size=batch_size, steps=kwargs.get("steps"), labelled=False)
        batch_size = given.batch_size
        if not is_raw(given.x):
            if prompt_name is not None or prompt is not None:
                raise ValueError("prompt_name and prompt stand in front of texts; arrays have theirs inside already.")
            return self.logits(given.x, batch_size, **kwargs)
        if given.steps:
            kwargs["steps"] = None  # all that was read for them
        inputs, _, _ = self.prepare(self.read(given.x), prompt=self.prompts.choose(prompt_name, prompt))
        if inputs["token_ids"].ndim == 2:
            return self.logits(inputs, batch_size, **kwargs)
        # One side at a time: the compiled step that has seen single texts takes no batch of another rank.
        sides = [{name: ids[:, i] for name, ids in inputs.items()} for i in (0, 1)]
        first, second = (self.logits(side, batch_size, **kwargs) for side in sides)
        lengths = np.linalg.norm(first, axis=-1) * np.linalg.norm(second, axis=-1)
        return (first * second).sum(-1) / np.maximum(lengths, 1e-12)

    @property
    def file_length(self) -> int | None:
        """Tokens that an exported file reads where `sequence_length` is not chosen."""
        return None if self.max_length is None else min(self._maximum, LONGEST_FILE)

    def file_facts(self) -> dict:
        """See `Task.file_facts`."""
        return {
            "prompts": dict(self.prompts.texts),
            "default_prompt_name": self.prompts.default,
            "include_prompt": self.prompts.pooled,
            "max_length": self.sequence_length or self.max_length,
        }

    def get_config(self):
        return {
            **super().get_config(),
            "pooling": self.pooling,
            "normalize": self.normalize,
            "dimensions": self.dimensions,
            "modules": [dict(module) for module in self.embedding_modules],
            "prompts": dict(self.prompts.texts),
            "default_prompt_name": self.prompts.default,
            "include_prompt": self.prompts.pooled,
            "max_length": self.max_length,
            "described_by": self.described_by,
        }


def make_heads(pooling, modules, normalize: bool, dimensions: int | None = None) -> dict:
    """The layers on top of a backbone, in their order.

    Raises:
        ValueError: for a module that is not understood.
    """
    heads = {"pooling": Pooling(pooling, dtype="float32", name="pooling")}
    for index, module in enumerate(modules):
        kind, options = module.get("kind"), {k: v for k, v in module.items() if k != "kind"}
        name = f"{kind}_{index}"
        if kind == "normalize" and not options:
            heads[name] = UnitLength(dtype="float32", name=name)
        elif kind == "dense" and set(options) <= {"units", "activation", "use_bias"} and "units" in options:
            options["activation"] = activation(options.get("activation", "tanh"))
            heads[name] = Dense(**options, dtype="float32", name=name)
        else:
            raise ValueError(
                f"modules[{index}] is {module!r}; wanted {{'kind': 'dense', 'units': int, 'activation': str, "
                "'use_bias': bool} or {'kind': 'normalize'}."
            )
    if normalize:
        heads["normalize"] = UnitLength(dtype="float32", name="normalize")
    if dimensions is not None:
        heads["dimensions"] = FirstDimensions(dimensions, dtype="float32", name="dimensions")
    return heads


def _stated_arguments(files: dict, said, tokenizer) -> dict:
    """Constructor arguments from a folder of sentence-transformers; none where it is another folder."""
    if not files:
        return {}
    stated = {"pooling": said.pooling[0] if len(said.pooling) == 1 else said.pooling, "described_by": files}
    if sentence_transformers.MODULES_FILE not in files:
        return stated
    modules = list(said.modules)
    normalize = bool(modules) and modules[-1] == {"kind": "normalize"}
    own = None if tokenizer is None else tokenizer.model_max_length
    return {
        **stated,
        "normalize": normalize,
        "modules": modules[:-1] if normalize else modules,
        "prompts": said.prompts,
        "default_prompt_name": said.default_prompt_name,
        "include_prompt": said.include_prompt,
        "dimensions": said.dimensions,
        "max_length": said.max_length or own,
    }
