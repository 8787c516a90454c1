"""The T5-like encoder and decoder as one Keras functional model, and its cached step on the same layers."""

from __future__ import annotations

from typing import NamedTuple

import keras
from keras import ops

from tfxformer.arguments.keywords import named_inputs, refuse_unknown
from tfxformer.layers import DEFAULT, Cache, GraphForm, TokenEmbedding, TransformerBlock, empty_cache
from tfxformer.models import decoder, encoder
from tfxformer.models.backbone import Backbone
from tfxformer.models.config import TransformerConfig
from tfxformer.models.config.computed import check_switches
from tfxformer.models.decoder import DecoderLayers, Source, new_tokens
from tfxformer.models.encoder import EncoderLayers
from tfxformer.models.parts import whole_sequence
from tfxformer.models.pooling import chosen_token

SOURCE_INPUTS = ("encoder_token_ids", "encoder_padding_mask")
INPUTS = (*SOURCE_INPUTS, "decoder_token_ids", "decoder_padding_mask")
REFERENCE_NAMES = dict(
    zip(("input_ids", "attention_mask", "decoder_input_ids", "decoder_attention_mask"), INPUTS, strict=True)
)


class EncoderDecoderLayers(NamedTuple):
    """The layers of both stacks, which read one token table, or each its own."""

    encoder: EncoderLayers
    decoder: DecoderLayers

    @property
    def token_embedding(self) -> TokenEmbedding:
        """The table that logits come from: that of both, or the decoder's."""
        return self.decoder.token_embedding

    @property
    def blocks(self) -> tuple[TransformerBlock, ...]:
        """The encoder's blocks, then the decoder's."""
        return self.encoder.blocks + self.decoder.blocks


def make_layers(config: TransformerConfig, gradient_checkpointing: bool = False, dtype=None) -> EncoderDecoderLayers:
    """The layers of `config`; their names begin with that of their stack."""
    encoding = encoder.make_layers(config, gradient_checkpointing, dtype)
    shared = encoding.token_embedding if config.source_vocabulary_size is None else None
    return EncoderDecoderLayers(encoding, decoder.make_layers(config, gradient_checkpointing, dtype, shared))


def encode(config, layers: EncoderDecoderLayers, inputs: dict, graph_form: GraphForm = DEFAULT) -> dict:
    """The encoder's outputs (`encoder.encode`) for the inputs that are its own, as the whole model names them."""
    ours = {name: inputs[f"encoder_{name}"] for name in ("token_ids", "padding_mask")}
    return encoder.encode(config, layers.encoder, ours, graph_form)


def run(config, layers: EncoderDecoderLayers, inputs: dict, graph_form: GraphForm = DEFAULT) -> dict:
    """The graph of both stacks, from ids to outputs.

    Returns:
        dict: sequence_output [B, S, D] and hidden_states of the decoder; encoder_output [B, T', D] and
        encoder_hidden_states.
    """
    encoded = encode(config, layers, inputs, graph_form)
    source = Source(encoded["sequence_output"], inputs["encoder_padding_mask"])
    visibility = whole_sequence(inputs["decoder_padding_mask"])
    outputs = decoder.run(
        config, layers.decoder, inputs["decoder_token_ids"], visibility, None, graph_form, source=source
    )
    return {
        **outputs,
        "encoder_output": encoded["sequence_output"],
        "encoder_hidden_states": encoded["hidden_states"],
    }


