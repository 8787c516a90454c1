"""The BERT-like encoder as a Keras functional model."""

from __future__ import annotations

from typing import NamedTuple

import keras
from keras import ops

from tfxformer.arguments.keywords import refuse_unknown
from tfxformer.layers import (
    DEFAULT,
    ConstantSegmentEmbedding,
    Dense,
    Dropout,
    EmbeddingConvolution,
    GraphForm,
    LayerNormalization,
    PositionEmbedding,
    TokenEmbedding,
    TransformerBlock,
)
from tfxformer.layers.attention.masks import hidden_bias, row_slots
from tfxformer.layers.embeddings import HiddenToken, beside_neighbours
from tfxformer.layers.quantization.equalization import equalized
from tfxformer.models import parts
from tfxformer.models.backbone import Backbone
from tfxformer.models.config import TransformerConfig
from tfxformer.models.config.computed import check_switches
from tfxformer.models.config.transformer import MEAN_OF_LOGITS
from tfxformer.models.parts import PositionLayers, initializer, table_initializer
from tfxformer.models.pooling import chosen_token, gather_positions, mean_vector, scatter_positions


class EncoderLayers(NamedTuple):
    """The layers of an encoder; None where its config has no such part."""

    token_embedding: TokenEmbedding
    position_embedding: PositionEmbedding | None
    positions: PositionLayers
    segment_embedding: keras.layers.Layer | None
    task_embedding: ConstantSegmentEmbedding | None
    embedding_norm: LayerNormalization | None
    embedding_dropout: Dropout
    embedding_projection: Dense | None
    blocks: tuple[TransformerBlock, ...]
    convolution: EmbeddingConvolution | None
    final_norm: LayerNormalization | None
    output_projection: Dense | None
    pooler: Dense | None
    hidden_token: HiddenToken | None


TABLES = ("token_embedding", "position_embedding", "segment_embedding")


def make_layers(
    config: TransformerConfig, gradient_checkpointing: bool = False, dtype=None, tables: EncoderLayers | None = None
) -> EncoderLayers:
    """The layers of `config`; their names are the first part of every variable's path.

    `tables` gives the embeddings of another encoder, of the same sizes, to read in place of new ones.
    """
    stack, size = config.encoder, config.table_size
    size_of_sum = stack.hidden_size if config.embedding_projection_first else size

    def named(name):
        return parts.named(config, "encoder", name)

    def dense(name, width=stack.hidden_size, activation=None, use_bias=True):
        kernel, name = initializer(config), named(name)
        return Dense(width, activation=activation, use_bias=use_bias, kernel_initializer=kernel, dtype=dtype, name=name)

    segment, position = segment_embedding(config, size_of_sum, dtype), None
    token = parts.token_embedding(config, dtype, config.source_vocabulary_size is not None)
    if stack.has_position_table:
        position = PositionEmbedding(
            stack.max_positions,
            size_of_sum,
            stack.position_mode,
            config.padding_id,
            stack.position_offset,
            initializer=table_initializer(config),
            table=stack.position_table,
            dtype=dtype,
            name=named("position_embedding"),
        )
    bias = config.embedding_projection_bias
    layers = EncoderLayers(
        token_embedding=token,
        position_embedding=position,
        positions=parts.position_layers(config, "encoder", dtype),
        segment_embedding=segment,
        task_embedding=task_embedding(config, dtype),
        embedding_norm=parts.norm(stack, dtype, named("embedding_norm")) if stack.norm.embedding else None,
        embedding_dropout=Dropout(stack.embedding_dropout_rate, dtype=dtype, name=named("embedding_dropout")),
        embedding_projection=dense("embedding_projection", use_bias=bias) if config.has_embedding_projection else None,
        blocks=parts.blocks(config, "encoder", gradient_checkpointing, dtype),
        convolution=parts.convolution(config, dtype) if stack.embedding_convolution is not None else None,
        final_norm=parts.norm(stack, dtype, named("final_norm")) if stack.norm.final else None,
        output_projection=dense("output_projection", size, use_bias=bias) if config.output_projection else None,
        pooler=dense("pooler", activation="tanh") if config.heads.pooler else None,
        hidden_token=parts.hidden_token(config, dtype) if config.hidden_token else None,
    )
    return layers if tables is None else layers._replace(**{name: getattr(tables, name) for name in TABLES})


def segment_embedding(config: TransformerConfig, size: int, dtype=None):
    """What is added to tokens by their segments, `size` wide; None where there are none, or attention compares them."""
    if config.token_types == 0 or config.encoder.compares_segments:
        return None
    kernel, name = table_initializer(config), "segment_embedding"
    if config.token_types == 1:
        return ConstantSegmentEmbedding(kernel, dtype=dtype, name=name)
    return TokenEmbedding(config.token_types, size, kernel, dtype=dtype, name=name)


