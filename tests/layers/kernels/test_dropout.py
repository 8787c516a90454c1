"""Dropout: its statistics, its gradient, and one mask whoever runs it."""

import keras
import numpy as np
import pytest
from optional_tensorflow import tf

from tfxformer.layers.kernels import clusters, random_bits
from tfxformer.layers.kernels import formulas as kernels
from tfxformer.layers.kernels.dropout import Dropout, drop_path, dropout, split_seed, split_seeds

pytestmark = pytest.mark.usefixtures("clusters_of_any_size")

SIZE = 2**20


def seed(first=11, second=0):
    return tf.constant([first, second], tf.int64)


def kept(rate, key, shape=(SIZE,)):
    return np.asarray(dropout(tf.ones(shape), rate, key)) != 0


def correlation(a, b):
    """Of two boolean arrays, in standard deviations of what independence gives."""
    a, b = a - a.mean(), b - b.mean()
    return (a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum()) * np.sqrt(a.size)


@pytest.mark.parametrize("rate", [0.01, 0.1, 0.5, 0.9])
def test_rate_and_mean(rate):
    y = np.asarray(dropout(tf.ones((SIZE,)), rate, seed()), "float64")
    deviation = np.sqrt(rate * (1 - rate) / SIZE)
    assert abs((y == 0).mean() - rate) < 4.5 * deviation
    assert abs(y.mean() - 1.0) < 4.5 * deviation / (1 - rate)
    np.testing.assert_allclose(y[y != 0], 1.0 / (1.0 - rate), rtol=1e-6)


