"""One vector per text, from one per token; and those of some positions, as a batch names them.

Shape letters: P named positions of a row.
"""

from __future__ import annotations

import keras
from keras import ops

from tfxformer.arguments.keywords import KnownKeywords
from tfxformer.layers.attention.masks import row_slots

# By the names of sentence-transformers.
POOLINGS = ("cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")


def check_pooling(pooling) -> tuple[str, ...]:
    """The kinds of a pooling, one name or several, as a tuple.

    Raises:
        ValueError: for an unknown one, or none.
    """
    kinds = (pooling,) if isinstance(pooling, str) else tuple(pooling)
    unknown = [kind for kind in kinds if kind not in POOLINGS]
    if unknown or not kinds:
        raise ValueError(f"Unknown pooling {pooling!r}; known: {', '.join(POOLINGS)}, or a list of some, put together.")
    return kinds


@keras.saving.register_keras_serializable("tfxformer")
class Pooling(KnownKeywords, keras.layers.Layer):
    """One vector per text, from one per token.

    Args:
        pooling: "mean" over the real tokens; "cls" or "lasttoken", the first or the last of them; "max" of each
            column; "mean_sqrt_len_tokens", their sum by the square root of their number; "weightedmean" with the
            weights 1, 2, 3, ... (Muennighoff, 2022, arXiv:2202.08904). Several give their vectors side by side.

    Call: sequence [B, S, D], padding_mask [B, S], pooled_mask [B, S] or None -> float32 [B, D] (of several kinds K,
    [B, K * D]). Tokens that the second mask leaves out count for positions, but are not pooled.

    Source: `Pooling` of sentence-transformers 6.2.
    """

    def __init__(self, pooling="mean", **kwargs):
        super().__init__(**kwargs)
        self.kinds = check_pooling(pooling)

    @property
    def first_only(self) -> bool:
        """Whether nothing but the first token is read."""
        return self.kinds == ("cls",)

    def call(self, sequence, padding_mask, pooled_mask=None):
        sequence = ops.cast(sequence, "float32")
        real = ops.not_equal(padding_mask, 0)
        kept = real if pooled_mask is None else ops.logical_and(real, ops.not_equal(pooled_mask, 0))
        parts = [self._pool(kind, sequence, real, kept, pooled_mask is not None) for kind in self.kinds]
        return parts[0] if len(parts) == 1 else ops.concatenate(parts, axis=-1)

    def _pool(self, kind, sequence, real, kept, partly):
        weights = ops.expand_dims(ops.cast(kept, "float32"), -1)  # [B, S] -> [B, S, 1]
        if kind == "cls" and not partly:
            return sequence[:, 0]
        if kind in ("cls", "lasttoken"):
            return ops.sum(sequence * chosen_token(kept, first=kind == "cls"), axis=1)
        if kind == "max":
            # Where nothing is kept the lowest value of the column stands: it is never above a real one, and in the
            # range of the others, which the quantization of a file depends on.
            lowest = ops.min(sequence, axis=1, keepdims=True)
            return ops.max(sequence * weights + lowest * (1.0 - weights), axis=1)
        if kind == "weightedmean":
            weights = weights * ops.expand_dims(_positions(real), -1)
            # Shares of one first: sums that grow with the text would leave short ones little of an int8 range.
            return ops.sum(sequence * (weights / ops.maximum(ops.sum(weights, axis=1, keepdims=True), 1.0)), axis=1)
        if kind == "mean":
            return mean_vector(sequence, kept)
        return ops.sum(sequence * weights, axis=1) / ops.sqrt(ops.maximum(ops.sum(weights, axis=1), 1.0))

    def compute_output_spec(self, sequence, *args, **kwargs):
        return keras.KerasTensor((sequence.shape[0], len(self.kinds) * sequence.shape[-1]), dtype="float32")

    def get_config(self):
        return {**super().get_config(), "pooling": list(self.kinds)}


def mean_vector(sequence, kept):
    """Mean over the kept tokens: [B, S, D] and bool [B, S] -> float32 [B, D]."""
    weights = ops.expand_dims(ops.cast(kept, "float32"), -1)  # [B, S] -> [B, S, 1]
    total = ops.sum(ops.cast(sequence, "float32") * weights, axis=1)
    return total / ops.maximum(ops.sum(weights, axis=1), 1.0)


def between_tokens(token_ids, opening: int, closing: int):
    """Whether tokens stand behind the first `opening` and before the first `closing`: int [B, S] -> bool [B, S]."""
    opens, closes = (ops.equal(token_ids, one) for one in (opening, closing))
    opened, closed = (ops.greater(ops.cumsum(ops.cast(one, "int32"), axis=1), 0) for one in (opens, closes))
    return ops.logical_and(ops.logical_and(opened, ops.logical_not(closed)), ops.logical_not(opens))


def _positions(real):
    """1, 2, 3, ... from the first real token on: bool [B, S] -> float32 [B, S]."""
    slots = row_slots(ops.cast(real, "int32"))
    past = ops.max(slots) + 1
    first = ops.min(ops.where(real, slots, past), axis=1, keepdims=True)  # [B, 1]
    return ops.cast(slots - first + 1, "float32")


def chosen_token(kept, first: bool):
    """1 at the first (or last) kept token of each row: bool [B, S] -> float32 [B, S, 1].

    Found by counting: found by the largest slot, files in "int8" chose other tokens.
    """
    count = ops.cumsum(ops.cast(kept, "int32"), axis=1)
    number = 1 if first else ops.max(count, axis=1, keepdims=True)
    return ops.expand_dims(ops.cast(ops.logical_and(kept, ops.equal(count, number)), "float32"), -1)


@keras.saving.register_keras_serializable("tfxformer")
class UnitLength(KnownKeywords, keras.layers.Layer):
    """Vectors of length one: [B, D] -> [B, D]."""

    def call(self, vectors):
        squares = ops.sum(vectors * vectors, axis=-1, keepdims=True)
        return vectors * ops.rsqrt(ops.maximum(squares, 1e-24))


@keras.saving.register_keras_serializable("tfxformer")
class FirstDimensions(KnownKeywords, keras.layers.Layer):
    """The first numbers of vectors, [B, D] -> [B, dimensions]: what a Matryoshka embedder keeps of them (Kusupati et
    al., 2022, arXiv:2205.13147).

    Args:
        dimensions: int, at most D.
    """

    def __init__(self, dimensions, **kwargs):
        super().__init__(**kwargs)
        self.dimensions = dimensions

    def call(self, vectors):
        return vectors[:, : self.dimensions]

    def compute_output_spec(self, vectors):
        return keras.KerasTensor((vectors.shape[0], self.dimensions), dtype=vectors.dtype)

    def get_config(self):
        return {**super().get_config(), "dimensions": self.dimensions}


def gather_positions(x, positions):
    """The rows of some positions: [B, S, D] and int32 [B, P] -> [B, P, D], zeros where a position is -1.

    A product with a one-hot matrix, exact in every dtype: its gradient is a product too, where that of a gather
    would be a scatter, which is slow on TPUs.
    """
    return ops.matmul(ops.one_hot(positions, ops.shape(x)[1], dtype=x.dtype), x)  # [B, P, S] @ [B, S, D]


def scatter_positions(values, positions, length):
    """Values at their positions: [B, P] and int32 [B, P] -> [B, length], 0 where no value is put.

    No position may come twice in a row; values at -1 go nowhere.
    """
    places = ops.one_hot(positions, length, dtype=values.dtype)  # [B, P, length]
    return ops.sum(ops.expand_dims(values, -1) * places, axis=1)
