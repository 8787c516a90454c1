"""What position adds to attention's scores: small layers, (query, key, their positions) -> scores.

Shape letters: B batch, S query length, T key length, N query heads.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import keras
import numpy as np
from keras import ops

from tfxformer.arguments.keywords import KnownKeywords
from tfxformer.layers.attention.disentangled import CONTENT_TO_POSITION, TERMS

SCORE_KINDS = ("alibi", "relative", "disentangled", "sinusoidal")


@dataclass(frozen=True)
class Scores:
    """Which scores a query's and a key's positions add to their product.

    Attributes:
        kind: "alibi" falls linearly with the distance, by a slope of each head's own (Press et al., 2021,
            arXiv:2108.12409); "relative" is a learned number for each bucket of distances and each head (T5; Raffel et
            al., 2019, arXiv:1910.10683); "disentangled" compares queries and keys with embeddings of the distances
            (DeBERTa; He et al., 2020, arXiv:2006.03654), which have a table for all layers; "sinusoidal" compares
            queries with sinusoids of the distances, by projections and biases of each layer's own (Transformer-XL; Dai
            et al., 2019, arXiv:1901.02860).
        buckets: rows of the table, of "disentangled" for each side; there 0 for a row for each distance.
        max_distance: the distance from which on all share the last bucket.
        shared: whether the layers of a stack have one table (T5), or each its own (UMT5).
        terms: of "disentangled", `disentangled.TERMS` or one of them.
        normed: of "disentangled", whether the table's rows are normed.
        own_projections: of "disentangled", whether distances have projections of their own in each layer.
        segments: of "sinusoidal", whether segments are compared, too (XLNet): they are no part of the embeddings then.
        scale: of "alibi", what the slopes are multiplied by.
        rounded: of "alibi", whether slopes, positions and their products are rounded to bfloat16 (Falcon).

    Raises ValueError for an unknown kind, and for values that the kind does not have.
    """

    kind: str
    buckets: int = 32
    max_distance: int = 128
    shared: bool = True
    terms: tuple[str, ...] = ()
    normed: bool = False
    own_projections: bool = False
    segments: bool = False
    scale: float = 1.0
    rounded: bool = False

    def __post_init__(self):
        if self.kind not in SCORE_KINDS:
            raise ValueError(f"Unknown kind of scores {self.kind!r}; known: {', '.join(SCORE_KINDS)}.")
        if self.kind != "alibi" and (self.scale != 1.0 or self.rounded):
            raise ValueError(f"Scores of the kind {self.kind!r} are learned: they have no scale and are not rounded.")
        if not 0 < self.scale < math.inf:
            raise ValueError(f"The scale of scores must be a finite number above 0, not {self.scale!r}.")
        if self.segments and self.kind != "sinusoidal":
            raise ValueError(f"segments=True is of the kind 'sinusoidal', not of {self.kind!r}.")
        if self.kind == "sinusoidal":  # all that there is to say
            object.__setattr__(self, "terms", (CONTENT_TO_POSITION,))
            object.__setattr__(self, "own_projections", True)
            return
        object.__setattr__(self, "terms", tuple(term for term in TERMS if term in self.terms))
        if self.disentangled:
            self._check_disentangled()
            return
        if self.terms or self.normed or self.own_projections:
            raise ValueError(f"terms, normed and own_projections are of the kind 'disentangled', not of {self.kind!r}.")
        if not self.shared and self.kind == "alibi":
            raise ValueError(
                "Scores of the kind 'alibi' learn nothing that layers could have of their own: shared=True."
            )
        if self.buckets < 4 or self.buckets % 4 or self.max_distance <= self.buckets:
            raise ValueError(
                f"Scores have a multiple of 4 buckets and a larger max_distance; got {self.buckets} and "
                f"{self.max_distance}."
            )

    @property
    def disentangled(self) -> bool:
        """Whether queries and keys themselves are compared with embeddings of distances."""
        return self.kind == "disentangled"

    @property
    def of_embeddings(self) -> bool:
        """Whether attention itself compares embeddings of distances, which are no scores yet."""
        return self.kind in ("disentangled", "sinusoidal")

    def _check_disentangled(self):
        if not self.terms or not self.shared:
            raise ValueError(
                f"Scores of the kind 'disentangled' have terms of {', '.join(TERMS)} and one table for all layers; got "
                f"terms={self.terms}, shared={self.shared}."
            )
        if self.buckets < 0 or self.buckets % 2 or self.max_distance <= self.buckets // 2 + 1:
            raise ValueError(
                "Scores of the kind 'disentangled' have an even number of buckets, or 0, and a max_distance above half "
                f"of them plus 1; got {self.buckets} and {self.max_distance}."
            )


def make_scores(scores: Scores, heads: int, causal: bool, **arguments) -> PositionScores:
    """The layer of a value; `arguments` are Keras', and the initializer of what is learned."""
    if scores.kind == "alibi":
        arguments.pop("initializer", None)
        return AlibiScores(heads, causal, scale=scores.scale, rounded=scores.rounded, **arguments)
    return RelativeScores(heads, scores.buckets, scores.max_distance, causal, **arguments)


