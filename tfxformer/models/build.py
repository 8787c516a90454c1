"""The model of a config: an encoder, a decoder, or both as one."""

from __future__ import annotations

from tfxformer.models.backbone import Backbone
from tfxformer.models.config import TransformerConfig
from tfxformer.models.config.computed import model_of
from tfxformer.models.decoder import Decoder
from tfxformer.models.encoder import Encoder
from tfxformer.models.encoder_decoder import EncoderDecoder
from tfxformer.models.presets import preset


def make_backbone(config: TransformerConfig, **arguments) -> Backbone:
    """An `Encoder`, a `Decoder` or an `EncoderDecoder`, as the config's stacks say; `arguments` are those of all."""
    models = {"Encoder": Encoder, "Decoder": Decoder, "EncoderDecoder": EncoderDecoder}
    return models[model_of(config)](config, **arguments)


def build(config, *, dtype=None, gradient_checkpointing=False, **changes) -> Backbone:
    """A model with random weights.

    Args:
        config: TransformerConfig, its dict, or the name of a preset ("bert-base", "gpt2", "minilm-l6", ...).
        dtype: dtype policy, such as "mixed_bfloat16".
        gradient_checkpointing: bool, recompute blocks in the backward pass.
        changes: other values of the config; nested ones by path, `encoder__num_layers=2`,
            `encoder__attention__heads=4`. For training from scratch on a GPU give a `vocabulary_size` that is the next
            multiple of 64 (50,304 for GPT-2's 50,257 tokens): its matrix units then read whole tiles, and the ids and
            the tokenizer stay as they are, with some rows that no token has.
    """
    if isinstance(config, str):
        config = preset(config)
    elif isinstance(config, dict):
        config = TransformerConfig.from_dict(config)
    return make_backbone(config.replace(**changes), gradient_checkpointing=gradient_checkpointing, dtype=dtype)
