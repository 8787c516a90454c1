"""The layers that encoders and decoders make of a config in the same way, and what their tokens see.

Shape letters: B batch, S query length, T key length, N query heads, D model width.
"""

from __future__ import annotations

from typing import NamedTuple

import keras
from keras import ops

from tfxformer.layers import (
    EmbeddingConvolution,
    GatedDeltaRule,
    GraphForm,
    RotaryPositions,
    ShortConvolution,
    TokenEmbedding,
    TransformerBlock,
)
from tfxformer.layers.attention.disentangled import DistanceEmbeddings
from tfxformer.layers.attention.masks import (
    MaskPattern,
    causal_visibility,
    document_visibility,
    hidden_bias,
    padding_bias,
    ring_visibility,
    row_slots,
    windowed,
)
from tfxformer.layers.attention.position_scores import PositionScores, make_scores
from tfxformer.layers.attention.positions import positions_seen
from tfxformer.layers.attention.relative_terms import DistanceSinusoids
from tfxformer.layers.blocks.bottleneck import BottleneckBlock
from tfxformer.layers.embeddings import HiddenToken
from tfxformer.layers.normalization import RMS, RMS_NORMS, make_norm
from tfxformer.models.config import AttentionConfig, StackConfig, TransformerConfig
from tfxformer.models.config.transformer import FAN_IN

# ---- initial weights: a new initializer for each variable, one would give everybody the same numbers ----------------


def initializer(config: TransformerConfig, shrink: float = 1.0):
    """That of a kernel; see `TransformerConfig.initializer`. `shrink` multiplies a deviation that hangs on widths."""
    if config.initializer == FAN_IN:
        scale = (config.initializer_range * shrink) ** 2
        return keras.initializers.VarianceScaling(scale, "fan_in", "untruncated_normal")
    return keras.initializers.TruncatedNormal(stddev=config.initializer_range)


def table_initializer(config: TransformerConfig, rank: int | None = None):
    """That of a table of embeddings, whose rows are looked up and not summed; of a product of two, that of each."""
    if config.initializer == FAN_IN:
        return keras.initializers.RandomNormal(stddev=config.initializer_range * (rank or 1) ** -0.25)
    return initializer(config)


def score_initializer(config: TransformerConfig):
    """That of a table of scores, which stand beside products of D summands."""
    if config.initializer == FAN_IN:
        return keras.initializers.RandomNormal(stddev=config.initializer_range * config.hidden_size**-0.5)
    return initializer(config)


# ---- beside the blocks ---------------------------------------------------------------------------------------------


def token_embedding(config: TransformerConfig, dtype=None, own: bool = False) -> TokenEmbedding:
    """The token table, or the `own` one that an encoder reads beside a decoder's."""
    return TokenEmbedding(
        config.read_vocabulary_size if own else config.vocabulary_size,
        config.table_size,
        table_initializer(config, config.token_table_rank),
        config.token_table_rank,
        dtype=dtype,
        name="encoder_token_embedding" if own else "token_embedding",
    )


def named(config: TransformerConfig, stack: str, layer: str) -> str:
    """The name of a layer beside the blocks, which is its stack's where the model has two: "encoder_final_norm"."""
    return f"{stack}_{layer}" if len(config.stacks) > 1 else layer


def norm(stack: StackConfig, dtype, name: str):
    """A norm beside the blocks."""
    return make_norm(stack.norm.kind, stack.norm.epsilon, dtype, name, stack.norm.bias)


def embed_scaled(table: TokenEmbedding, stack: StackConfig, token_ids, graph_form: GraphForm):
    """The tokens' embeddings by the stack's scale: int32 [B, S] -> [B, S, width of the table]."""
    x = table(token_ids, graph_form=graph_form)
    return x if stack.embedding_scale == 1.0 else x * stack.embedding_scale


def convolution(config: TransformerConfig, dtype=None) -> EmbeddingConvolution:
    """That of an encoder's embeddings, which stands behind its first block."""
    stack = config.encoder
    return EmbeddingConvolution(
        stack.embedding_convolution.size,
        stack.embedding_convolution.activation,
        stack.norm.epsilon,
        stack.dropout,
        initializer(config),
        dtype=dtype,
        name="embedding_convolution",
    )


