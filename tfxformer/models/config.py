"""What a Transformer is, as data: the switches of one stack and of the whole model."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from numbers import Integral, Real

from tfxformer.keywords import KnownKeywords, nearest, refuse_unknown
from tfxformer.layers.activations import activation as check_activation
from tfxformer.layers.attention.positions import POSITION_MODES
from tfxformer.layers.attention.rotary import Rotary
from tfxformer.layers.normalization import NORMS
from tfxformer.layers.transformer_block import NORM_POSITIONS

POSITIONS = ("learned", "rotary", "alibi")


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


def _require_number(value, name: str) -> None:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    _require(number and 0 <= value < math.inf, f"{name} must be a finite number of at least 0, not {value!r}.")


# What a field of these annotations holds, in words. Booleans are no numbers here: JSON tells them apart.
_KINDS = {
    "int": (lambda value: isinstance(value, Integral) and not isinstance(value, bool), "an int"),
    "float": (
        lambda value: isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value),
        "a number",
    ),
    "bool": (lambda value: isinstance(value, bool), "True or False"),
    "str": (lambda value: isinstance(value, str), "a text"),
}


def _check_kinds(config) -> None:
    """Refuses, by name, values that are not of the kind that their fields are annotated with."""
    for one in dataclasses.fields(config):
        kind, _, none = one.type.partition(" | ")
        value = getattr(config, one.name)
        if kind in _KINDS and not (none == "None" and value is None):
            holds, words = _KINDS[kind]
            _require(holds(value), f"{one.name} must be {words}{' or None' if none else ''}, not {value!r}.")


def _check_rate(name: str, value) -> None:
    _require(0 <= value < 1, f"{name} must be in [0, 1), not {value!r}.")


@dataclass(frozen=True)
class StackConfig(KnownKeywords):
    """The switches of one stack of blocks.

    Attributes:
        num_layers: blocks applied one after another (with `layers_per_group` times as many in ALBERT's sharing).
        hidden_size: D, width of the stream between blocks.
        num_heads: N, query heads.
        feed_forward_size: F, inner width of the feed-forward half.
        num_key_value_heads: G or None (N), heads of keys and values.
        head_size: H or None (D / N), width of a head.
        activation: name in `layers.activations`.
        gated: whether the activation gates a third Dense layer.
        attention_bias, feed_forward_bias: whether the Dense layers have biases.
        attention_output_bias: whether attention's output has one; None for what `attention_bias` says.
        scale_attention: whether scores are divided by the square root of H.
        scale_attention_by_layer: whether block i divides them by i + 1 too (an option of GPT-2).
        sliding_window: None, or the tokens (itself included) that a token sees in the windowed layers.
        windowed_layers: which layers have the window; None for all.
        causal: of a decoder, whether a token sees itself and earlier ones only; False lets it see later ones too, as
            embedding models on decoders do (of a window, the tokens at most `sliding_window` away on either side).
            An encoder's tokens always see all.
        norm: "layer" or "rms".
        norm_position: "post", "pre" or "parallel" (both halves read the block's input).
        norm_epsilon: epsilon of every norm in the stack.
        embedding_norm: whether the sum of embeddings is normed.
        final_norm: whether the last block's output is normed.
        positions: "learned", "rotary" or "alibi".
        max_positions: rows of the position table; without a table the longest sequence.
        position_mode: "arange" or "nonpad_cumsum", of learned positions in an encoder.
        position_offset: first rows of the table that are not used (OPT).
        rotary: None, or `layers.Rotary`, where positions are rotary.
        layer_groups: None, or the number of groups of layers that share weights (ALBERT).
        layers_per_group: blocks with weights of their own in a group, all run for each layer (ALBERT).
        dropout, attention_dropout: rates on outputs, and on attention probabilities.
        embedding_dropout: rate on embeddings; None for `dropout`.
        stochastic_depth: rate of the last block's halves left out; earlier ones grow linearly towards it.
    """

    num_layers: int
    hidden_size: int
    num_heads: int
    feed_forward_size: int
    num_key_value_heads: int | None = None
    head_size: int | None = None
    activation: str = "gelu"
    gated: bool = False
    attention_bias: bool = True
    feed_forward_bias: bool = True
    attention_output_bias: bool | None = None
    scale_attention: bool = True
    scale_attention_by_layer: bool = False
    sliding_window: int | None = None
    windowed_layers: tuple[bool, ...] | None = None
    causal: bool = True
    norm: str = "layer"
    norm_position: str = "post"
    norm_epsilon: float = 1e-12
    embedding_norm: bool = True
    final_norm: bool = False
    positions: str = "learned"
    max_positions: int = 512
    position_mode: str = "arange"
    position_offset: int = 0
    rotary: Rotary | None = None
    layer_groups: int | None = None
    layers_per_group: int = 1
    dropout: float = 0.1
    attention_dropout: float = 0.1
    embedding_dropout: float | None = None
    stochastic_depth: float = 0.0

    def __post_init__(self):
        sizes = ("num_layers", "hidden_size", "num_heads", "feed_forward_size", "max_positions", "layers_per_group")
        for name in sizes:
            value = getattr(self, name)
            _require(type(value) is int and value > 0, f"{name} must be a positive int, not {value!r}.")
        _require_number(self.norm_epsilon, "norm_epsilon")
        _check_kinds(self)
        for name in ("num_key_value_heads", "head_size", "sliding_window"):
            value = getattr(self, name)
            _require(value is None or value > 0, f"{name} must be positive or None, not {value!r}.")
        _require(
            self.head_size is not None or self.hidden_size % self.num_heads == 0,
            f"hidden_size ({self.hidden_size}) must be a multiple of num_heads ({self.num_heads}), "
            "or head_size be given.",
        )
        groups = self.num_key_value_heads or self.num_heads
        _require(
            self.num_heads % groups == 0,
            f"num_heads ({self.num_heads}) must be a multiple of num_key_value_heads ({groups}).",
        )
        if self.num_key_value_heads == self.num_heads:  # one way to say one thing
            object.__setattr__(self, "num_key_value_heads", None)
        if self.head_size is not None and self.head_size * self.num_heads == self.hidden_size:
            object.__setattr__(self, "head_size", None)
        check_activation(self.activation)
        choices = {
            "norm": NORMS,
            "norm_position": NORM_POSITIONS,
            "positions": POSITIONS,
            "position_mode": POSITION_MODES,
        }
        for name, known in choices.items():
            value = getattr(self, name)
            _require(value in known, f"Unknown {name} {value!r}; known: {', '.join(known)}.")
        for name in ("dropout", "attention_dropout", "embedding_dropout", "stochastic_depth"):
            if getattr(self, name) is not None:
                _check_rate(name, getattr(self, name))
        _require(
            self.layer_groups is None or (self.layer_groups > 0 and self.num_layers % self.layer_groups == 0),
            f"num_layers ({self.num_layers}) must be a multiple of layer_groups ({self.layer_groups}).",
        )
        _require(
            self.layers_per_group == 1 or self.layer_groups is not None,
            f"layers_per_group={self.layers_per_group} says nothing without layer_groups, the number of groups.",
        )
        self._check_positions()

    def _check_positions(self):
        if isinstance(self.rotary, dict):  # of a JSON file
            object.__setattr__(self, "rotary", construct(Rotary, self.rotary))
        _require(
            (self.rotary is not None) == (self.positions == "rotary"),
            f"positions={self.positions!r} with rotary={self.rotary!r}: rotary positions, and only they, need one.",
        )
        if self.rotary is not None:
            self.rotary.width(self.head_width)  # refuses a width that cannot be rotated
        _require(
            0 <= self.position_offset < self.max_positions,
            f"position_offset ({self.position_offset}) must be below max_positions ({self.max_positions}).",
        )
        _require(
            self.position_offset == 0 or self.positions == "learned",
            f"position_offset={self.position_offset} with positions={self.positions!r}: only a table has rows to skip.",
        )
        if self.windowed_layers is not None:
            object.__setattr__(self, "windowed_layers", tuple(map(bool, self.windowed_layers)))
            _require(
                self.sliding_window is not None and len(self.windowed_layers) == self.num_layers,
                f"windowed_layers has {len(self.windowed_layers)} entries for {self.num_layers} layers and "
                f"sliding_window={self.sliding_window!r}: it says for each layer whether it has the window.",
            )
            if not any(self.windowed_layers):
                object.__setattr__(self, "sliding_window", None)
            if len(set(self.windowed_layers)) == 1:
                object.__setattr__(self, "windowed_layers", None)

    @property
    def head_width(self) -> int:
        """H, the width of a head."""
        return self.head_size or self.hidden_size // self.num_heads

    @property
    def key_value_heads(self) -> int:
        """G, the heads of keys and values."""
        return self.num_key_value_heads or self.num_heads

    @property
    def embedding_dropout_rate(self) -> float:
        """Dropout rate on embeddings."""
        return self.dropout if self.embedding_dropout is None else self.embedding_dropout

    def has_window(self, layer: int) -> bool:
        """Whether a layer sees the sliding window only."""
        return self.sliding_window is not None and (self.windowed_layers is None or self.windowed_layers[layer])

    @property
    def block_order(self) -> tuple[int, ...]:
        """The block that each step of the stack runs; a block that comes twice shares its weights."""
        if self.layer_groups is None:
            return tuple(range(self.num_layers))
        layers_per_weights = self.num_layers // self.layer_groups
        groups = (layer // layers_per_weights for layer in range(self.num_layers))
        return tuple(g * self.layers_per_group + inner for g in groups for inner in range(self.layers_per_group))


@dataclass(frozen=True)
class HeadConfig(KnownKeywords):
    """The switches of the heads that a family puts on its encoder or decoder.

    Attributes:
        pooler: whether the encoder has a tanh Dense on its first token ("pooled_output").
        classifier_activation: None where the classifier reads the pooled output, else the activation of the Dense
            layer that it puts on the first token instead.
        classifier_dropout: dropout rate in front of a classifier's output.
        classifier_bias: whether a classifier's output has a bias.
        masked_lm_activation: activation of the masked-language head; None for the encoder's.
        tied: whether a causal language model's logits come from the token table; else from a Dense layer.
    """

    pooler: bool = False
    classifier_activation: str | None = None
    classifier_dropout: float = 0.1
    classifier_bias: bool = True
    masked_lm_activation: str | None = None
    tied: bool = True

    def __post_init__(self):
        _check_kinds(self)
        _check_rate("classifier_dropout", self.classifier_dropout)
        for name in (self.classifier_activation, self.masked_lm_activation):
            if name is not None:
                check_activation(name)


@dataclass(frozen=True)
class TransformerConfig(KnownKeywords):
    """A whole model as data, JSON both ways.

    Attributes:
        family: the reference family ("bert", "roberta", ...), which names the tensors of a saved checkpoint.
        vocabulary_size: V, rows of the token table.
        encoder: the encoder's stack, or None.
        decoder: the decoder's stack, or None.
        heads: the family's heads.
        embedding_size: width of the tables, projected to D where it differs; None for D.
        token_table_rank: None, or E where the token table is a product [V, E] x [E, width of the tables]; no reference
            family has it (`compression.factorize_embeddings`).
        embedding_projection: whether tables are projected even at equal width (ALBERT does); None for "where needed".
        embedding_projection_bias: whether that projection has a bias.
        output_projection: whether the stack's output is projected back to the width of the tables (OPT-350m).
        token_types: rows of the segment table; 0 for none, with 1 the row is added to every token.
        padding_id: id of the padding token.
        initializer_range: standard deviation of the truncated normal that new kernels are drawn from.
    """

    family: str
    vocabulary_size: int
    encoder: StackConfig | None = None
    decoder: StackConfig | None = None
    heads: HeadConfig = field(default_factory=HeadConfig)
    embedding_size: int | None = None
    token_table_rank: int | None = None
    embedding_projection: bool | None = None
    embedding_projection_bias: bool = True
    output_projection: bool = False
    token_types: int = 0
    padding_id: int = 0
    initializer_range: float = 0.02

    def __post_init__(self):
        _require(
            (self.encoder is None) != (self.decoder is None),
            "A TransformerConfig has an encoder (BERT-like) or a decoder (GPT-like).",
        )
        for name, kind in (("encoder", StackConfig), ("decoder", StackConfig), ("heads", HeadConfig)):
            part = getattr(self, name)
            wanted = isinstance(part, kind) or (part is None and name != "heads")
            _require(wanted, f"{name} must be a {kind.__name__}, not {part!r:.80}.")
        _check_kinds(self)
        _require_number(self.initializer_range, "initializer_range")
        size = self.embedding_size
        _require(size is None or size > 0, f"embedding_size must be positive or None, not {size!r}.")
        _require(self.vocabulary_size > 0, f"vocabulary_size must be positive, not {self.vocabulary_size!r}.")
        _require(self.token_types >= 0, f"token_types must not be negative: {self.token_types!r}.")
        _require(
            0 <= self.padding_id < self.vocabulary_size,
            f"padding_id ({self.padding_id}) must be an id of the vocabulary (0 to {self.vocabulary_size - 1}).",
        )
        rank = self.token_table_rank
        _require(
            rank is None or (isinstance(rank, int) and 0 < rank < self.table_size),
            f"token_table_rank must be an int of 1 to {self.table_size - 1}, below the tables' width, not {rank!r}.",
        )
        _require(
            self.embedding_projection is not False or self.table_size == self.stack.hidden_size,
            f"embedding_size ({self.embedding_size}) differs from hidden_size ({self.stack.hidden_size}): "
            "the embeddings need a projection.",
        )

    @property
    def stack(self) -> StackConfig:
        """The stack whose tokens are embedded: the encoder's or the decoder's."""
        return self.encoder or self.decoder

    @property
    def table_size(self) -> int:
        """Width of the embedding tables."""
        return self.embedding_size or self.stack.hidden_size

    @property
    def has_embedding_projection(self) -> bool:
        """Whether a Dense layer stands between the embeddings and the blocks."""
        if self.embedding_projection is None:
            return self.table_size != self.stack.hidden_size
        return self.embedding_projection

    @property
    def max_sequence_length(self) -> int:
        """The longest sequence the model serves, in tokens."""
        unused = self.padding_id + 1 if self.stack.position_mode == "nonpad_cumsum" else self.stack.position_offset
        return self.stack.max_positions - unused

    def replace(self, **changes) -> TransformerConfig:
        """A copy with other values; a nested switch is named by its path, `encoder__dropout=0.0`."""
        parts = {name: getattr(self, name) for name in ("encoder", "decoder", "heads")}
        paths = [
            f"{part}__{one.name}" for part, config in parts.items() if config for one in dataclasses.fields(config)
        ]
        refuse_unknown(changes, [*(one.name for one in dataclasses.fields(self)), *paths], "TransformerConfig.replace")
        nested: dict[str, dict] = {}
        flat = {}
        for name, value in changes.items():
            outer, _, inner = name.partition("__")
            if inner:
                nested.setdefault(outer, {})[inner] = value
            else:
                flat[name] = value
        for outer, values in nested.items():
            flat[outer] = _replace(getattr(self, outer, None), outer, values)
        return _replace(self, "TransformerConfig", flat)

    def to_dict(self) -> dict:
        """A JSON-ready dict."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict) -> TransformerConfig:
        """The inverse of `to_dict`; an unknown name is an error."""
        values = dict(values)
        for name, part in (("encoder", StackConfig), ("decoder", StackConfig), ("heads", HeadConfig)):
            if isinstance(values.get(name), dict):
                values[name] = construct(part, values[name])
        return construct(cls, values)


def construct(cls, values: dict):
    """A dataclass from a dict; an unknown name is an error."""
    known = {f.name for f in dataclasses.fields(cls)}
    unknown = sorted(set(values) - known)
    if unknown:
        near = "".join(f" ({name}: did you mean {ours}?)" for name in unknown if (ours := nearest(name, known)))
        raise ValueError(f"{cls.__name__} has no {', '.join(unknown)}{near}; it has: {', '.join(sorted(known))}.")
    return cls(**values)


def _replace(config, name, values: dict):
    if not dataclasses.is_dataclass(config):
        raise ValueError(f"The config has no part {name!r}.")
    return construct(type(config), {**{f.name: getattr(config, f.name) for f in dataclasses.fields(config)}, **values})