def test_positions_are_independent():
    mask = kept(0.5, seed())
    for lag in (1, 2, 3, 32, 128, 384, 1536, 2**14):
        assert abs(correlation(mask[lag:], mask[:-lag])) < 4.5, lag
    counts = kept(0.5, seed(), (SIZE // 128, 128)).sum(axis=1)  # per row: binomial
    assert abs(counts.var() / 32.0 - 1.0) < 4.5 * np.sqrt(2.0 / counts.size)
    columns = kept(0.5, seed(), (SIZE // 128, 128)).sum(axis=0)
    assert abs(columns.var() / (SIZE / 128 / 4) - 1.0) < 4.5 * np.sqrt(2.0 / 128)


def test_bits_are_balanced_and_words_distinct():
    words = np.asarray(random_bits.random_bits((SIZE,), seed())).astype("uint64")
    for bit in range(32):
        assert abs(((words >> bit) & 1).mean() - 0.5) < 4.5 * 0.5 / np.sqrt(SIZE), bit
    assert len(np.unique(words)) == SIZE  # the hash of positions is a permutation


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("shape", [(), (7,), (3, 1, 5), (2, 3, 4, 5)])
def test_a_position_is_its_row_major_number(shape, known):
    numbers = np.arange(np.prod(shape, dtype="int64")).reshape(shape)
    sizes = shape if known else tuple(tf.constant(size) for size in shape)
    words = random_bits.random_bits(sizes, seed())
    np.testing.assert_array_equal(words, random_bits.bits_at(random_bits.word(numbers), seed()))


def test_no_constant_of_the_tensor_s_size_is_in_the_program():
    shape = (64, 4, 128, 128)
    drop = tf.function(lambda x, seed: dropout(x, 0.1, seed), jit_compile=True, autograph=False)
    program = drop.experimental_get_compiler_ir(tf.ones(shape), tf.constant([11, 0]))(stage="hlo_serialized")
    assert len(program) < np.prod(shape) / 16  # bytes; the constant would take more than one an element


def test_seeds_are_independent():
    """Neighbouring seeds, counters and splits, also with one mask shifted against the other."""
    keys = [
        seed(),
        seed(12),
        seed(11, 1),
        seed(12, 1),
        seed(11, -1),
        split_seed(seed(), 0),
        split_seed(seed(), 1),
    ]
    keys += [split_seed(seed(12), 0), split_seed(seed(11, 1), 0)]
    masks = [kept(0.5, key, (2**16,)) for key in keys]
    for i, first in enumerate(masks):
        for second in masks[:i]:
            assert abs(correlation(first, second)) < 4.8
            for shift in (1, 2, 128):
                assert abs(correlation(first[shift:], second[:-shift])) < 4.8


def test_one_mask_in_eager_graph_xla_and_plain_formula():
    x = tf.random.normal((8, 16, 24))

    def call(x, key):
        return dropout(x, 0.3, key)

    expected = call(x, seed())
    plain = kernels._drop(0.3, seed(), x)
    graph = tf.function(call, autograph=False)(x, seed())
    compiled = tf.function(call, autograph=False, jit_compile=True)(x, seed())
    unknown = tf.function(call, autograph=False, input_signature=[tf.TensorSpec(None), tf.TensorSpec([2], tf.int64)])
    for other in (plain, graph, compiled):
        np.testing.assert_array_equal(np.asarray(other) != 0, np.asarray(expected) != 0)
        np.testing.assert_allclose(other, expected, rtol=1e-6)
    with pytest.raises((ValueError, TypeError)):  # an unknown rank is an error, not a wrong mask
        unknown(x, seed())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_gradient_goes_through_the_same_mask(dtype):
    x = tf.cast(tf.random.normal((64, 64)), dtype)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = dropout(x, 0.2, seed())
    gradient = tape.gradient(y, x)
    assert y.dtype == gradient.dtype == x.dtype
    np.testing.assert_array_equal(tf.cast(gradient, "float32") != 0, tf.cast(y, "float32") != 0)


def test_rate_zero_is_the_input_and_rate_one_an_error():
    x = tf.ones((3,))
    assert dropout(x, 0.0, None) is x
    assert drop_path(x, 0.0, None) is x
    for rate in (1.0, -0.1, 3):
        with pytest.raises(ValueError, match="at least 0 and below 1"):
            dropout(x, rate, seed())


def test_drop_path_drops_whole_samples():
    y = np.asarray(drop_path(tf.ones((2000, 3, 5)), 0.25, seed())).reshape(2000, -1)
    assert ((y == 0).all(axis=1) | np.isclose(y, 4 / 3).all(axis=1)).all()
    assert abs((y[:, 0] == 0).mean() - 0.25) < 4.5 * np.sqrt(0.25 * 0.75 / 2000)


def test_split_seed_is_a_seed_of_the_same_kind():
    parts = np.array([split_seed(seed(), index) for index in range(200)])
    assert len(np.unique(parts)) == parts.size
    assert parts.min() >= 0
    assert split_seed(tf.constant([1, 2], tf.int32), 0).dtype == tf.int32
    with pytest.raises(ValueError, match="index"):
        split_seed(seed(), -1)


@pytest.mark.parametrize("dtype", [tf.int64, tf.int32])
def test_seeds_drawn_together_are_those_drawn_one_by_one(dtype):
    start = tf.constant([11, 2**31 - 5], dtype)
    expected = [np.asarray(split_seed(start, index)) for index in range(9)]
    graph = tf.function(lambda seed: split_seeds(seed, 9), autograph=False)
    with clusters.plain_operations():
        plain = split_seeds(start, 9)
    for parts in (split_seeds(start, 9), graph(start), plain):
        assert all(part.dtype == dtype for part in parts)
        np.testing.assert_array_equal(parts, expected)


def test_layer_draws_a_new_mask_each_step_and_saves_its_config(tmp_path):
    layer = Dropout(0.5, seed=3)
    x = tf.ones((100,))
    first, second = layer(x, training=True), layer(x, training=True)
    assert (np.asarray(first) != np.asarray(second)).any()
    np.testing.assert_array_equal(layer(x), x)
    again = Dropout.from_config(layer.get_config())
    np.testing.assert_array_equal(again(x, training=True), first)
    model = keras.Sequential([keras.Input((100,)), layer])
    model.save(tmp_path / "model.keras")
    assert keras.saving.load_model(tmp_path / "model.keras").layers[0].rate == 0.5