def hidden_token(config: TransformerConfig, dtype=None) -> HiddenToken:
    """The embedding that an encoder has in the place of a token to be predicted."""
    return HiddenToken(config.hidden_size, table_initializer(config), dtype=dtype, name="hidden_token")


# ---- blocks --------------------------------------------------------------------------------------------------------


def blocks(config: TransformerConfig, name: str, gradient_checkpointing: bool, dtype=None) -> tuple:
    """The blocks of the stack of that name; the first part of their variables' paths is "encoder_block_0", ...

    Those of a decoder beside an encoder attend to its output, too.
    """
    stack = config.stacks[name]
    reads_source = name == "decoder" and "encoder" in config.stacks
    return tuple(
        _block(
            stack,
            attention=_mixing(config, stack, index, dtype),
            feed_forward={
                "size": stack.feed_forward.size,
                "activation": stack.feed_forward.activation,
                "gated": stack.feed_forward.gated,
                "use_bias": stack.feed_forward.bias,
                "output_bias": stack.feed_forward.output_bias,
                "kernel_initializer": initializer(config),
            },
            norm=stack.norm.kind,
            norm_placement=stack.norm.placement,
            norm_epsilon=stack.norm.epsilon,
            norm_bias=stack.norm.bias,
            attention_normed=stack.norm.first or index > 0,
            residual_scale=stack.residual_scale,
            dropout=stack.dropout,
            stochastic_depth=stack.stochastic_depth * (index + 1) / stack.num_blocks,
            cross_attention=reads_source,
            gradient_checkpointing=gradient_checkpointing,
            dtype=dtype,
            name=f"{name}_block_{index}",
        )
        for index in range(stack.num_blocks)
    )


def _block(stack: StackConfig, **arguments) -> TransformerBlock:
    inside = stack.bottleneck
    if inside is None:
        return TransformerBlock(**arguments)
    return BottleneckBlock(
        bottleneck_size=inside.size, feed_forwards=inside.feed_forwards, own_queries=inside.own_queries, **arguments
    )


def _mixing(config: TransformerConfig, stack: StackConfig, index: int, dtype):
    """What mixes the tokens in a block: arguments of `Attention`, or a layer in its place."""
    if stack.kind_of(index) in stack.attention:
        return _attention_arguments(config, stack, stack.attention_of(index), index)
    if stack.kind_of(index) == "convolution":
        return ShortConvolution(stack.convolution.width, initializer(config), dtype=dtype, name="mixer")
    rule = stack.delta_rule
    return GatedDeltaRule(
        rule.key_heads,
        rule.value_heads,
        rule.key_width,
        rule.value_width,
        rule.convolution,
        stack.norm.epsilon,
        initializer(config),
        dtype=dtype,
        name="mixer",
    )


def _attention_arguments(config: TransformerConfig, stack: StackConfig, kind: AttentionConfig, index: int) -> dict:
    scale = stack.head_width**-0.5 if kind.scale is None else kind.scale
    relative = None
    if kind.scores and kind.scores.kind == "sinusoidal":
        relative = "segments" if kind.scores.segments else "distances"
    return {
        "num_heads": kind.heads,
        "head_size": stack.head_width,
        "num_key_value_heads": kind.key_value_heads,
        "use_bias": kind.bias,
        "output_bias": kind.output_bias,
        "key_bias": kind.key_bias,
        "scale": scale / (index + 1) if kind.scale_by_layer else scale,
        "dropout": stack.attention_dropout,
        "kernel_initializer": initializer(config),
        # Where the scores are not scaled by it, the queries are: scores begin about as large as 1 either way.
        "query_initializer": initializer(config, stack.head_width**-0.5 / scale),
        "query_key_norm": kind.query_key_norm,
        "norm_epsilon": stack.norm.epsilon,
        "norm": stack.norm.kind if stack.norm.kind in RMS_NORMS else RMS,
        "soft_cap": kind.soft_cap,
        "clip": kind.clip,
        "gated": kind.gated,
        "position_terms": kind.scores.terms if kind.scores else (),
        "position_projections": kind.scores is not None and kind.scores.own_projections,
        "relative_terms": relative,
    }


