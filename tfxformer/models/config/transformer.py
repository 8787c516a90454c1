"""A whole model as data: its stacks, its tables, its heads."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field

from tfxformer.arguments.keywords import KnownKeywords, refuse_unknown
from tfxformer.layers.activations import activation as check_activation
from tfxformer.models.config.checks import (
    check_choice,
    check_kinds,
    check_rate,
    construct,
    paths,
    put,
    replaced,
    require,
    require_number,
    require_positive,
)
from tfxformer.models.config.older import converted
from tfxformer.models.config.stack import StackConfig

STACKS = ("encoder", "decoder")
MEAN_OF_LOGITS = "mean_of_logits"
CLASSIFIER_POOLINGS = ("cls", "mean", "last", MEAN_OF_LOGITS)
NORMAL, FAN_IN = INITIALIZERS = ("normal", "fan_in")


@dataclass(frozen=True)
class HeadConfig(KnownKeywords):
    """The switches of the heads that a family puts on its encoder or decoder.

    Attributes:
        pooler: whether the encoder has a tanh Dense on its first token ("pooled_output").
        classifier_reads_pooler: whether a classifier without a Dense of its own reads the pooled output; else it reads
            what the classifier_pooling says, as it is.
        classifier_activation: None where the classifier reads that, else the activation of the Dense
            layer that it puts on the text's vector instead.
        classifier_pooling: what that vector is of an encoder's outputs: that of the first token ("cls"), that of the
            "last" real one, or the "mean" of all real ones; with "mean_of_logits" each token is classified, and the
            mean of that is the text's.
        classifier_dropout: dropout rate in front of a classifier's output.
        classifier_bias: whether a classifier's output has a bias.
        classifier_wraps: whether the decoder that reads a text again for a classifier begins with the text's last
            token, not with the start token (mBART, PLBART); see `EncoderDecoder.summary_vector`.
        masked_lm_activation: activation of the masked-language head; None for the encoder's.
        masked_lm_transform: whether that head begins with a Dense, the activation and a norm (EuroBERT's does not).
        masked_lm_split: whether that begin is D wide, and what is wider than the table has a Dense of its own.
        masked_lm_bias: whether that head ends with a number for each token.
        transform: whether classifiers of texts and tokens begin as the masked-language head does, with a Dense, an
            activation and a norm (ModernBERT).
        transform_bias: whether that Dense has a bias.
        tied: whether a language model's logits come from the token table; else from a Dense layer.
        logit_scale: what a causal language model's logits are multiplied by.
        logit_soft_cap: None, or c of c * tanh(logits / c).
        logits_bias: whether a number for each token is added to a language model's logits.
    """

    pooler: bool = False
    classifier_reads_pooler: bool = True
    classifier_activation: str | None = None
    classifier_pooling: str = "cls"
    classifier_dropout: float = 0.1
    classifier_bias: bool = True
    classifier_wraps: bool = False
    masked_lm_activation: str | None = None
    masked_lm_transform: bool = True
    masked_lm_split: bool = False
    masked_lm_bias: bool = True
    transform: bool = False
    transform_bias: bool = True
    tied: bool = True
    logit_scale: float = 1.0
    logit_soft_cap: float | None = None
    logits_bias: bool = False

    def __post_init__(self):
        check_kinds(self)
        check_rate("classifier_dropout", self.classifier_dropout)
        check_choice("classifier_pooling", self.classifier_pooling, CLASSIFIER_POOLINGS)
        require(
            not (self.transform or (self.classifier_pooling != "cls" and self.classifier_reads_pooler))
            or self.classifier_activation is not None,
            f"transform={self.transform} and classifier_pooling={self.classifier_pooling!r} say how a classifier's own "
            "Dense reads a text: they need its classifier_activation.",
        )
        require_positive(self, "logit_scale", "logit_soft_cap")
        for name in (self.classifier_activation, self.masked_lm_activation):
            if name is not None:
                check_activation(name)


@dataclass(frozen=True)
class TransformerConfig(KnownKeywords):
    """A whole model as data, JSON both ways.

    Attributes:
        family: the reference family ("bert", "roberta", ...), which names the tensors of a saved checkpoint.
        vocabulary_size: V, rows of the token table; beside an encoder with a table of its own, of the decoder's.
        encoder: the encoder's stack, or None.
        decoder: the decoder's stack, or None.
        heads: the family's heads.
        source_vocabulary_size: None, or the rows of a token table that the encoder beside a decoder has of its own
            (Marian with a vocabulary for each language).
        embedding_size: width of the tables, projected to D where it differs; None for D.
        token_table_rank: None, or E where the token table is a product [V, E] x [E, width of the tables]; no reference
            family has it (`compression.factorize_embeddings`).
        embedding_projection: whether tables are projected even at equal width (ALBERT does); None for "where needed".
        embedding_projection_bias: whether that projection has a bias.
        embedding_projection_first: whether an encoder's tokens are projected before positions and segments, which then
            are D wide, are added and normed, and not behind that.
        embedding_neighbours: whether that projection reads the next and the previous token beside each (MobileBERT).
        output_projection: whether the stack's output is projected back to the width of the tables (OPT-350m).
        hidden_token: whether an encoder has an embedding in the place of tokens that are predicted in a stream of their
            own (XLNet); no output here reads it, it is kept for those that do.
        token_types: rows of the segment table; 0 for none, with 1 the row is added to every token.
        task_types: rows of a table of tasks, of which an encoder adds the first to every token (ERNIE 3.0); 0 for none.
        padding_id: id of the padding token.
        initializer_range: standard deviation of the normal that new weights are drawn from.
        initializer: "normal", all kernels and tables alike, the normal truncated; or "fan_in": so are tables of
            embeddings, and a kernel's deviation is divided by the root of the number of its inputs, so that what it
            gives is as large as what it reads; a query's also by that of H where scores are not scaled by it, and that
            of relative scores by the root of D (Mesh TensorFlow, as T5 begins).
    """

    family: str
    vocabulary_size: int
    encoder: StackConfig | None = None
    decoder: StackConfig | None = None
    heads: HeadConfig = field(default_factory=HeadConfig)
    source_vocabulary_size: int | None = None
    embedding_size: int | None = None
    token_table_rank: int | None = None
    embedding_projection: bool | None = None
    embedding_projection_bias: bool = True
    embedding_projection_first: bool = False
    embedding_neighbours: bool = False
    output_projection: bool = False
    hidden_token: bool = False
    token_types: int = 0
    task_types: int = 0
    padding_id: int = 0
    initializer_range: float = 0.02
    initializer: str = NORMAL

    def __post_init__(self):
        for name, kind in (*((stack, StackConfig) for stack in STACKS), ("heads", HeadConfig)):
            part = getattr(self, name)
            wanted = isinstance(part, kind) or (part is None and name != "heads")
            require(wanted, f"{name} must be a {kind.__name__}, not {part!r:.80}.")
        require(bool(self.stacks), "A TransformerConfig has an encoder (BERT-like), a decoder (GPT-like), or both.")
        sizes = {stack.hidden_size for stack in self.stacks.values()}
        require(len(sizes) == 1, f"Encoder and decoder have one hidden_size, the width of what they share: {sizes}.")
        for name, stack in self.stacks.items():
            put(self, **{name: _with_causal(stack, name == "decoder")})
        kinds = () if self.decoder is None else self.decoder.attention.values()
        require(
            not any(kind.scores and kind.scores.of_embeddings for kind in kinds),
            "Scores of the kinds 'disentangled' and 'sinusoidal' are an encoder's: a decoder's cache holds no "
            "embeddings of distances.",
        )
        check_kinds(self)
        require_number(self.initializer_range, "initializer_range")
        check_choice("initializer", self.initializer, INITIALIZERS)
        require(
            self.initializer_range > 0 or self.initializer == NORMAL,
            f"initializer={self.initializer!r} needs a positive initializer_range, not {self.initializer_range!r}.",
        )
        size = self.embedding_size
        require(size is None or size > 0, f"embedding_size must be positive or None, not {size!r}.")
        require(
            self.embedding_projection_first or not self.embedding_neighbours,
            "embedding_neighbours are what a projection of tokens alone reads: embedding_projection_first=True.",
        )
        require(self.vocabulary_size > 0, f"vocabulary_size must be positive, not {self.vocabulary_size!r}.")
        for name in ("token_types", "task_types"):
            require(getattr(self, name) >= 0, f"{name} must not be negative: {getattr(self, name)!r}.")
        sources = self.source_vocabulary_size
        require(sources is None or sources > 0, f"source_vocabulary_size must be positive or None, not {sources!r}.")
        for rows in (self.vocabulary_size, self.read_vocabulary_size):
            require(
                0 <= self.padding_id < rows,
                f"padding_id ({self.padding_id}) must be an id of the vocabulary (0 to {rows - 1}).",
            )
        rank = self.token_table_rank
        require(
            rank is None or (isinstance(rank, int) and 0 < rank < self.table_size),
            f"token_table_rank must be an int of 1 to {self.table_size - 1}, below the tables' width, not {rank!r}.",
        )
        require(
            self.embedding_projection is not False or self.table_size == self.hidden_size,
            f"embedding_size ({self.embedding_size}) differs from hidden_size ({self.hidden_size}): "
            "the embeddings need a projection.",
        )

    @property
    def stacks(self) -> dict[str, StackConfig]:
        """The stacks that there are, by their names: "encoder", "decoder"."""
        return {name: getattr(self, name) for name in STACKS if getattr(self, name) is not None}

    @property
    def hidden_size(self) -> int:
        """D, width of the stream in every stack."""
        return next(iter(self.stacks.values())).hidden_size

    @property
    def read_vocabulary_size(self) -> int:
        """Rows of the token table by which a text is read: the encoder's own, or the one that there is."""
        return self.vocabulary_size if self.source_vocabulary_size is None else self.source_vocabulary_size

    @property
    def table_size(self) -> int:
        """Width of the embedding tables."""
        return self.embedding_size or self.hidden_size

    @property
    def has_embedding_projection(self) -> bool:
        """Whether a Dense layer stands between the embeddings and the blocks."""
        if self.embedding_neighbours:
            return True
        if self.embedding_projection is None:
            return self.table_size != self.hidden_size
        return self.embedding_projection

    @property
    def max_cached_length(self) -> int:
        """As many of these positions as have the same angles whatever follows: LongRoPE's, up to the trained length."""
        kinds = () if self.decoder is None else self.decoder.attention.values()
        turned = [kind.rotary for kind in kinds if kind.rotary is not None and kind.rotary.kind == "longrope"]
        return min([self.max_sequence_length, *(rotary.original_max_positions for rotary in turned)])

    @property
    def max_sequence_length(self) -> int:
        """The longest sequence that every stack serves, in tokens."""

        def served(stack):
            return stack.max_positions - (
                self.padding_id + 1 if stack.position_mode == "nonpad_cumsum" else stack.position_offset
            )

        return min(map(served, self.stacks.values()))

    def replace(self, **changes) -> TransformerConfig:
        """A copy with other values; a nested switch is named by its path, `encoder__attention__window=64`.

        Of attention, which may be of several kinds, a path names a switch of all of them or of one kind:
        `encoder__attention__local__window=64`. Of a dict of kinds each may say what it has otherwise than the present
        one: `encoder__attention={"full": {}, "local": {"window": 64}}`, with the `encoder__pattern` of the layers.
        """
        refuse_unknown(changes, paths(self), "TransformerConfig.replace")
        return replaced(self, changes)

    def to_dict(self) -> dict:
        """A JSON-ready dict."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict) -> TransformerConfig:
        """The inverse of `to_dict`, also of what version 0.5.0 wrote; an unknown name is an error."""
        values = converted(values)
        for name, part in (*((stack, StackConfig) for stack in STACKS), ("heads", HeadConfig)):
            if isinstance(values.get(name), dict):
                values[name] = construct(part, values[name])
        return construct(cls, values)


def _with_causal(stack: StackConfig, causal: bool) -> StackConfig:
    """A stack whose kinds of attention all say whether they are causal."""
    kinds = {
        kind: dataclasses.replace(one, causal=causal) if one.causal is None else one
        for kind, one in stack.attention.items()
    }
    return stack if kinds == stack.attention else dataclasses.replace(stack, attention=kinds)
