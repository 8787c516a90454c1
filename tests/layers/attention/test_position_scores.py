"""Scores that positions add, against loops over every pair of tokens."""

import math

import keras
import ml_dtypes
import numpy as np
import pytest
import tiny
from optional_tensorflow import tf

from tfxformer.layers.attention.position_scores import (
    Scores,
    alibi_bias,
    alibi_slopes,
    make_scores,
    relative_bucket,
)


def test_slopes_of_the_paper():
    np.testing.assert_allclose(alibi_slopes(8), [2.0**-i for i in range(1, 9)])
    np.testing.assert_allclose(alibi_slopes(16)[:3], [2**-0.5, 0.5, 2**-1.5])
    # Between powers of two: those of the lower one, then every second of the higher one.
    np.testing.assert_allclose(alibi_slopes(6), [1 / 4, 1 / 16, 1 / 64, 1 / 256, 1 / 2, 1 / 8])
    for heads in range(1, 40):
        slopes = alibi_slopes(heads)
        assert len(set(slopes)) == heads == len(slopes) and (slopes <= 1).all()


@pytest.mark.parametrize("heads", [1, 3, 4, 12])
def test_alibi_bias(heads):
    queries = np.array([[3, 4], [0, 1]], "int32")
    keys = np.array([[0, 1, 2, 3, 4, 5], [-1, -1, -1, 0, 1, 2]], "int32")
    bias = np.asarray(alibi_bias(queries, keys, heads))
    assert bias.shape == (2, heads, 2, 6)
    power = 2 ** math.floor(math.log2(heads))
    for head in range(heads):
        at, of = (head + 1, power) if head < power else (2 * (head - power) + 1, 2 * power)
        slope = 2 ** (-8 * at / of)
        for row in range(2):
            for s in range(2):
                for t in range(6):
                    distance = min(keys[row, t] - queries[row, s], 0)  # later keys are hidden anyway
                    assert bias[row, head, s, t] == pytest.approx(slope * distance, rel=1e-6)


@pytest.mark.parametrize("heads", [3, 24, 71])
@pytest.mark.parametrize("causal", [True, False])
def test_rounded_alibi(heads, causal):
    """Slopes, positions and products as bfloat16 numbers, by the type itself; ties among them (257, 258.5 * 2, ...)."""
    at = np.array([[0, 1, 3, 200, 255, 256, 257, 259, 514, 515, 777, 1023, 1025, 2046, 2047, 5000, 65535]], "int32")
    bias = np.asarray(alibi_bias(at[:, 5:], at, heads, causal, scale=0.25, rounded=True))
    slopes = alibi_slopes(heads).astype(ml_dtypes.bfloat16)
    products = (slopes[:, None] * at.astype(ml_dtypes.bfloat16)).astype("float32")
    wanted = products[:, None, :] - products[:, 5:, None]
    np.testing.assert_array_equal(bias[0], 0.25 * (np.minimum(wanted, 0) if causal else wanted))


def bucket(distance, buckets, longest, causal):
    """Raffel et al., 2019, written for one number; the float32 logarithm is that of the original's code."""
    first = 0
    if causal:
        distance = max(-distance, 0)
    else:
        buckets //= 2
        first = buckets if distance > 0 else 0
        distance = abs(distance)
    near = buckets // 2
    if distance < near:
        return first + distance
    share = np.float32(np.log(np.float32(distance / near)) / math.log(longest / near))
    return first + min(near + int(share * np.float32(buckets - near)), buckets - 1)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(("buckets", "longest"), [(32, 128), (8, 20)])
def test_relative_buckets(buckets, longest, causal):
    distances = np.arange(-300, 301, dtype="int32")
    found = np.asarray(relative_bucket(distances, buckets, longest, causal))
    assert found.tolist() == [bucket(int(one), buckets, longest, causal) for one in distances]
    unused = set() if causal else {buckets // 2}  # that of a later key at no distance
    assert set(found.tolist()) == set(range(buckets)) - unused


@pytest.mark.parametrize("causal", [False, True])
def test_relative_scores_are_rows_of_a_table_and_learn(causal):
    layer = make_scores(Scores("relative", 8, 20), 3, causal, name="scores")
    queries, keys = np.array([[2, 3]], "int32"), np.array([[0, 1, 2, 3, 30]], "int32")
    layer.build()
    tiny.perturb(layer)
    table = np.asarray(layer.embeddings)
    scores = np.asarray(layer(None, None, queries, keys))
    assert scores.shape == (1, 3, 2, 5)
    for s in range(2):
        for t in range(5):
            row = table[bucket(int(keys[0, t] - queries[0, s]), 8, 20, causal)]
            np.testing.assert_allclose(scores[0, :, s, t], row, atol=1e-6)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(layer(None, None, queries, keys))
    gradient = tape.gradient(loss, layer.trainable_variables)
    assert float(tf.reduce_sum(gradient[0])) == pytest.approx(3 * 2 * 5)


def test_layers_come_back_from_their_configs():
    for scores in (Scores("alibi"), Scores("alibi", scale=0.5, rounded=True), Scores("relative", 8, 20)):
        layer = make_scores(scores, 2, True, name="scores", initializer="zeros")
        again = keras.layers.deserialize(keras.layers.serialize(layer))
        assert again.get_config() == layer.get_config() and type(again) is type(layer)
        spec = layer(None, None, keras.KerasTensor((None, 4), "int32"), keras.KerasTensor((None, 6), "int32"))
        assert spec.shape == (None, 2, 4, 6)


def test_wrong_scores():
    with pytest.raises(ValueError, match="have no scale and are not rounded"):
        Scores("relative", scale=0.5)
    with pytest.raises(ValueError, match="scale of scores must be a finite number above 0, not 0"):
        Scores("alibi", scale=0)
    with pytest.raises(ValueError, match="Unknown kind of scores 'rope'; known: alibi, relative"):
        Scores("rope")
    with pytest.raises(ValueError, match="multiple of 4 buckets and a larger max_distance; got 6"):
        Scores("relative", 6)