def task_embedding(config: TransformerConfig, dtype=None) -> ConstantSegmentEmbedding | None:
    """What is added to tokens for the task, the first of several; None where there are none."""
    if config.task_types == 0:
        return None
    return ConstantSegmentEmbedding(table_initializer(config), config.task_types, dtype=dtype, name="task_embedding")


def make_inputs(config: TransformerConfig) -> dict:
    """The symbolic inputs of a model of `config`: int32 [B, S] by name."""
    names = ["token_ids", "padding_mask"] + (["segment_ids"] if config.token_types > 1 else [])
    return {name: keras.Input((None,), dtype="int32", name=name) for name in names}


def embed(config, layers: EncoderLayers, inputs: dict, graph_form: GraphForm = DEFAULT):
    """Token, position and segment embeddings: ids int32 [B, S] -> [B, S, D]."""
    x = parts.embed_scaled(layers.token_embedding, config.encoder, inputs["token_ids"], graph_form)
    first = layers.embedding_projection is not None and config.embedding_projection_first
    if first:
        x = layers.embedding_projection(beside_neighbours(x) if config.embedding_neighbours else x)
    if layers.position_embedding is not None:
        x = x + layers.position_embedding(inputs["token_ids"])
    if isinstance(layers.segment_embedding, ConstantSegmentEmbedding):
        x = layers.segment_embedding(x)
    elif layers.segment_embedding is not None:
        x = x + layers.segment_embedding(inputs["segment_ids"], graph_form=graph_form)
    if layers.task_embedding is not None:
        x = layers.task_embedding(x)
    if layers.embedding_norm is not None:
        x = layers.embedding_norm(x, graph_form=graph_form)
    x = layers.embedding_dropout(x)
    return x if first or layers.embedding_projection is None else layers.embedding_projection(x)


def encode(config, layers: EncoderLayers, inputs: dict, graph_form: GraphForm = DEFAULT, first_only=False) -> dict:
    """The graph of an encoder, from ids to outputs.

    Args:
        config: TransformerConfig.
        layers: the layers made from it.
        inputs: dict of int32 [B, S]: token_ids, padding_mask, and segment_ids where the config has token types.
        graph_form: how the graph is written.
        first_only: bool, the last block computes the first position alone.

    Returns:
        dict: sequence_output [B, S, D] (with `first_only` [B, 1, D]), hidden_states (tuple: the embeddings, then
        each block's output) and, where there is a pooler, pooled_output [B, D].
    """
    stack, x = config.encoder, embed(config, layers, inputs, graph_form)
    visibility = parts.unpacked_sequence(inputs["padding_mask"], any(kind.causal for kind in stack.attention.values()))
    seen = parts.visibilities(stack, layers.positions, visibility, False, graph_form, layers.blocks[0].compute_dtype)
    embeddings, hidden_states, order = x, [x], stack.block_order
    common = {"graph_form": graph_form, **({"segments": inputs["segment_ids"]} if stack.compares_segments else {})}
    for step, index in enumerate(order):
        last = step == len(order) - 1
        arguments = {**seen[stack.kind_of(index)].arguments(), **layers.positions.of_block(index, visibility)}
        first = first_only and last
        x = layers.blocks[index](x, first_only=first, **arguments, **common)
        if step == 0 and layers.convolution is not None:
            x = layers.convolution(x, embeddings, inputs["padding_mask"], first_only=first, graph_form=graph_form)
        hidden_states.append(x)
    if layers.final_norm is not None:
        x = layers.final_norm(x, graph_form=graph_form)
    if layers.output_projection is not None:
        x = layers.output_projection(x)
    outputs = {"sequence_output": x, "hidden_states": tuple(hidden_states)}
    if layers.pooler is not None:
        outputs["pooled_output"] = equalized(x[:, 0], (layers.pooler,), graph_form)(layers.pooler)
    return outputs


