"""What a block is made of, as values: its attention, its feed-forward half, its norms."""

from __future__ import annotations

from dataclasses import dataclass

from tfxformer.arguments.keywords import KnownKeywords
from tfxformer.layers.activations import activation as check_activation
from tfxformer.layers.attention.attention import QUERY_KEY_NORMS
from tfxformer.layers.attention.position_scores import Scores
from tfxformer.layers.attention.rotary import Rotary
from tfxformer.layers.blocks.block import PLACEMENTS
from tfxformer.layers.normalization import NORMS
from tfxformer.models.config.checks import (
    check_choice,
    check_kinds,
    construct,
    put,
    require,
    require_number,
    require_positive,
    require_sizes,
)


@dataclass(frozen=True)
class AttentionConfig(KnownKeywords):
    """One kind of attention in a stack.

    Attributes:
        heads: N, query heads.
        key_value_heads: G or None (N), heads of keys and values.
        width: H or None (D / N), width of a head.
        scale: what queries are multiplied by; None for H ** -0.5.
        scale_by_layer: whether block i divides them by i + 1 too (an option of GPT-2).
        window: None, or how far a token sees: causal, the last `window` tokens, itself included; else the tokens at
            most `window` away on either side.
        causal: whether a token sees itself and earlier ones only; None for what the stack is, a decoder's is causal
            and an encoder's is not. False in a decoder lets it see later ones too, as embedding models on decoders do.
        rotary: None, or `layers.Rotary`, by which positions turn queries and keys.
        query_key_norm: None; "head" (RMS norms of each head's queries and keys), or "whole" (of all heads' together).
        clip: None, or c: queries, keys and values are kept within -c and c (OLMo).
        soft_cap: None, or c of c * tanh(scores / c).
        scores: None, or `layers.Scores`, what positions add to the scores.
        bias: whether the projections of query, key and value have biases.
        output_bias: whether the output's has one; None for what `bias` says.
        key_bias: whether the key's has one; None for what `bias` says.
        gated: whether the heads' outputs are gated, by a Dense of what attention reads and a sigmoid.

    Raises ValueError for values of a wrong kind.
    """

    heads: int
    key_value_heads: int | None = None
    width: int | None = None
    scale: float | None = None
    scale_by_layer: bool = False
    window: int | None = None
    causal: bool | None = None
    rotary: Rotary | None = None
    query_key_norm: str | None = None
    soft_cap: float | None = None
    scores: Scores | None = None
    bias: bool = True
    output_bias: bool | None = None
    key_bias: bool | None = None
    clip: float | None = None
    gated: bool = False

    def __post_init__(self):
        require_sizes(self, "heads")
        for name, kind in (("rotary", Rotary), ("scores", Scores)):  # of a JSON file
            value = getattr(self, name)
            if isinstance(value, dict):
                put(self, **{name: construct(kind, value)})
            elif value is not None and not isinstance(value, kind):
                raise ValueError(f"{name} must be a layers.{kind.__name__} or None, not {value!r:.80}.")
        check_kinds(self)
        require_positive(self, "key_value_heads", "width", "scale", "window", "soft_cap", "clip")
        groups = self.key_value_heads or self.heads
        require(self.heads % groups == 0, f"heads ({self.heads}) must be a multiple of key_value_heads ({groups}).")
        if self.key_value_heads == self.heads:  # one way to say one thing
            put(self, key_value_heads=None)
        for name in ("output_bias", "key_bias"):
            if getattr(self, name) == self.bias:
                put(self, **{name: None})
        require(
            self.scores is None or not self.scores.of_embeddings or self._plain,
            f"Scores of the kind {self.scores and self.scores.kind!r} compare distances with queries and keys as they "
            "are: no key_value_heads of their own, no rotary, query_key_norm or soft_cap beside them.",
        )
        check_choice("query_key_norm", self.query_key_norm, (None, *QUERY_KEY_NORMS))

    @property
    def _plain(self) -> bool:
        return self.key_value_heads is None and self.rotary is self.query_key_norm is self.soft_cap is None

    @property
    def groups(self) -> int:
        """G, the heads of keys and values."""
        return self.key_value_heads or self.heads


@dataclass(frozen=True)
class ConvolutionConfig(KnownKeywords):
    """The gated short convolutions of a stack, in attention's place; see `layers.ShortConvolution`.

    Attributes:
        width: K, the tokens that one sees, itself among them.
    """

    width: int = 3

    def __post_init__(self):
        require_sizes(self, "width")
        require(self.width > 1, f"width={self.width}: a convolution sees at least 2 tokens, one and the one before.")


