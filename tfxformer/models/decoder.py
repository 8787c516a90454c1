"""The GPT-like decoder as a Keras functional model, and its cached step on the same layers."""

from __future__ import annotations

from typing import NamedTuple

import keras
from keras import ops

from tfxformer.arguments.keywords import named_inputs, refuse_unknown
from tfxformer.layers import (
    DEFAULT,
    Cache,
    Dense,
    Dropout,
    GraphForm,
    PositionEmbedding,
    Ring,
    TokenEmbedding,
    TransformerBlock,
    empty_cache,
)
from tfxformer.layers.attention.masks import cached_visibility, counted_positions, padding_bias
from tfxformer.models import parts
from tfxformer.models.backbone import Backbone
from tfxformer.models.config import TransformerConfig
from tfxformer.models.config.computed import check_switches
from tfxformer.models.parts import PositionLayers, Visibility, initializer, table_initializer, whole_sequence
from tfxformer.models.pooling import chosen_token


class DecoderLayers(NamedTuple):
    """The layers of a decoder; None where its config has no such part."""

    token_embedding: TokenEmbedding
    position_embedding: PositionEmbedding | None
    positions: PositionLayers
    embedding_norm: keras.layers.Layer | None
    embedding_dropout: Dropout
    embedding_projection: Dense | None
    blocks: tuple[TransformerBlock, ...]
    final_norm: keras.layers.Layer | None
    output_projection: Dense | None


def make_layers(
    config: TransformerConfig, gradient_checkpointing: bool = False, dtype=None, token_embedding=None
) -> DecoderLayers:
    """The layers of `config`; their names are the first part of every variable's path.

    `token_embedding` is the table of an encoder, to read in place of a new one; None makes a new one.
    """
    stack, size = config.decoder, config.table_size

    def named(name):
        return parts.named(config, "decoder", name)

    def dense(name, width):
        bias, kernel = config.embedding_projection_bias, initializer(config)
        return Dense(width, use_bias=bias, kernel_initializer=kernel, dtype=dtype, name=named(name))

    token, position = token_embedding or parts.token_embedding(config, dtype), None
    if stack.has_position_table:
        position = PositionEmbedding(
            stack.max_positions,
            stack.hidden_size,
            padding_id=config.padding_id,
            offset=stack.position_offset,
            initializer=table_initializer(config),
            table=stack.position_table,
            dtype=dtype,
            name=named("position_embedding"),
        )
    return DecoderLayers(
        token_embedding=token,
        position_embedding=position,
        positions=parts.position_layers(config, "decoder", dtype),
        embedding_norm=parts.norm(stack, dtype, named("embedding_norm")) if stack.norm.embedding else None,
        embedding_dropout=Dropout(stack.embedding_dropout_rate, dtype=dtype, name=named("embedding_dropout")),
        embedding_projection=(
            dense("embedding_projection", stack.hidden_size) if config.has_embedding_projection else None
        ),
        blocks=parts.blocks(config, "decoder", gradient_checkpointing, dtype),
        final_norm=parts.norm(stack, dtype, named("final_norm")) if stack.norm.final else None,
        output_projection=dense("output_projection", size) if config.output_projection else None,
    )


def check_causal(config: TransformerConfig) -> None:
    """Refuses what goes token by token for a decoder whose tokens see later ones.

    Raises:
        ValueError: saying what such a model is for.
    """
    if not config.decoder.causal:
        raise ValueError(
            "This decoder is bidirectional (causal=False, is_causal=false in config.json): its tokens see later ones, "
            "so it predicts no next token and has no cache; use tasks.TextEmbedder or tasks.TextClassifier."
        )


def embed(config, layers: DecoderLayers, token_ids, positions, graph_form: GraphForm = DEFAULT):
    """Token and learned position embeddings: ids int32 [B, S] -> [B, S, D]."""
    x = parts.embed_scaled(layers.token_embedding, config.decoder, token_ids, graph_form)
    if layers.embedding_projection is not None:
        x = layers.embedding_projection(x)
    first = layers.embedding_norm is not None and not config.decoder.norm.positions
    if first:
        x = layers.embedding_norm(x, graph_form=graph_form)
    if layers.position_embedding is not None:
        x = x + layers.position_embedding(token_ids, positions=positions, graph_form=graph_form)
    if layers.embedding_norm is not None and not first:
        x = layers.embedding_norm(x, graph_form=graph_form)
    return layers.embedding_dropout(x)


class Source(NamedTuple):
    """What cross-attention reads: an encoder's output [B, T', D], None on a cache, and its padding_mask [B, T']."""

    output: object
    padding_mask: object