def encode_two_streams(config, layers: EncoderLayers, inputs: dict, positions, ranks, hidden_id: int):
    """What an encoder says of some tokens when they are seen one after another, in any order.

    A token of rank 0 is seen by all. One of a higher rank is seen by those of its rank or more in the stream of
    contents; in the stream of queries, which knows its place but not its token, a position sees lower ranks only.
    Both streams go through the same layers (Yang et al., 2019, arXiv:1906.08237, section 2.3).

    Args:
        config, layers, inputs: as `encode` has them.
        positions: int32 [B, P], the places that queries stand at, -1 for none; the others have rank 0.
        ranks: int32 [B, P], from 1 on, the order in which they are seen.
        hidden_id: int, the token whose embedding a query begins with.

    Returns:
        [B, P, D], what the queries end as.
    """
    stack = config.encoder
    sees_otherwise = (kind.window is not None or kind.causal or kind.scores for kind in stack.attention.values())
    if any(sees_otherwise) or stack.embedding_convolution or stack.bottleneck or config.embedding_neighbours:
        raise ValueError(
            "Two streams see tokens in an order of their own: the encoder must have no convolution, no bottleneck, no "
            "embeddings beside their neighbours, and attention "
            f"without a window and scores of positions that is not causal; it is {stack.attention}."
        )
    token_ids, dtype = inputs["token_ids"], layers.blocks[0].compute_dtype
    content = embed(config, layers, inputs)
    hidden = embed(config, layers, {**inputs, "token_ids": ops.full_like(token_ids, hidden_id)})
    query = gather_positions(hidden, positions)
    rank = scatter_positions(ranks, positions, ops.shape(token_ids)[1])  # of every token: [B, S]
    real = ops.cast(ops.expand_dims(inputs["padding_mask"], 1), "bool")  # [B, 1, S]

    def bias(visible):
        return hidden_bias(ops.logical_and(visible, real), DEFAULT.mask_value, dtype)

    seen, asking = ops.expand_dims(rank, 1), ops.expand_dims(ranks, 2)  # [B, 1, S] and [B, P, 1]
    content_bias, query_bias = bias(seen <= ops.expand_dims(rank, 2)), bias(seen < asking)
    slots = ops.expand_dims(row_slots(inputs["padding_mask"]), 0)
    turns = {
        kind: (None, None) if layer is None else (layer(ops.maximum(positions, 0)), layer(slots))
        for kind, layer in layers.positions.rotary.items()
    }
    for index in stack.block_order:
        block, (query_turn, content_turn) = layers.blocks[index], turns[stack.kind_of(index)]
        query = block(query, bias=query_bias, attended=content, rotary=query_turn, attended_rotary=content_turn)
        content = block(content, bias=content_bias, rotary=content_turn)
    query = query if layers.final_norm is None else layers.final_norm(query)
    return query if layers.output_projection is None else layers.output_projection(query)


@keras.saving.register_keras_serializable("tfxformer")
class Encoder(Backbone):
    """A BERT-like encoder, functional, made from a config.

    Args:
        config: TransformerConfig or its dict.
        gradient_checkpointing: bool, recompute blocks in the backward pass: less memory, more time.
        reference_config: dict or None, the `config.json` it was loaded from, passed through when saved again.
        dtype: dtype policy of the layers, such as "mixed_bfloat16"; None for Keras' global one.
        tables: `Encoder` of the same vocabulary, widths of tables and positions whose embeddings this one shares; it
            is no part of the config: who shares tables makes both.

    Inputs: dict of int32 [B, S] `token_ids`, `padding_mask`, and `segment_ids` where `config.token_types` > 1.
    Outputs: dict of `sequence_output` [B, S, D] and, with a pooler, `pooled_output` [B, D].
    """

    stack_name = "encoder"

    def __init__(self, config, gradient_checkpointing=False, reference_config=None, dtype=None, tables=None, **kwargs):
        config = TransformerConfig.from_dict(config) if isinstance(config, dict) else config
        check_switches(config, "Encoder")
        refuse_unknown(kwargs, self.keras_keywords, type(self).__name__)
        # === Layers ===
        layers = make_layers(config, gradient_checkpointing, dtype, tables and tables._parts)

        # === Functional model ===
        inputs = make_inputs(config)
        outputs = encode(config, layers, inputs)
        outputs.pop("hidden_states")
        super().__init__(inputs=inputs, outputs=outputs, **kwargs)

        # === Config ===
        self._describe(config, layers, gradient_checkpointing, reference_config, dtype)
        if layers.hidden_token is not None:
            self.hidden_token = layers.hidden_token
            self.hidden_token.trainable = False  # no output reads it, so it has no gradient

    def forward(self, inputs: dict, graph_form: GraphForm = DEFAULT, first_only: bool = False) -> dict:
        """The outputs (and `hidden_states`) of the same layers, written as `graph_form` says; see `encode`."""
        return encode(self.config, self._parts, inputs, graph_form, first_only)

    def two_streams(self, inputs: dict, positions, ranks, hidden_id: int):
        """Outputs of hidden positions [B, P, D], seen one after another; see `encode_two_streams`."""
        return encode_two_streams(self.config, self._parts, inputs, positions, ranks, hidden_id)

    def summary_vector(self, inputs: dict, graph_form: GraphForm = DEFAULT):
        """What a classifier reads of a text: the pooled output, its first or last token, or the mean of all, [B, D]."""
        heads = self.config.heads
        if heads.classifier_pooling == MEAN_OF_LOGITS:
            raise ValueError("A classifier of this model reads no vector, but each token: tasks.TextClassifier does.")
        if heads.classifier_pooling in ("mean", "last"):
            x, real = self.forward(inputs, graph_form)["sequence_output"], ops.not_equal(inputs["padding_mask"], 0)
            if heads.classifier_pooling == "last":
                return ops.sum(x * ops.cast(chosen_token(real, first=False), x.dtype), axis=1)
            return ops.cast(mean_vector(x, real), x.dtype)
        outputs = self.forward(inputs, graph_form, first_only=True)
        if heads.classifier_activation is None and heads.classifier_reads_pooler:
            return outputs["pooled_output"]
        return outputs["sequence_output"][:, 0]
