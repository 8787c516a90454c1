"""One stack of blocks, as data."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field

from tfxformer.arguments.keywords import KnownKeywords
from tfxformer.layers.attention.positions import POSITION_MODES, TABLES
from tfxformer.models.config.checks import (
    check_choice,
    check_kinds,
    check_rate,
    construct,
    names,
    put,
    require,
    require_positive,
    require_sizes,
)
from tfxformer.models.config.values import (
    AttentionConfig,
    BottleneckConfig,
    ConvolutionConfig,
    DeltaRuleConfig,
    EmbeddingConvolutionConfig,
    FeedForwardConfig,
    NormConfig,
)

POSITIONS = (*TABLES, "none")
FULL = "full"  # the kind of attention of a stack that names none
# What a pattern may name besides kinds of attention: fields of a stack.
MIXERS = {"convolution": ConvolutionConfig, "delta_rule": DeltaRuleConfig}


@dataclass(frozen=True)
class StackConfig(KnownKeywords):
    """The switches of one stack of blocks.

    Attributes:
        num_layers: L, blocks applied one after another (with `layers_per_group` times as many in ALBERT's sharing).
        hidden_size: D, width of the stream between blocks.
        attention: `AttentionConfig` by the name of its kind, {"full": ..., "local": ...}; one alone is that of all
            layers, and so is an int, its heads. Kinds may differ in all but heads and their width.
        feed_forward: `FeedForwardConfig`, or an int, its size.
        norm: `NormConfig`, or its placement.
        pattern: which kind of attention the layers have, repeated over all of them: ("full", "local", "local"); or what
            they have in its place: ("convolution", "convolution", "full").
        convolution: `ConvolutionConfig` of the layers that `pattern` calls so; None without any.
        delta_rule: `DeltaRuleConfig` of the layers that `pattern` calls so; None without any.
        positions: what is added to the embeddings: rows of a "learned" table, "sinusoidal" or "sinusoidal_fairseq" ones
            (see `layers.attention.positions.sinusoids`), or "none"; None for "learned" unless attention has rotary
            positions or scores of them.
        max_positions: rows of the position table; without a table the longest sequence.
        position_mode: "arange" or "nonpad_cumsum", of learned positions in an encoder.
        position_offset: first rows of the table that are not used (OPT).
        embedding_scale: what the tokens' embeddings are multiplied by.
        residual_scale: what the output of each half of a block is multiplied by before it is added to the stream.
        layer_groups: None, or the number of groups of layers that share weights (ALBERT).
        layers_per_group: blocks with weights of their own in a group, all run for each layer (ALBERT).
        bottleneck: None, or `BottleneckConfig` of a narrower stream inside of each block; heads then say their width.
        embedding_convolution: None, or `EmbeddingConvolutionConfig` of what near embeddings add behind the first
            block.
        dropout, attention_dropout: rates on outputs, and on attention probabilities.
        embedding_dropout: rate on embeddings; None for `dropout`.
        stochastic_depth: rate of the last block's halves left out; earlier ones grow linearly towards it.
    """

    num_layers: int
    hidden_size: int
    attention: dict[str, AttentionConfig] = field(hash=False)
    feed_forward: FeedForwardConfig
    norm: NormConfig = field(default_factory=NormConfig)
    pattern: tuple[str, ...] | None = None
    convolution: ConvolutionConfig | None = None
    delta_rule: DeltaRuleConfig | None = None
    positions: str | None = None
    max_positions: int = 512
    position_mode: str = "arange"
    position_offset: int = 0
    embedding_scale: float = 1.0
    residual_scale: float = 1.0
    layer_groups: int | None = None
    layers_per_group: int = 1
    bottleneck: BottleneckConfig | None = None
    embedding_convolution: EmbeddingConvolutionConfig | None = None
    dropout: float = 0.1
    attention_dropout: float = 0.1
    embedding_dropout: float | None = None
    stochastic_depth: float = 0.0

    def __post_init__(self):
        put(
            self,
            attention=_kinds_of(self.attention),
            feed_forward=_part(FeedForwardConfig, "feed_forward", self.feed_forward, int),
            norm=_part(NormConfig, "norm", self.norm, str),
        )
        parts = {"bottleneck": BottleneckConfig, "embedding_convolution": EmbeddingConvolutionConfig, **MIXERS}
        for name, part in parts.items():
            if getattr(self, name) is not None:
                put(self, **{name: _part(part, name, getattr(self, name), int)})
        require(
            self.bottleneck is None or self.norm.placement == "post",
            f'Blocks with a bottleneck have norms of the placement "post", not {self.norm.placement!r}.',
        )
        require_sizes(self, "num_layers", "hidden_size", "max_positions", "layers_per_group")
        check_kinds(self)
        require_positive(self, "embedding_scale", "residual_scale")
        check_choice("position_mode", self.position_mode, POSITION_MODES)
        for name in ("dropout", "attention_dropout", "embedding_dropout", "stochastic_depth"):
            if getattr(self, name) is not None:
                check_rate(name, getattr(self, name))
        self._check_pattern()
        self._check_heads()
        self._check_positions()
        require(
            self.layer_groups is None or (self.layer_groups > 0 and self.num_layers % self.layer_groups == 0),
            f"num_layers ({self.num_layers}) must be a multiple of layer_groups ({self.layer_groups}).",
        )
        require(
            self.layers_per_group == 1 or self.layer_groups is not None,
            f"layers_per_group={self.layers_per_group} says nothing without layer_groups, the number of groups.",
        )
        require(
            self.layer_groups is None or self.pattern is None,
            f"layer_groups={self.layer_groups} with pattern={self.pattern}: layers that share their "
            "weights are of one kind.",
        )

    def _check_pattern(self):
        others = [name for name in MIXERS if getattr(self, name) is not None]
        kinds = [*self.attention, *others]
        if self.pattern is None:
            require(
                len(kinds) == 1, f"Layers are of the kinds {', '.join(kinds)}: give pattern, which layer has which."
            )
            return
        require(
            not set(MIXERS) & self.attention.keys(),
            f"{', '.join(MIXERS)} in a pattern stand in attention's place: call no kind of attention so.",
        )
        pattern = (self.pattern,) if isinstance(self.pattern, str) else tuple(self.pattern)
        unknown = [kind for kind in pattern if kind not in kinds]
        require(
            bool(pattern) and not unknown,
            f"pattern={self.pattern!r} names kinds of layers; there are {', '.join(kinds)}.",
        )
        pattern = _shortest(pattern[: self.num_layers])
        found = {kind: one for kind, one in self.attention.items() if kind in pattern}  # kinds that occur
        require(
            bool(found), f"pattern={pattern} has no layer of attention: at least one is needed, which counts slots."
        )
        put(self, attention=found, pattern=pattern if len(set(pattern)) > 1 else None)
        put(self, **{name: None for name in others if name not in pattern})

    def _check_heads(self):
        first, *others = self.attention.values()
        for one in others:
            require(
                (one.heads, one.groups, one.width) == (first.heads, first.groups, first.width),
                f"Kinds of attention of one stack have the same heads: {first!r} and {one!r}.",
            )
        require(
            first.width is not None or self.hidden_size % first.heads == 0,
            f"hidden_size ({self.hidden_size}) must be a multiple of heads ({first.heads}), or width be given.",
        )
        if first.width is not None and first.width * first.heads == self.hidden_size:  # one way to say one thing
            kinds = {kind: dataclasses.replace(one, width=None) for kind, one in self.attention.items()}
            put(self, attention=kinds)
        for one in self.attention.values():
            if one.rotary is not None:
                one.rotary.width(self.head_width)  # refuses a width that cannot be rotated

    def _check_positions(self):
        check_choice("positions", self.positions, (None, *POSITIONS))
        if self.positions == self._usual_positions:  # one way to say one thing
            put(self, positions=None)
        require(
            0 <= self.position_offset < self.max_positions,
            f"position_offset ({self.position_offset}) must be below max_positions ({self.max_positions}).",
        )
        counted = self.position_mode == "nonpad_cumsum"  # by the padding's id, which is an offset of its own
        require(
            self.position_offset == 0 or (self.has_position_table and not counted),
            f"position_offset={self.position_offset} says nothing here: only a table read from its beginning on has "
            "rows to skip.",
        )

    @property
    def _usual_positions(self) -> str:
        told = any(one.rotary is not None or one.scores is not None for one in self.attention.values())
        return "none" if told else "learned"

    @property
    def has_position_table(self) -> bool:
        """Whether a row of its position is added to each token's embedding."""
        return self.position_table is not None

    @property
    def position_table(self) -> str | None:
        """The kind of the rows added to tokens' embeddings: "learned", "sinusoidal", ...; None for none."""
        positions = self.positions or self._usual_positions
        return None if positions == "none" else positions

    @property
    def compares_segments(self) -> bool:
        """Whether attention compares the segments of tokens, which then have no embeddings."""
        return any(one.scores is not None and one.scores.segments for one in self.attention.values())

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kind of each layer: of attention, or what stands in its place."""
        pattern = self.pattern or tuple(self.attention)
        return tuple(pattern[layer % len(pattern)] for layer in range(self.num_layers))

    @property
    def heads(self) -> int:
        """N, query heads of every layer."""
        return next(iter(self.attention.values())).heads

    @property
    def key_value_heads(self) -> int:
        """G, the heads of keys and values of every layer."""
        return next(iter(self.attention.values())).groups

    @property
    def head_width(self) -> int:
        """H, the width of a head."""
        return next(iter(self.attention.values())).width or self.hidden_size // self.heads

    @property
    def causal(self) -> bool:
        """Whether no layer lets a token see later ones."""
        return all(one.causal for one in self.attention.values())

    @property
    def embedding_dropout_rate(self) -> float:
        """Dropout rate on embeddings."""
        return self.dropout if self.embedding_dropout is None else self.embedding_dropout

    @property
    def num_blocks(self) -> int:
        """Blocks with weights of their own."""
        return self.num_layers if self.layer_groups is None else self.layer_groups * self.layers_per_group

    @property
    def block_order(self) -> tuple[int, ...]:
        """The block that each step of the stack runs; a block that comes twice shares its weights."""
        if self.layer_groups is None:
            return tuple(range(self.num_layers))
        layers_per_weights = self.num_layers // self.layer_groups
        groups = (layer // layers_per_weights for layer in range(self.num_layers))
        return tuple(g * self.layers_per_group + inner for g in groups for inner in range(self.layers_per_group))

    @property
    def has_states(self) -> bool:
        """Whether some layers carry a state in place of keys and values."""
        return not self.attention.keys() >= set(self.kinds)

    def attention_of(self, block: int) -> AttentionConfig:
        """The attention of a block, by its number; KeyError for one that has another mixer."""
        return self.attention[self.kind_of(block)]

    def kind_of(self, block: int) -> str:
        """The kind of a block, by its number: of attention, or what stands in its place."""
        return self.kinds[0] if self.layer_groups is not None else self.kinds[block]


def _kinds_of(attention) -> dict[str, AttentionConfig]:
    """Kinds of attention as configs, of all that a `StackConfig` takes.

    In a dict what is named like a field is that of every kind, beside what each kind says of its own.
    """
    if isinstance(attention, (int, AttentionConfig)):
        attention = {FULL: AttentionConfig(attention) if isinstance(attention, int) else attention}
    require(
        isinstance(attention, dict) and bool(attention),
        f"attention must be an AttentionConfig, or several by the names of their kinds, not {attention!r:.80}.",
    )
    fields = set(names(AttentionConfig))
    shared = {name: value for name, value in attention.items() if name in fields}
    kinds = {name: value for name, value in attention.items() if name not in fields}
    if shared:
        kinds = {kind: {**shared, **values} for kind, values in (kinds or {FULL: {}}).items()}
    return {kind: _part(AttentionConfig, f"attention[{kind!r}]", value, int) for kind, value in kinds.items()}


def _part(cls, name: str, value, short: type):
    """A part of a stack as its config: it may be a dict of its fields, or the first of them alone."""
    if isinstance(value, dict):
        return construct(cls, value)
    if isinstance(value, short) and not isinstance(value, bool):
        return cls(value)
    require(isinstance(value, cls), f"{name} must be a {cls.__name__}, not {value!r:.80}.")
    return value


def _shortest(pattern: tuple[str, ...]) -> tuple[str, ...]:
    """The shortest beginning that repeats to the whole."""
    for length in range(1, len(pattern)):
        if all(kind == pattern[index % length] for index, kind in enumerate(pattern)):
            return pattern[:length]
    return pattern
