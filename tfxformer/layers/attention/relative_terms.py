"""Scores in which contents, distances and segments are compared with queries that have a bias of their own for each.

Shape letters: B batch, S query length, T key length, M = S + T - 1 distances, N heads, H head width, D model width.
Source: Dai et al., 2019 (arXiv:1901.02860), section 3.3; Yang et al., 2019 (arXiv:1906.08237), section 2.5.
"""

from __future__ import annotations

import keras
import numpy as np
from keras import ops

from tfxformer.arguments.keywords import KnownKeywords
from tfxformer.layers.attention.disentangled import by_distance
from tfxformer.layers.quantization.fake_quantization import rounded


def distance_sinusoids(distances, size: int):
    """Sines, then cosines, of each distance by D / 2 frequencies: float32 [M] -> float32 [M, D]."""
    frequencies = (10000.0 ** (-np.arange(0, size, 2, dtype="float32") / size)).astype("float32")
    angles = ops.expand_dims(distances, -1) * frequencies
    return ops.concatenate([ops.sin(angles), ops.cos(angles)], axis=-1)


@keras.saving.register_keras_serializable("tfxformer")
class DistanceSinusoids(KnownKeywords, keras.layers.Layer):
    """`distance_sinusoids` of all distances in a row.

    Args:
        size: int D.

    Call: as `DistanceEmbeddings`: positions that count from 0 on, int32 [B or 1, T] -> [2T - 1, D], those of the
    distances T - 1 to 1 - T, the query's position less the key's.
    """

    learned = True  # by what attention makes of them

    def __init__(self, size, **kwargs):
        super().__init__(**kwargs)
        self.size = size

    def build(self, *shapes):
        self.built = True

    def call(self, query, key, query_positions, key_positions):
        length = ops.shape(key_positions)[1]
        if isinstance(length, int):  # numbers, so that a file holds what they give
            distances = np.arange(length - 1, -length, -1).astype("float32")
        else:
            distances = ops.cast(length - 1 - ops.arange(2 * length - 1, dtype="int32"), "float32")
        return ops.cast(distance_sinusoids(distances, self.size), self.compute_dtype)

    def compute_output_spec(self, query, key, query_positions, key_positions):
        length = key_positions.shape[1]
        return keras.KerasTensor((None if length is None else 2 * length - 1, self.size), dtype=self.compute_dtype)

    def get_config(self):
        return {**super().get_config(), "size": self.size}


@keras.saving.register_keras_serializable("tfxformer")
class RelativeTerms(KnownKeywords, keras.layers.Layer):
    """The sum of a query's products with a key, with their distance and with whether their segments differ.

    Args:
        num_heads: int N.
        head_size: int H.
        segments: bool, whether segments are compared.
        initializer: initializer of the biases and of the segments' embeddings.

    Call: query [B, N, S, H], scaled; key [B, N, T, H]; of_distances [1, N, M, H], the distances from S - 1 on, as keys
    are projected; scale, float, what the query was multiplied by; segments int [B, T] or None, where the queries are
    the first S of the T tokens -> [B, N, S, T].
    """

    def __init__(self, num_heads, head_size, segments=False, initializer="glorot_uniform", **kwargs):
        super().__init__(**kwargs)
        self.num_heads = num_heads
        self.head_size = head_size
        self.segments = segments
        self.initializer = keras.initializers.get(initializer)

    def build(self, *shapes):
        width = self.num_heads * self.head_size

        def weight(name, shape):
            # A clone each: an initializer gives all that share it the same numbers.
            initializer = self.initializer
            known = isinstance(initializer, keras.initializers.Initializer)
            return self.add_weight(name=name, shape=shape, initializer=initializer.clone() if known else initializer)

        self.content_bias = weight("content_bias", (width,))
        self.position_bias = weight("position_bias", (width,))
        self.segment_bias = weight("segment_bias", (width,)) if self.segments else None
        self.segment_embeddings = weight("segment_embeddings", (2, width)) if self.segments else None

    def call(self, query, key, of_distances, scale, segments=None):
        columns = ops.shape(key)[2]

        def product(bias, other, name):
            asking = query + self._by_heads(bias) * scale
            return rounded(ops.matmul(asking, ops.transpose(other, (0, 1, 3, 2))), self, name)

        scores = product(self.content_bias, key, "content")
        distances = by_distance(product(self.position_bias, of_distances, "distances"), columns)
        scores = rounded(scores + distances, self, "positioned")
        if not self.segments or segments is None:
            return scores
        # What all keys have in common changes no probability: left is what another segment has more than one's own.
        other = self._by_heads(self.segment_embeddings[1] - self.segment_embeddings[0])
        asked = ops.expand_dims(segments[:, : ops.shape(query)[2]], 2)  # [B, S, 1]
        differs = ops.cast(ops.expand_dims(ops.not_equal(asked, ops.expand_dims(segments, 1)), 1), scores.dtype)
        return rounded(scores + product(self.segment_bias, other, "segments") * differs, self, "segmented")

    def _by_heads(self, x):
        """[N * H] -> [1, N, 1, H]."""
        return ops.reshape(x, (1, self.num_heads, 1, self.head_size))

    def compute_output_spec(self, query, key, *args, **kwargs):
        return keras.KerasTensor((*query.shape[:3], key.shape[2]), dtype=self.compute_dtype)

    def get_config(self):
        return {
            **super().get_config(),
            "num_heads": self.num_heads,
            "head_size": self.head_size,
            "segments": self.segments,
            "initializer": keras.initializers.serialize(self.initializer),
        }