# ---- positions -----------------------------------------------------------------------------------------------------


class PositionLayers(NamedTuple):
    """What the kinds of attention of a stack know of positions, by kind; None where a kind knows nothing of it.

    Kinds of one value share one layer. `own_scores` has a layer for each block where blocks share none, else nothing.
    """

    rotary: dict[str, RotaryPositions | None]
    scores: dict[str, PositionScores | None]
    own_scores: tuple[PositionScores | None, ...] = ()

    def of_block(self, index: int, visibility: Visibility) -> dict:
        """The scores that a block alone has, as an argument of its call; nothing where it has none."""
        layer = self.own_scores[index] if self.own_scores else None
        return {} if layer is None else {"scores": layer(None, None, visibility.query_counts, visibility.key_counts)}


def position_layers(config: TransformerConfig, name: str, dtype=None) -> PositionLayers:
    """Those of the stack of that name."""
    stack = config.stacks[name]

    def make_rotary(kind: AttentionConfig, name):
        return RotaryPositions(kind.rotary, stack.head_width, dtype=dtype, name=name)

    def make_of_scores(kind: AttentionConfig, name):
        scores = kind.scores
        if scores.kind == "sinusoidal":
            return DistanceSinusoids(stack.hidden_size, dtype=dtype, name=name)
        if scores.disentangled:
            epsilon = stack.norm.epsilon if scores.normed else None
            sizes = (stack.hidden_size, scores.buckets, scores.max_distance, epsilon)
            return DistanceEmbeddings(*sizes, table_initializer(config), dtype=dtype, name=name)
        return make_scores(
            kind.scores, kind.heads, kind.causal, initializer=score_initializer(config), dtype=dtype, name=name
        )

    rotary = _by_value(stack, lambda kind: kind.rotary, make_rotary, named(config, name, "rotary_positions"))

    def shared(kind: AttentionConfig):
        return (kind.scores, kind.causal) if kind.scores is not None and kind.scores.shared else None

    scores = _by_value(stack, shared, make_of_scores, f"{name}_position_scores")
    kinds = [stack.attention.get(stack.kind_of(index)) for index in range(stack.num_blocks)]
    if all(kind is None or kind.scores is None or kind.scores.shared for kind in kinds):
        return PositionLayers(rotary, scores)
    own = (
        make_of_scores(kind, f"{name}_position_scores_{index}")
        if kind and kind.scores and not kind.scores.shared
        else None
        for index, kind in enumerate(kinds)
    )
    return PositionLayers(rotary, scores, tuple(own))


def _by_value(stack: StackConfig, value_of, make, name: str) -> dict:
    made, found = {}, {}
    for kind, one in stack.attention.items():
        value = value_of(one)
        if value is not None and value not in made:
            made[value] = make(one, name if not made else f"{name}_{kind}")
        found[kind] = None if value is None else made[value]
    return found


# ---- what tokens see -----------------------------------------------------------------------------------------------


class Visibility(NamedTuple):
    """What the tokens of a call are, and what they see.

    Attributes:
        positions: int32 [B, S] or [1, S], each token's position in its document.
        padding_mask: int32 [B, T], of whole rows; None of new tokens on a cache, which see what is `visible`.
        visible: bool [B, S, T] for causal attention.
        query_slots, key_slots: int32 [S] and [T], where tokens stand in the row or in the cache.
        query_counts, key_counts: int32 [B, S] and [B, T] (or [1, S] and [1, T]), real tokens before them; what
            distances are measured in.
        token_mask: int [B, S], 0 at tokens that are padding; None where none is.
    """

    positions: object
    padding_mask: object
    visible: object
    query_slots: object
    key_slots: object
    query_counts: object
    key_counts: object
    token_mask: object = None


