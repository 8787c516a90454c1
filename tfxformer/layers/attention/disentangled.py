"""Disentangled attention: distances have embeddings, which queries and keys are compared with (He et al., 2020).

Shape letters: B batch, S query length, T key length, M = S + T - 1 distances, N heads, H head width, D model width.
Source: arXiv:2006.03654, arXiv:2111.09543.
"""

from __future__ import annotations

import keras
import numpy as np
from keras import ops

from tfxformer.arguments.keywords import KnownKeywords
from tfxformer.layers.kernels.formulas import embedding_lookup
from tfxformer.layers.normalization import make_norm

CONTENT_TO_POSITION, POSITION_TO_CONTENT = TERMS = ("content_to_position", "position_to_content")


def distance_bucket(distance: np.ndarray, buckets: int, max_distance: int) -> np.ndarray:
    """The signed bucket of each distance: near ones have one each, farther ones share them by their logarithm.

    Args:
        distance: int, query's position less the key's.
        buckets: on either side; half of them are for near distances. 0 for a bucket for each distance.
        max_distance: the first distance that is in the last bucket, plus 1.

    Returns:
        int64, of the same shape.
    """
    if not buckets:
        return np.asarray(distance, "int64")
    near = buckets // 2
    size = np.maximum(np.abs(distance), near).astype("float32")
    growth = np.log(size / np.float32(near)) / np.log(np.float32((max_distance - 1) / near))
    far = np.sign(distance) * (np.ceil(growth * np.float32(near - 1)) + near)
    return np.where(np.abs(distance) <= near, distance, far).astype("int64")


def by_distance(products, columns):
    """A column for each distance as one for each key, which stand a column further to the left in every next row.

    By padding and reshaping alone: neither a lookup nor a matrix of distances, which grow with the square of S.

    Args:
        products: [B, N, S, S + columns - 1], in the order of key less query, from 1 - S on.
        columns: int T.

    Returns:
        [B, N, S, T].
    """
    heads, rows, width = products.shape[1], ops.shape(products)[2], ops.shape(products)[3]
    flat = ops.reshape(ops.pad(products, ((0, 0), (0, 0), (0, 0), (0, 1))), (-1, heads, rows * (width + 1)))
    flat = flat[:, :, rows - 1 : rows - 1 + rows * width]
    return ops.reshape(flat, (-1, heads, rows, width))[..., :columns]


def distance_scores(query, key, of_keys, of_queries, scale, rounded):
    """What the embeddings of distances add to the scores.

    Args:
        query, key: [B, N, S, H], already scaled, and [B, N, T, H].
        of_keys, of_queries: [1, N, M, H], the embeddings of the distances S - 1 to 1 - T, projected as keys and as
            queries are; None for a term that there is not, of one of them.
        scale: float, what queries are multiplied by.
        rounded: (scores, name) -> scores, how int8 will hold them.

    Returns:
        [B, N, S, T].
    """
    found = []
    if of_keys is not None:
        products = ops.matmul(query, ops.transpose(of_keys, (0, 1, 3, 2)))
        found.append(rounded(by_distance(products, ops.shape(key)[2]), CONTENT_TO_POSITION))
    if of_queries is not None:  # by keys, which see the distances in the other order
        products = ops.matmul(key, ops.transpose(ops.flip(of_queries, axis=2) * scale, (0, 1, 3, 2)))
        products = by_distance(products, ops.shape(query)[2])  # [B, N, T, S]
        found.append(rounded(ops.transpose(products, (0, 1, 3, 2)), POSITION_TO_CONTENT))
    return found[0] if len(found) == 1 else rounded(found[0] + found[1], "distances")


@keras.saving.register_keras_serializable("tfxformer")
class DistanceEmbeddings(KnownKeywords, keras.layers.Layer):
    """The embeddings of all distances in a row, from a table with a row for each bucket of them.

    Args:
        size: int D.
        buckets, max_distance: see `distance_bucket`.
        norm_epsilon: float, epsilon of a norm of the rows; None for none.
        initializer: initializer of the table.

    Call: as `PositionScores` is called; of positions that count from 0 on, int32 [B or 1, T] -> [2T - 1, D], those of
    the distances T - 1 to 1 - T, the query's position less the key's.
    """

    learned = True

    def __init__(self, size, buckets=0, max_distance=512, norm_epsilon=None, initializer="uniform", **kwargs):
        super().__init__(**kwargs)
        self.size = size
        self.buckets = buckets
        self.max_distance = max_distance
        self.norm_epsilon = norm_epsilon
        self.initializer = keras.initializers.get(initializer)

    def build(self, *shapes):
        side = self.buckets or self.max_distance
        self.embeddings = self.add_weight(
            name="embeddings", shape=(2 * side, self.size), initializer=self.initializer, autocast=False
        )
        self.norm = None
        if self.norm_epsilon is not None:
            self.norm = make_norm("layer", self.norm_epsilon, self.dtype_policy, "norm")
            self.norm.build((None, self.size))
        known = distance_bucket(np.arange(-self.max_distance, self.max_distance + 1), self.buckets, self.max_distance)
        self._rows = np.clip(known + side, 0, 2 * side - 1).astype("int32")  # of every distance, by its place here

    def call(self, query, key, query_positions, key_positions):
        rows = embedding_lookup(self.embeddings, self._places(ops.shape(key_positions)[1]))
        rows = ops.cast(rows, self.compute_dtype)
        return rows if self.norm is None else self.norm(rows)

    def _places(self, length):
        """The table's row of each distance: numbers where the length is one, so that a file holds what they look up."""
        if isinstance(length, int):
            distance = np.arange(length - 1, -length, -1)
            return self._rows[np.clip(distance, -self.max_distance, self.max_distance) + self.max_distance]
        distance = length - 1 - ops.arange(2 * length - 1, dtype="int32")
        return ops.take(self._rows, ops.clip(distance, -self.max_distance, self.max_distance) + self.max_distance)

    def compute_output_spec(self, query, key, query_positions, key_positions):
        length = key_positions.shape[1]
        rows = None if length is None else 2 * length - 1
        return keras.KerasTensor((rows, self.size), dtype=self.compute_dtype)

    def get_config(self):
        return {
            **super().get_config(),
            "size": self.size,
            "buckets": self.buckets,
            "max_distance": self.max_distance,
            "norm_epsilon": self.norm_epsilon,
            "initializer": keras.initializers.serialize(self.initializer),
        }
