"""What a Transformer is, as data: the switches of one stack and of the whole model."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field

from tfxformer.layers.activations import activation as check_activation
from tfxformer.layers.encoder_block import NORM_POSITIONS
from tfxformer.layers.positions import POSITION_MODES


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


@dataclass(frozen=True)
class StackConfig:
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
        norm_position: "post" or "pre".
        norm_epsilon: epsilon of every norm in the stack.
        embedding_norm: whether the sum of embeddings is normed.
        final_norm: whether the last block's output is normed.
        max_positions: rows of the position table.
        position_mode: "arange" or "nonpad_cumsum".
        layer_groups: None, or the number of groups of layers that share weights (ALBERT).
        layers_per_group: blocks with weights of their own in a group, all run for each layer (ALBERT).
        dropout, attention_dropout: rates on outputs and embeddings, and on attention probabilities.
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
    norm_position: str = "post"
    norm_epsilon: float = 1e-12
    embedding_norm: bool = True
    final_norm: bool = False
    max_positions: int = 512
    position_mode: str = "arange"
    layer_groups: int | None = None
    layers_per_group: int = 1
    dropout: float = 0.1
    attention_dropout: float = 0.1
    stochastic_depth: float = 0.0

    def __post_init__(self):
        sizes = ("num_layers", "hidden_size", "num_heads", "feed_forward_size", "max_positions", "layers_per_group")
        for name in sizes:
            value = getattr(self, name)
            _require(isinstance(value, int) and value > 0, f"{name} must be a positive int, not {value!r}.")
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
        check_activation(self.activation)
        for name, known in (("norm_position", NORM_POSITIONS), ("position_mode", POSITION_MODES)):
            value = getattr(self, name)
            _require(value in known, f"Unknown {name} {value!r}; known: {', '.join(known)}.")
        for name in ("dropout", "attention_dropout", "stochastic_depth"):
            value = getattr(self, name)
            _require(0 <= value < 1, f"{name} must be in [0, 1), not {value!r}.")
        _require(
            self.layer_groups is None or (self.layer_groups > 0 and self.num_layers % self.layer_groups == 0),
            f"num_layers ({self.num_layers}) must be a multiple of layer_groups ({self.layer_groups}).",
        )

    @property
    def block_order(self) -> tuple[int, ...]:
        """The block that each step of the stack runs; a block that comes twice shares its weights."""
        if self.layer_groups is None:
            return tuple(range(self.num_layers))
        layers_per_weights = self.num_layers // self.layer_groups
        groups = (layer // layers_per_weights for layer in range(self.num_layers))
        return tuple(g * self.layers_per_group + inner for g in groups for inner in range(self.layers_per_group))


@dataclass(frozen=True)
class HeadConfig:
    """The switches of the heads that a family puts on its encoder.

    Attributes:
        pooler: whether the encoder has a tanh Dense on its first token ("pooled_output").
        classifier_activation: None where the classifier reads the pooled output, else the activation of the Dense
            layer that it puts on the first token instead.
        classifier_dropout: dropout rate in front of a classifier's output.
        masked_lm_activation: activation of the masked-language head; None for the encoder's.
    """

    pooler: bool = False
    classifier_activation: str | None = None
    classifier_dropout: float = 0.1
    masked_lm_activation: str | None = None

    def __post_init__(self):
        for name in (self.classifier_activation, self.masked_lm_activation):
            if name is not None:
                check_activation(name)


@dataclass(frozen=True)
class TransformerConfig:
    """A whole model as data, JSON both ways.

    Attributes:
        family: the reference family ("bert", "roberta", ...), which names the tensors of a saved checkpoint.
        vocabulary_size: V, rows of the token table.
        encoder: the encoder's stack.
        heads: the family's heads.
        embedding_size: width of the tables, projected to D where it differs; None for D.
        embedding_projection: whether tables are projected even at equal width (ALBERT does); None for "where needed".
        token_types: rows of the segment table; 0 for none, with 1 the row is added to every token.
        padding_id: id of the padding token.
        initializer_range: standard deviation of the truncated normal that new kernels are drawn from.
    """

    family: str
    vocabulary_size: int
    encoder: StackConfig
    heads: HeadConfig = field(default_factory=HeadConfig)
    embedding_size: int | None = None
    embedding_projection: bool | None = None
    token_types: int = 0
    padding_id: int = 0
    initializer_range: float = 0.02

    def __post_init__(self):
        _require(self.vocabulary_size > 0, f"vocabulary_size must be positive, not {self.vocabulary_size!r}.")
        _require(self.token_types >= 0, f"token_types must not be negative: {self.token_types!r}.")
        _require(
            0 <= self.padding_id < self.vocabulary_size,
            f"padding_id ({self.padding_id}) must be an id of the vocabulary (0 to {self.vocabulary_size - 1}).",
        )
        _require(
            self.embedding_projection is not False or self.table_size == self.encoder.hidden_size,
            f"embedding_size ({self.embedding_size}) differs from hidden_size ({self.encoder.hidden_size}): "
            "the embeddings need a projection.",
        )

    @property
    def table_size(self) -> int:
        """Width of the embedding tables."""
        return self.embedding_size or self.encoder.hidden_size

    @property
    def has_embedding_projection(self) -> bool:
        """Whether a Dense layer stands between the embeddings and the blocks."""
        if self.embedding_projection is None:
            return self.table_size != self.encoder.hidden_size
        return self.embedding_projection

    @property
    def max_sequence_length(self) -> int:
        """The longest sequence the position table serves, in tokens."""
        unused = self.padding_id + 1 if self.encoder.position_mode == "nonpad_cumsum" else 0
        return self.encoder.max_positions - unused

    def replace(self, **changes) -> TransformerConfig:
        """A copy with other values; a nested switch is named by its path, `encoder__dropout=0.0`."""
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
        for name, part in (("encoder", StackConfig), ("heads", HeadConfig)):
            if isinstance(values.get(name), dict):
                values[name] = _construct(part, values[name])
        return _construct(cls, values)


def _construct(cls, values: dict):
    known = {f.name for f in dataclasses.fields(cls)}
    unknown = sorted(set(values) - known)
    if unknown:
        raise ValueError(f"{cls.__name__} has no {', '.join(unknown)}; it has: {', '.join(sorted(known))}.")
    return cls(**values)


def _replace(config, name, values: dict):
    if not dataclasses.is_dataclass(config):
        raise ValueError(f"The config has no part {name!r}.")
    return _construct(type(config), {**{f.name: getattr(config, f.name) for f in dataclasses.fields(config)}, **values})