class PositionScores(KnownKeywords, keras.layers.Layer):
    """Scores to add to those of queries and keys; subclasses say which.

    Args:
        heads: int N.
        causal: bool, whether queries see no later keys.

    Call: query [B, N, S, H], key [B, G, T, H] (None for those that read positions alone, made once for a stack),
    query_positions int32 [B or 1, S], key_positions int32 [B or 1, T] -> float32 [B or 1, N, S, T].

    Attributes:
        learned: bool, whether gradients flow to it; else it may be a part of attention's bias.
    """

    learned = False

    def __init__(self, heads, causal=False, **kwargs):
        super().__init__(**kwargs)
        self.heads = heads
        self.causal = causal

    def call(self, query, key, query_positions, key_positions):
        raise NotImplementedError(f"{type(self).__name__} computes no scores: see its subclasses.")

    def compute_output_spec(self, query, key, query_positions, key_positions):
        batch = query_positions.shape[0] if query_positions.shape[0] != 1 else key_positions.shape[0]
        shape = (batch, self.heads, query_positions.shape[1], key_positions.shape[1])
        return keras.KerasTensor(shape, dtype="float32")

    def get_config(self):
        return {**super().get_config(), "heads": self.heads, "causal": self.causal}


@keras.saving.register_keras_serializable("tfxformer")
class AlibiScores(PositionScores):
    """`alibi_bias`; arguments and call as `PositionScores` has them.

    Args:
        heads, causal: as `PositionScores` has them.
        scale, rounded: as `Scores` has them.
    """

    def __init__(self, heads, causal=False, scale=1.0, rounded=False, **kwargs):
        super().__init__(heads, causal, **kwargs)
        self.scale = scale
        self.rounded = rounded

    def build(self, *shapes):
        self.built = True

    def call(self, query, key, query_positions, key_positions):
        return alibi_bias(query_positions, key_positions, self.heads, self.causal, self.scale, self.rounded)

    def get_config(self):
        return {**super().get_config(), "scale": self.scale, "rounded": self.rounded}


@keras.saving.register_keras_serializable("tfxformer")
class RelativeScores(PositionScores):
    """A learned score for each bucket of distances and each head (T5).

    Args:
        heads, causal: as `PositionScores` has them.
        buckets: int, rows of the table; where later keys are seen, half of them are theirs.
        max_distance: int, the distance from which on all share the last bucket.
        initializer: initializer of the table.

    Attributes:
        shift: int, 0; P keys that stand in front of the given ones (`prefix.Prefix`), which get scores, too.
    """

    learned = True

    def __init__(self, heads, buckets=32, max_distance=128, causal=False, initializer="uniform", **kwargs):
        super().__init__(heads, causal, **kwargs)
        self.buckets = buckets
        self.max_distance = max_distance
        self.initializer = keras.initializers.get(initializer)
        self.shift = 0

    def build(self, *shapes):
        shape = (self.buckets, self.heads)
        self.embeddings = self.add_weight(name="embeddings", shape=shape, initializer=self.initializer, autocast=False)

    def call(self, query, key, query_positions, key_positions):
        if self.shift:
            front = ops.arange(-self.shift, 0, dtype="int32")
            front = ops.broadcast_to(ops.expand_dims(front, 0), (ops.shape(key_positions)[0], self.shift))
            key_positions = ops.concatenate([front, key_positions], axis=1)
        distance = ops.expand_dims(key_positions, 1) - ops.expand_dims(query_positions, 2)  # [B, S, T]
        bucket = relative_bucket(distance, self.buckets, self.max_distance, self.causal)
        # A product with a one-hot matrix: its gradient is a product too, where that of a lookup would be a scatter.
        rows = ops.matmul(ops.one_hot(bucket, self.buckets, dtype="float32"), ops.cast(self.embeddings, "float32"))
        return ops.transpose(rows, (0, 3, 1, 2))  # [B, S, T, N] -> [B, N, S, T]

    def compute_output_spec(self, query, key, query_positions, key_positions):
        *outer, keys = super().compute_output_spec(query, key, query_positions, key_positions).shape
        return keras.KerasTensor((*outer, None if keys is None else keys + self.shift), dtype="float32")

    def get_config(self):
        return {
            **super().get_config(),
            "buckets": self.buckets,
            "max_distance": self.max_distance,
            "initializer": keras.initializers.serialize(self.initializer),
        }