def run(
    config,
    layers: DecoderLayers,
    token_ids,
    visibility: Visibility,
    cache: Cache | None,
    graph_form: GraphForm,
    source: Source | None = None,
) -> dict:
    """The graph from ids to outputs, of a whole sequence or of new tokens on a cache.

    Returns:
        dict: sequence_output [B, S, table width], hidden_states (tuple: the embeddings, then each block's output),
        and with a cache the new `cache`.
    """
    stack, x = config.decoder, embed(config, layers, token_ids, visibility.positions, graph_form)
    rings = {} if cache is None else ring_slots(stack, cache)
    dtype = layers.blocks[0].compute_dtype
    seen = parts.visibilities(stack, layers.positions, visibility, True, graph_form, dtype, rings)
    common, hidden_states = {"graph_form": graph_form}, [x]
    kept = None if cache is None else {"self_attention": iter(cache.self_attention), "states": iter(cache.states)}
    new = {"self_attention": [], "states": []}
    if source is not None:
        bias = padding_bias(source.padding_mask, graph_form.mask_value, layers.blocks[0].compute_dtype)
        common |= {"source": source.output, "source_bias": bias}
        if cache is None:
            common["source_padding_mask"] = source.padding_mask
    for index, block in enumerate(layers.blocks):
        own = layers.positions.of_block(index, visibility)
        arguments = {**seen[stack.kind_of(index)].arguments(), **own, **common}
        if cache is not None and source is not None:
            arguments["source_cache"] = cache.cross_attention[index]
        if cache is None:
            x = block(x, **arguments)
        else:
            part = "self_attention" if block.mixer is None else "states"
            x, entry = block(x, cache=next(kept[part]), position=visibility.query_slots[0], **arguments)
            new[part].append(entry)
        hidden_states.append(x)
    if layers.final_norm is not None:
        x = layers.final_norm(x, graph_form=graph_form)
    if layers.output_projection is not None:
        x = layers.output_projection(x)
    outputs = {"sequence_output": x, "hidden_states": tuple(hidden_states)}
    if cache is None:
        return outputs
    return {**outputs, "cache": cache._replace(**{part: tuple(entries) for part, entries in new.items()})}


RING_PAYS = 0.6  # of all slots; a ring of more is not worth the arithmetic of its positions


def attention_kinds(stack) -> list[str]:
    """The kind of each layer of attention of a stack, other mixers left out."""
    kinds = [stack.kind_of(index) for index in range(stack.num_blocks)]
    return [kind for kind in kinds if kind in stack.attention]


def window_slots(stack, length: int, longest_step: int) -> dict[int, int]:
    """R of the layers whose window is so small that a ring pays, by their index among those of attention."""
    found = {}
    for index, name in enumerate(attention_kinds(stack)):
        kind = stack.attention[name]
        # Scores of distances are computed for the slots in their order, which those of a ring are not in.
        if kind.window is not None and kind.scores is None:
            slots = kind.window + longest_step - 1
            if slots <= RING_PAYS * length:
                found[index] = slots
    return found


def ring_slots(stack, cache: Cache) -> dict[str, int]:
    """R of the kinds of attention whose layers have rings in a cache."""
    entries = zip(attention_kinds(stack), cache.self_attention, strict=True)
    return {kind: entry.keys.shape[2] for kind, entry in entries if isinstance(entry, Ring)}


def check_rings(stack, inputs: dict, cache: Cache) -> None:
    """Refuses a step that rings cannot take: with padding in the cache, or more tokens than they were made for.

    Raises:
        ValueError: saying which, and the way out.
    """
    rings = ring_slots(stack, cache)
    if rings and "cache_mask" in inputs:
        raise ValueError(
            "This cache keeps the windows of its layers only (new_cache with longest_step), and slots that are written "
            "again have no cache_mask: make a cache without longest_step for rows with padding."
        )
    tokens = inputs["token_ids"].shape[1]
    for kind, slots in rings.items():
        most = slots - stack.attention[kind].window + 1
        if tokens is not None and tokens > most:
            raise ValueError(
                f"{tokens} new tokens, but this cache was made for steps of {most}: give them in parts, or a larger "
                "longest_step to new_cache."
            )


def step_inputs(inputs: dict, owner: str) -> dict:
    """What a step takes, by name; ValueError for what is missing or not read."""
    return named_inputs(inputs, ("token_ids", "cache_positions"), ("cache_mask", "positions"), owner)


def checked_slots(inputs: dict, cache: Cache, slots: int | None) -> int:
    """How many slots of the cache a step reads; ValueError where its new tokens are more."""
    tokens, slots = inputs["token_ids"].shape[1], cache.length if slots is None else slots
    if tokens is not None and tokens > slots:
        raise ValueError(
            f"{tokens} new tokens do not fit into a cache of {slots} slots: give a longer cache "
            "(new_cache(batch_size, length)), or fewer tokens."
        )
    return slots


def new_tokens(inputs: dict, cache_length: int) -> Visibility:
    """What new tokens see on the first slots of a cache; `inputs` as `Decoder.step` takes them."""
    slots, mask = inputs["cache_positions"], inputs.get("cache_mask")
    mask = None if mask is None else mask[:, :cache_length]
    key_slots = ops.arange(cache_length)
    if mask is None:
        query_counts, key_counts = ops.expand_dims(slots, 0), ops.expand_dims(key_slots, 0)
    else:
        key_counts = counted_positions(mask)
        query_counts = ops.take(key_counts, slots, axis=1)
    positions = inputs.get("positions")
    visible = cached_visibility(slots, cache_length, mask)
    own = None if mask is None else ops.take(mask, slots, axis=1)
    return Visibility(
        query_counts if positions is None else positions, None, visible, slots, key_slots, query_counts, key_counts, own
    )


