"""What encoders and decoders have in common as Keras models: their config, and how they are saved."""

from __future__ import annotations

import os

import keras

from tfxformer.arguments.keywords import FUNCTIONAL, KnownKeywords, NamedInputs
from tfxformer.keras_files import SavedModel, refuse_legacy
from tfxformer.layers import TokenEmbedding, TransformerBlock
from tfxformer.layers.adapters.prompt import SEEN_BY_ALL, with_prompt
from tfxformer.layers.kernels.fused_attention import with_prompt_in_front
from tfxformer.layers.quantization.graph_form import writing_in_force
from tfxformer.models.adapted import collect_adapters, describe_adapters, restore_adapters
from tfxformer.models.config import StackConfig, TransformerConfig


def config_of(backbone) -> TransformerConfig:
    """The config of what a task is made on.

    Raises:
        TypeError: for what is no `Encoder` or `Decoder`: a name, a task, another library's model.
    """
    if isinstance(backbone, Backbone):
        return backbone.config
    named = f"the text {backbone!r:.80}" if isinstance(backbone, (str, os.PathLike)) else f"a {type(backbone).__name__}"
    raise TypeError(
        f"A task stands on an Encoder or Decoder of tfxformer, got {named}: give tfxformer.from_pretrained(folder), "
        "tfxformer.build(name) or the backbone of another task (task.backbone), or use the from_pretrained of the task."
    )


class Backbone(NamedInputs, KnownKeywords, SavedModel):
    """A functional model made from a `TransformerConfig`; see `Encoder` and `Decoder`.

    Attributes:
        config: TransformerConfig.
        gradient_checkpointing: bool.
        reference_config: dict or None, the `config.json` it was loaded from, passed through when saved again.
    """

    keras_keywords = FUNCTIONAL
    stack_name: str  # of the stack whose tokens it computes

    @property
    def stack(self) -> StackConfig:
        """The config of the stack that it computes."""
        return self.config.stacks[self.stack_name]

    @property
    def blocks(self) -> list[TransformerBlock]:
        """The blocks with weights of their own, in their order."""
        return list(self._parts.blocks)

    def blocks_of(self, stack: str) -> list[TransformerBlock]:
        """Those of one of its stacks, by its name."""
        return list(getattr(self._parts, stack, self._parts).blocks)

    def _describe(self, config, layers, gradient_checkpointing, reference_config, dtype) -> None:
        """Takes down what the model was made of, once the functional model exists."""
        self.config = config
        self.gradient_checkpointing = gradient_checkpointing
        self.reference_config = reference_config
        self.dtype_policy = keras.dtype_policies.get(dtype or keras.config.dtype_policy())
        self._parts = layers

    @property
    def token_embedding(self) -> TokenEmbedding:
        """The token table, which a language-model head reads in reverse."""
        return self._parts.token_embedding

    @property
    def prompt_length(self) -> int:
        """P, the embeddings in front of every text (`layers.prompt`); 0 without any."""
        prompt = self.token_embedding.adapter
        return 0 if prompt is None else prompt.length

    @property
    def prefix_length(self) -> int:
        """P, the keys and values in front of every text (`layers.prefix`); 0 without any."""
        attention = self.blocks[-1].self_attention  # of a decoder, which stands behind its encoder
        return 0 if attention is None or attention.adapter is None else attention.adapter.length

    @property
    def longest_text(self) -> int:
        """The tokens that a text may have: the model's positions but those of a prompt or prefix."""
        return self.config.max_sequence_length - self.prompt_length - self.prefix_length

    @property
    def longest_cached(self) -> int:
        """The tokens that a text may have while its keys are kept, for the next ones to be read by."""
        return self.config.max_cached_length - self.prompt_length - self.prefix_length

    def prompted(self, inputs: dict) -> dict:
        """A batch with the prompt in front, where there is one: dict of int32 [B, S] -> [B, P + S]."""
        # Where tokens see later ones, a prompt is a text's beginning like any other.
        mask = SEEN_BY_ALL if self.stack_name == "decoder" and self.stack.causal else 1
        return with_prompt(inputs, self.prompt_length, mask) if self.prompt_length else inputs

    def call(self, inputs, training=None, mask=None):
        graph_form = writing_in_force()
        if graph_form is None:
            with with_prompt_in_front(self.prompt_length > 0):
                outputs = super().call(self.prompted(inputs), training=training, mask=mask)
        else:
            outputs = self.forward(self.prompted({name: inputs[name] for name in self.input}), graph_form)
            outputs = {name: outputs[name] for name in self.output}
        if not self.prompt_length:
            return outputs
        return {name: x[:, self.prompt_length :] if len(x.shape) == 3 else x for name, x in outputs.items()}

    def make_inputs(self) -> dict:
        """New symbolic inputs of the model: int32 [B, S] by name."""
        return {name: keras.Input((None,), dtype="int32", name=name) for name in self.input}

    def get_config(self):
        refuse_legacy()
        return {
            "config": self.config.to_dict(),
            "gradient_checkpointing": self.gradient_checkpointing,
            "reference_config": self.reference_config,
            "dtype": keras.dtype_policies.serialize(self.dtype_policy),
            "name": self.name,
            "trainable": self.trainable,
            **describe_adapters(self),
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        config = dict(config)
        config["dtype"] = keras.dtype_policies.deserialize(config["dtype"])
        described = collect_adapters(config)
        return restore_adapters(cls(**config), described)