def relative_bucket(distance, buckets: int, max_distance: int, causal: bool):
    """The bucket of each distance, key's position less the query's: int32 [...] -> int32 [...], 0 to `buckets` - 1.

    Near distances have a bucket each, farther ones share buckets that widen with the logarithm.
    """
    side = 0
    if causal:
        distance = ops.maximum(-distance, 0)
    else:
        buckets //= 2
        side, distance = ops.cast(distance > 0, "int32") * buckets, ops.abs(distance)
    near = buckets // 2
    growth = ops.log(ops.cast(ops.maximum(distance, 1), "float32") / near) / math.log(max_distance / near)
    far = near + ops.cast(growth * (buckets - near), "int32")
    return side + ops.where(distance < near, distance, ops.minimum(far, buckets - 1))


def alibi_slopes(heads: int) -> np.ndarray:
    """The slope of each head, float32 [N] (Press et al., 2021, arXiv:2108.12409)."""
    power = 2 ** int(np.floor(np.log2(heads)))
    slopes = 2.0 ** (-8.0 / power * np.arange(1, power + 1))
    # Of a number of heads between powers of two: every second slope of the next power.
    others = 2.0 ** (-4.0 / power * np.arange(1, 2 * (heads - power), 2))
    return np.concatenate([slopes, others]).astype(np.float32)


def alibi_bias(
    query_positions, key_positions, heads: int, causal: bool = True, scale: float = 1.0, rounded: bool = False
):
    """A bias that falls linearly with distance, 0 for later keys, which no query sees.

    Args:
        query_positions, key_positions: int32 [B, S] and [B, T] (or [1, S] and [1, T]).
        heads: int N.
        causal: bool; False where queries see later keys: the bias then goes on rising, as transformers' does.
        scale, rounded: as `Scores` has them; rounded, two of the same distance have scores that differ a little.

    Returns:
        float32 [B, N, S, T].
    """
    slopes = alibi_slopes(heads)
    if rounded:
        keys, queries = (_rounded_products(slopes, x) * np.float32(scale) for x in (key_positions, query_positions))
        bias = ops.expand_dims(keys, 2) - ops.expand_dims(queries, 3)  # [B, N, S, T]
        return ops.minimum(bias, 0.0) if causal else bias
    distance = ops.expand_dims(key_positions, 1) - ops.expand_dims(query_positions, 2)  # [B, S, T]
    distance = ops.cast(ops.minimum(distance, 0) if causal else distance, "float32")
    slopes = np.reshape(slopes * np.float32(scale), (1, heads, 1, 1))
    return ops.multiply(ops.expand_dims(distance, 1), slopes)  # [B, 1, S, T] with [1, N, 1, 1]


_BITS = 8  # of a bfloat16's significand
# By where whole numbers are: how much wider the steps between bfloat16 numbers become at each power of two.
_POWERS = 2.0 ** np.arange(_BITS, 32, dtype=np.float32)
_WIDER = _POWERS / 2**_BITS


def _rounded(x):
    """The bfloat16 number next to each whole number, the even one of two: float32 to float32.

    Not by a cast to and fro, which XLA leaves out, and LiteRT does not know.
    """
    steps = 1.0 + ops.sum(ops.cast(ops.expand_dims(x, -1) >= _POWERS, "float32") * _WIDER, axis=-1)
    return ops.round(x / steps) * steps


def _rounded_products(slopes: np.ndarray, positions):
    """Slopes times positions in bfloat16: float32 [N], int32 [B, S] -> float32 [B, N, S]."""
    significands, exponents = np.frexp(slopes)  # significand 0.5 to 1
    whole = np.round(significands * 2**_BITS)  # of bfloat16's 8 bits
    units = np.ldexp(np.float32(1.0), exponents - _BITS).astype(np.float32)
    positions = _rounded(ops.cast(ops.expand_dims(positions, 1), "float32"))
    return _rounded(positions * np.reshape(whole, (1, -1, 1))) * np.reshape(units, (1, -1, 1))