@keras.saving.register_keras_serializable("tfxformer")
class Decoder(Backbone):
    """A GPT-like decoder, functional, made from a config.

    Args:
        config: TransformerConfig or its dict.
        gradient_checkpointing: bool, recompute blocks in the backward pass: less memory, more time.
        reference_config: dict or None, the `config.json` it was loaded from, passed through when saved again.
        dtype: dtype policy of the layers, such as "mixed_bfloat16"; None for Keras' global one.

    Inputs: dict of int32 [B, S] `token_ids` and `padding_mask` (0 at padding on either side, 1 at real tokens; where
    documents are packed into one row, each with a number of its own, they do not see each other).
    Outputs: dict of `sequence_output` [B, S, D] (the width of the token table, where it has another).
    """

    stack_name = "decoder"

    def __init__(self, config, gradient_checkpointing=False, reference_config=None, dtype=None, **kwargs):
        config = TransformerConfig.from_dict(config) if isinstance(config, dict) else config
        check_switches(config, "Decoder")
        refuse_unknown(kwargs, self.keras_keywords, type(self).__name__)
        # === Layers ===
        layers = make_layers(config, gradient_checkpointing, dtype)

        # === Functional model ===
        inputs = {name: keras.Input((None,), dtype="int32", name=name) for name in ("token_ids", "padding_mask")}
        visibility = whole_sequence(inputs["padding_mask"])
        outputs = run(config, layers, inputs["token_ids"], visibility, None, DEFAULT)
        super().__init__(inputs=inputs, outputs={"sequence_output": outputs["sequence_output"]}, **kwargs)

        # === Config ===
        self._describe(config, layers, gradient_checkpointing, reference_config, dtype)

    def forward(self, inputs: dict, graph_form: GraphForm = DEFAULT, first_only: bool = False) -> dict:
        """The outputs (and `hidden_states`) of the same layers, written as `graph_form` says; see `run`.

        `first_only` is an encoder's shortcut for those who read the first token alone; a decoder has none.
        """
        visibility = whole_sequence(inputs["padding_mask"])
        return run(self.config, self._parts, inputs["token_ids"], visibility, None, graph_form)

    def summary_vector(self, inputs: dict, graph_form: GraphForm = DEFAULT):
        """What a classifier reads of a text: the last real token, [B, D]."""
        x = self.forward(inputs, graph_form)["sequence_output"]
        last = chosen_token(ops.not_equal(inputs["padding_mask"], 0), first=False)
        return ops.sum(x * ops.cast(last, x.dtype), axis=1)

    def new_cache(self, batch_size: int, length: int, longest_step: int | None = None) -> Cache:
        """An empty cache for `length` tokens in each row, in the model's compute dtype.

        Args:
            batch_size: int B.
            length: int T.
            longest_step: int, the most tokens of a `step`: a layer that sees a window keeps only what such a step
                reads of it, window + longest_step - 1 slots (`layers.attention.cache.Ring`), where that is well below
                `length`. Steps on such a cache take no `cache_mask`. None for all slots in all layers.

        Raises:
            ValueError: the model is not causal.
        """
        check_causal(self.config)
        stack = self.config.decoder
        dtype = self.dtype_policy.compute_dtype
        mixers = [block.mixer for block in self.blocks if block.mixer is not None]
        layers = stack.num_layers - len(mixers)
        rings = {} if longest_step is None else window_slots(stack, length, longest_step)
        cache = empty_cache(batch_size, length, layers, stack.key_value_heads, stack.head_width, dtype, rings)
        return cache._replace(states=tuple(mixer.empty_state(batch_size) for mixer in mixers))

    def step(self, inputs: dict, cache: Cache, graph_form: GraphForm = DEFAULT, slots: int | None = None) -> dict:
        """New tokens on a cache, one graph over the same layers: trace it with tf.function, or in a layer of your own.

        Args:
            inputs: dict of int32: `token_ids` [B, S]; `cache_positions` [S], the slots they are written to, one after
                another and all below T; optional `cache_mask` [B, T], 0 at slots that hold padding and 1 at those of
                the new tokens; optional `positions` [B, S], their positions (default: the real tokens before them by
                `cache_mask`, without one the slots).
            cache: `Cache` of T slots.
            graph_form: how the graph is written.
            slots: int, how many of the first slots are read, those of the new tokens among them: less to read while
                a long cache is nearly empty. None for all.

        Returns:
            dict: sequence_output [B, S, D], hidden_states, and the new `cache`.

        Raises:
            ValueError: for more new tokens than the cache has slots; the write would overwrite the last ones. For a
                stack that is not causal, and for inputs that are missing or not read, by name.
        """
        check_causal(self.config)
        inputs = step_inputs(inputs, "Decoder.step")
        slots = checked_slots(inputs, cache, slots)
        check_rings(self.config.decoder, inputs, cache)
        return run(self.config, self._parts, inputs["token_ids"], new_tokens(inputs, slots), cache, graph_form)