@dataclass(frozen=True)
class DeltaRuleConfig(KnownKeywords):
    """The gated delta rule of a stack, in attention's place; see `layers.GatedDeltaRule`.

    Attributes:
        key_heads: heads of queries and keys.
        value_heads: N, heads of values, a multiple of them; None for as many.
        key_width, value_width: Hk and Hv, widths of a head.
        convolution: K, the tokens that queries, keys and values are convolved of.
    """

    key_heads: int
    value_heads: int | None = None
    key_width: int = 128
    value_width: int = 128
    convolution: int = 4

    def __post_init__(self):
        if self.value_heads is None:
            put(self, value_heads=self.key_heads)
        require_sizes(self, "key_heads", "value_heads", "key_width", "value_width", "convolution")
        require(
            self.value_heads % self.key_heads == 0,
            f"value_heads ({self.value_heads}) must be a multiple of key_heads ({self.key_heads}).",
        )
        require(self.convolution > 1, f"convolution={self.convolution}: it is of at least 2 tokens.")


@dataclass(frozen=True)
class FeedForwardConfig(KnownKeywords):
    """The feed-forward half of the blocks of a stack.

    Attributes:
        size: F, inner width.
        activation: name in `layers.activations`.
        gated: whether the activation gates a third Dense layer.
        bias: whether the Dense layers have biases.
        output_bias: whether the last of them has one; None for what `bias` says.
    """

    size: int
    activation: str = "gelu"
    gated: bool = False
    bias: bool = True
    output_bias: bool | None = None

    def __post_init__(self):
        require_sizes(self, "size")
        check_kinds(self)
        check_activation(self.activation)
        if self.output_bias == self.bias:  # one way to say one thing
            put(self, output_bias=None)


@dataclass(frozen=True)
class NormConfig(KnownKeywords):
    """The norms of a stack.

    Attributes:
        placement: "post", "pre", "parallel", "shared", "sandwich" or "output"; see `layers.TransformerBlock`.
        kind: "layer"; "plain_layer" (OLMo), which has no weights; "rms"; "zero_centred_rms" (Gemma), whose factor is
            1 + gamma; "affine" (MobileBERT), which scales and shifts alone.
        epsilon: epsilon of every norm in the stack.
        bias: whether "layer" norms have a beta.
        embedding: whether the sum of embeddings is normed.
        final: whether the last block's output is normed.
        first: whether the first block norms what its attention reads (ModernBERT's does not).
        positions: whether the normed sum has the positions in it; else they are added behind it (Blenderbot-small).
    """

    placement: str = "post"
    kind: str = "layer"
    epsilon: float = 1e-12
    bias: bool = True
    embedding: bool = True
    final: bool = False
    first: bool = True
    positions: bool = True

    def __post_init__(self):
        check_choice("norm placement", self.placement, PLACEMENTS)
        check_choice("norm kind", self.kind, NORMS)
        require_number(self.epsilon, "epsilon")
        check_kinds(self)
        require(
            self.first or self.placement in ("pre", "parallel", "sandwich"),
            f"first=False says nothing with placement={self.placement!r}: there no norm stands before attention.",
        )
        require(
            self.positions or self.embedding,
            "positions=False says nothing with embedding=False: there is no norm that positions could stand behind.",
        )
        if self.kind != "layer":  # it has none anyway
            put(self, bias=True)


@dataclass(frozen=True)
class EmbeddingConvolutionConfig(KnownKeywords):
    """A convolution of the embeddings, which is added to the first block's output; see `layers.EmbeddingConvolution`.

    Attributes:
        size: K, tokens that are read, an odd number.
        activation: name in `layers.activations`.
    """

    size: int
    activation: str = "tanh"

    def __post_init__(self):
        require_sizes(self, "size")
        check_kinds(self)
        check_activation(self.activation)
        require(self.size % 2 == 1, f"A convolution reads as many tokens on either side: size={self.size} is even.")


@dataclass(frozen=True)
class BottleneckConfig(KnownKeywords):
    """The narrower stream inside of each block of a stack; see `layers.blocks.bottleneck.BottleneckBlock`.

    Attributes:
        size: E, its width.
        feed_forwards: feed-forward halves of a block, one after another.
        own_queries: whether queries and keys have a projection D -> E of their own, and values read the whole stream.
    """

    size: int
    feed_forwards: int = 1
    own_queries: bool = True

    def __post_init__(self):
        require_sizes(self, "size", "feed_forwards")
        check_kinds(self)