def whole_sequence(padding_mask) -> Visibility:
    """What whole rows see that may be packed: padding_mask int32 [B, S], see `layers.masks.document_visibility`."""
    visible, slots = causal_visibility(padding_mask), row_slots(padding_mask)
    positions = positions_seen(visible)
    return Visibility(positions, padding_mask, visible, slots, slots, positions, positions, padding_mask)


def unpacked_sequence(padding_mask, causal: bool) -> Visibility:
    """What whole rows of one document each see, whose positions are its slots: padding_mask int32 [B, S]."""
    slots = row_slots(padding_mask)
    row = ops.expand_dims(slots, 0)
    visible = causal_visibility(padding_mask) if causal else None
    return Visibility(row, padding_mask, visible, slots, slots, row, row, padding_mask)


class KindVisibility(NamedTuple):
    """What one kind of attention is called with; see `layers.TransformerBlock`."""

    bias: object
    rotary: tuple | None
    scores: object
    padding_mask: object
    pattern: MaskPattern | None

    def arguments(self) -> dict:
        """As keywords, without those that say nothing."""
        return {name: value for name, value in self._asdict().items() if value is not None}


def visibilities(
    stack: StackConfig,
    layers: PositionLayers,
    visibility: Visibility,
    packed: bool,
    graph_form: GraphForm,
    dtype,
    rings: dict[str, int] | None = None,
) -> dict[str, KindVisibility]:
    """What each kind of attention of a stack is called with; kinds that see the same share one bias.

    Args:
        packed: bool, whether several documents may stand in a row, which do not see each other.
        rings: R for the kinds whose layers keep their window only (`layers.Ring`).
    """
    rings = rings or {}
    made = {}

    def once(key, make):
        if key not in made:
            made[key] = make()
        return made[key]

    def bias_of(kind: AttentionConfig, ring: int | None):
        if ring is not None:
            read = visibility.visible.shape[-1]
            visible = ring_visibility(visibility.query_slots, ring, kind.window, read)
            return hidden_bias(visible, graph_form.mask_value, dtype)
        if kind.window is None and not kind.causal and not packed:
            return padding_bias(visibility.padding_mask, graph_form.mask_value, dtype)
        if kind.causal:
            visible = visibility.visible
        elif packed:
            visible = document_visibility(visibility.padding_mask)
        else:
            visible = ops.expand_dims(ops.not_equal(visibility.padding_mask, 0), 1)  # [B, 1, T]
        if kind.window is not None:
            visible = windowed(visible, visibility.query_slots, visibility.key_slots, kind.window, kind.causal)
        return hidden_bias(visible, graph_form.mask_value, dtype)

    def scores_of(layer: PositionScores):
        return layer(None, None, visibility.query_counts, visibility.key_counts)

    found = {}
    for name, kind in stack.attention.items():
        rotary, layer = layers.rotary[name], layers.scores[name]
        angles = None if rotary is None else once(id(rotary), lambda rotary=rotary: rotary(visibility.positions))
        ring = rings.get(name)
        seen = (kind.window, kind.causal, ring)
        whole = visibility.padding_mask is not None  # whether the mask and a pattern say all that the bias does
        bias = once(seen, lambda kind=kind, ring=ring: bias_of(kind, ring))
        scores = None if layer is None else once(id(layer), lambda layer=layer: scores_of(layer))
        if layer is not None and not layer.learned:  # a part of the bias, summed once for all layers
            total = lambda bias=bias, scores=scores: bias + ops.cast(scores, dtype)  # noqa: E731
            bias, scores, whole = once((seen, id(layer)), total), None, False
        pattern = MaskPattern(kind.causal, kind.window, packed) if whole else None
        found[name] = KindVisibility(bias, angles, scores, visibility.padding_mask if whole else None, pattern)
    others = set(stack.kinds) - found.keys()  # a mixer in attention's place is told which tokens are real, no more
    return found | dict.fromkeys(others, KindVisibility(None, None, None, visibility.token_mask, None))