@keras.saving.register_keras_serializable("tfxformer")
class EncoderDecoder(Backbone):
    """A T5-like model, functional, made from a config with both stacks: the decoder attends to the encoder's output.

    Args:
        config: TransformerConfig or its dict.
        gradient_checkpointing: bool, recompute blocks in the backward pass: less memory, more time.
        reference_config: dict or None, the `config.json` it was loaded from, passed through when saved again.
        dtype: dtype policy of the layers, such as "mixed_bfloat16"; None for Keras' global one.

    Inputs: dict of int32 `encoder_token_ids` and `encoder_padding_mask` [B, T'], the source; `decoder_token_ids` and
    `decoder_padding_mask` [B, S], what has been written so far, behind a start token. Masks are 0 at padding and 1 at
    real tokens. transformers' `input_ids`, `attention_mask`, `decoder_input_ids` and `decoder_attention_mask` are
    understood.
    Outputs: dict of `sequence_output` [B, S, D], the decoder's, and `encoder_output` [B, T', D].
    """

    stack_name = "decoder"

    def __init__(self, config, gradient_checkpointing=False, reference_config=None, dtype=None, **kwargs):
        config = TransformerConfig.from_dict(config) if isinstance(config, dict) else config
        check_switches(config, "EncoderDecoder")
        refuse_unknown(kwargs, self.keras_keywords, type(self).__name__)
        # === Layers ===
        layers = make_layers(config, gradient_checkpointing, dtype)

        # === Functional model ===
        inputs = {name: keras.Input((None,), dtype="int32", name=name) for name in INPUTS}
        outputs = run(config, layers, inputs)
        outputs = {name: outputs[name] for name in ("sequence_output", "encoder_output")}
        super().__init__(inputs=inputs, outputs=outputs, **kwargs)

        # === Config ===
        self._describe(config, layers, gradient_checkpointing, reference_config, dtype)

    def named_inputs(self, batch) -> dict:
        """A batch by our names; ValueError names what is missing or not read."""
        return named_inputs(batch, self.input, (), type(self).__name__, REFERENCE_NAMES)

    def forward(self, inputs: dict, graph_form: GraphForm = DEFAULT) -> dict:
        """The outputs (and hidden states) of the same layers, written as `graph_form` says; see `run`."""
        return run(self.config, self._parts, inputs, graph_form)

    def encode(self, inputs: dict, graph_form: GraphForm = DEFAULT) -> dict:
        """The encoder alone.

        Args:
            inputs: dict of int32 [B, T'] `encoder_token_ids` and `encoder_padding_mask`.
            graph_form: how the graph is written.

        Returns:
            dict: sequence_output [B, T', D] and hidden_states.
        """
        inputs = named_inputs(inputs, SOURCE_INPUTS, (), "EncoderDecoder.encode", REFERENCE_NAMES)
        return encode(self.config, self._parts, inputs, graph_form)

    @property
    def start_id(self) -> int:
        """What the decoder begins with, as config.json says, else the padding."""
        stated = (self.reference_config or {}).get("decoder_start_token_id")
        return self.config.padding_id if stated is None else stated

    def summary_vector(self, inputs: dict, graph_form: GraphForm = DEFAULT):
        """What a classifier reads of a text, [B, D]: the decoder's state at the text's last token, its end.

        Both stacks read the text, the decoder behind its start token (Lewis et al., 2019, arXiv:1910.13461, 3.1). Where
        `heads.classifier_wraps` says so, behind the text's last token, perhaps that of its language; the end is then
        the last token of config.json's `eos_token_id`, and the last of all where there is none.

        Args:
            inputs: dict of int32 [B, S] `token_ids` and `padding_mask`, padded behind.
            graph_form: how the graph is written.

        Raises:
            ValueError: where encoder and decoder have vocabularies of their own.
        """
        if self.config.source_vocabulary_size is not None:
            raise ValueError(
                "This model has a vocabulary for sources and one for targets: its decoder cannot read a text again, as "
                "a classifier needs it."
            )
        ids, mask = inputs["token_ids"], inputs["padding_mask"]
        last = chosen_token(ops.not_equal(mask, 0), first=False)
        start = ops.full_like(ids[:, :1], self.start_id)
        if self.config.heads.classifier_wraps:
            start = ops.sum(ids * ops.cast(last, ids.dtype)[..., 0], axis=1, keepdims=True)
            last = self._last_end(ids, mask)
        written = ops.concatenate([start, ids[:, :-1]], axis=1)
        x = self.forward(dict(zip(INPUTS, (ids, mask, written, mask), strict=True)), graph_form)["sequence_output"]
        return ops.sum(x * ops.cast(last, x.dtype), axis=1)

    def _last_end(self, ids, mask):
        """1 at each row's last end, or at its last token where it has none: [B, S, 1], as `chosen_token` has it."""
        end, real = (self.reference_config or {}).get("eos_token_id"), ops.cast(ops.not_equal(mask, 0), "int32")
        if isinstance(end, int):
            real = real * (1 + ops.cast(ops.equal(ids, end), "int32"))
        return chosen_token(ops.equal(real, ops.max(real, axis=1, keepdims=True)), first=False)

    def new_cache(self, batch_size: int, length: int, source: dict, graph_form: GraphForm = DEFAULT) -> Cache:
        """A cache for `length` tokens in each row, with what every step reads of the source computed once.

        Args:
            batch_size: int B.
            length: int, slots of self-attention.
            source: dict of int32 [B, T'] `encoder_token_ids` and `encoder_padding_mask`.
            graph_form: how the graph is written.
        """
        encoded = self.encode(source, graph_form)["sequence_output"]
        mask = named_inputs(source, SOURCE_INPUTS, (), "EncoderDecoder.new_cache", REFERENCE_NAMES)[
            "encoder_padding_mask"
        ]
        stack, dtype = self.config.decoder, self.dtype_policy.compute_dtype
        cache = empty_cache(batch_size, length, stack.num_layers, stack.key_value_heads, stack.head_width, dtype)
        blocks = self._parts.decoder.blocks
        finished = tuple(block.cross_attention.finished_cache(encoded, graph_form) for block in blocks)
        return Cache(cache.self_attention, finished, (ops.convert_to_tensor(mask, "int32"),))

    def step(self, inputs: dict, cache: Cache, graph_form: GraphForm = DEFAULT, slots: int | None = None) -> dict:
        """New tokens of the decoder on a cache; arguments and result as `Decoder.step` has them."""
        inputs = decoder.step_inputs(inputs, "EncoderDecoder.step")
        slots = decoder.checked_slots(inputs, cache, slots)
        visibility, source = new_tokens(inputs, slots), Source(None, cache.source_mask[0])
        return decoder.run(
            self.config, self._parts.decoder, inputs["token_ids"], visibility, cache, graph_form, source=source
        )
