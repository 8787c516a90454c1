"""Kernels against numpy in float64 and against plain Keras, wherever a training step may run them."""

import functools
import math

import keras
import numpy as np
import pytest
import replicas
from keras import ops
from optional_tensorflow import tf

from tfxformer.layers.kernels import clusters
from tfxformer.layers.kernels import formulas as kernels

pytestmark = pytest.mark.usefixtures("clusters_of_any_size")

B, N, S, T, H, D = 2, 3, 6, 5, 4, 12
SEED = tf.constant([7, 3], tf.int64)
RANDOM = np.random.default_rng(0)


def normal(*shape):
    return RANDOM.standard_normal(shape).astype("float32")


@functools.cache
def mask_of(shape, rate):
    """The dropout multipliers that the seed means, read off the public function."""
    return np.asarray(kernels.dropout(tf.ones(shape), rate, SEED), "float64")


def gelu_truth(x, bias, approximate):
    x = x.astype("float64") + bias
    if approximate:
        return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    return 0.5 * x * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


def attend_truth(scores, bias, value, rate):
    scores = scores.astype("float64") + bias
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    return weights * mask_of(scores.shape, rate) @ value.astype("float64")


def rms_norm_truth(x, gamma):
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-5) * gamma


def add_norm_truth(x, residual, gamma, beta, bias, rate):
    total = (x.astype("float64") + bias) * mask_of(x.shape, rate) + residual
    centred = total - total.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5) * gamma + beta


def split_truth(x, bias, heads, scale):
    x = x.astype("float64") + bias
    parts = np.split(x, np.cumsum(np.array(heads) * H)[:-1], axis=-1)
    parts = [part.reshape(B, S, -1, H).transpose(0, 2, 1, 3) for part in parts]
    return [parts[0] * scale, parts[1], parts[2]]


BIAS = np.where(RANDOM.random((B, 1, 1, T)) > 0.8, -1e9, 0.0).astype("float32")
GROUPED = (4, 2, 2)
CASES = {
    "gelu": (
        lambda x, bias: kernels.gelu(x, bias),
        lambda x, bias: gelu_truth(x, bias, False),
        [normal(B, S, D), normal(D)],
    ),
    "gelu_tanh": (
        lambda x: kernels.gelu(x, approximate=True),
        lambda x: gelu_truth(x, 0.0, True),
        [normal(B, S, D)],
    ),
    "add_bias": (kernels.add_bias, lambda x, bias: x.astype("float64") + bias, [normal(B, S, D), normal(D)]),
    "dropout": (
        lambda x: kernels.dropout(x, 0.3, SEED),
        lambda x: x * mask_of(x.shape, 0.3),
        [normal(B, S, D)],
    ),
    "attend": (
        lambda scores, value: kernels.attend(scores, tf.constant(BIAS), value, 0.3, SEED),
        lambda scores, value: attend_truth(scores, BIAS, value, 0.3),
        [normal(B, N, S, T), normal(B, N, T, H)],
    ),
    "attend_plain": (
        lambda scores, value: kernels.attend(scores, None, value),
        lambda scores, value: attend_truth(scores, 0.0, value, 0.0),
        [normal(B, N, S, T), normal(B, N, T, H)],
    ),
    "split_heads": (
        lambda x, bias: kernels.split_heads(x, bias, GROUPED, H, 0.5),
        lambda x, bias: split_truth(x, bias, GROUPED, 0.5),
        [normal(B, S, 8 * H), normal(8 * H)],
    ),
    "split_heads_plain": (
        lambda x: kernels.split_heads(x, None, (N, N, N), H, 0.5),
        lambda x: split_truth(x, 0.0, (N, N, N), 0.5),
        [normal(B, S, 3 * N * H)],
    ),
    "add_norm": (
        lambda x, residual, gamma, beta, bias: kernels.add_norm(x, residual, gamma, beta, 1e-5, bias, 0.3, SEED),
        lambda x, residual, gamma, beta, bias: add_norm_truth(x, residual, gamma, beta, bias, 0.3),
        [normal(B, S, D), normal(B, S, D), normal(D), normal(D), normal(D)],
    ),
    "rms_norm": (
        lambda x, residual, gamma: kernels.add_norm(x, residual, gamma, None, 1e-5),
        lambda x, residual, gamma: rms_norm_truth(x.astype("float64") + residual, gamma),
        [normal(B, S, D), normal(B, S, D), normal(D)],
    ),
    "norm": (
        lambda x, gamma, beta: kernels.add_norm(x, None, gamma, beta, 1e-5),
        lambda x, gamma, beta: add_norm_truth(x, 0.0, gamma, beta, 0.0, 0.0),
        [normal(B, S, D), normal(D), normal(D)],
    ),
}


def weighed(function, tensors, shapes=None):
    """Results, and gradients of their sum under fixed uneven weights; `shapes` where the results' own are unknown."""
    with tf.GradientTape() as tape:
        tape.watch(tensors)
        results = tf.nest.flatten(function(*tensors))
        shapes = shapes or [result.shape for result in results]
        terms = [tf.cast(result, "float32") * weights(shape) for result, shape in zip(results, shapes, strict=True)]
        loss = tf.add_n([tf.reduce_sum(term) for term in terms])
    return results, tape.gradient(loss, tensors)


def weights(shape):
    return np.cos(np.arange(math.prod(shape))).reshape(shape).astype("float32")


def numerical_gradients(truth, arrays):
    """Central differences of the float64 truth."""

    def loss(arrays):
        results = truth(*arrays)
        results = results if isinstance(results, list) else [results]
        return sum((result * weights(result.shape)).sum() for result in results)

    gradients = []
    for which, array in enumerate(arrays):
        gradient = np.zeros(array.shape)
        for index in np.ndindex(array.shape):
            values = []
            for step in (1e-5, -1e-5):
                moved = [other.astype("float64") for other in arrays]
                moved[which][index] += step
                values.append(loss(moved))
            gradient[index] = (values[0] - values[1]) / 2e-5
        gradients.append(gradient)
    return gradients


@pytest.mark.parametrize("name", CASES)
def test_result_and_gradient_are_those_of_the_formula(name):
    function, truth, arrays = CASES[name]
    results, gradients = weighed(function, [tf.constant(array) for array in arrays])
    expected = truth(*arrays)
    for result, value in zip(results, expected if isinstance(expected, list) else [expected], strict=True):
        np.testing.assert_allclose(result, value, rtol=1e-5, atol=2e-6)
    for gradient, value in zip(gradients, numerical_gradients(truth, arrays), strict=True):
        np.testing.assert_allclose(gradient, value, rtol=1e-4, atol=2e-5)


TENSORS = {name: [tf.constant(array) for array in arrays] for name, (_, _, arrays) in CASES.items()}


@pytest.fixture(scope="module")
def eager_results(clusters_of_any_size):
    return {name: weighed(CASES[name][0], tensors) for name, tensors in TENSORS.items()}


@pytest.mark.parametrize("place", ["plain", "few", "graph", "xla", "recomputed", "unknown_batch"])
def test_everywhere_the_same(place, eager_results, monkeypatch):
    """Plain `keras.ops` (as on a GPU), without XLA, in a graph, in a step compiled whole, under recomputation."""
    shapes = {name: [result.shape for result in results] for name, (results, _) in eager_results.items()}

    def everything(tensors):
        found = {}
        for name, (function, *_) in CASES.items():
            function = tf.recompute_grad(function) if place == "recomputed" else function
            found[name] = weighed(function, tensors[name], shapes[name])
        return found

    if place == "plain":
        monkeypatch.setattr(clusters, "use_clusters", lambda: False)
    elif place == "few":  # elements: TensorFlow's operators, not XLA's
        monkeypatch.setattr(clusters, "FEW_ELEMENTS", 2**16)
    else:
        unknown = tf.nest.map_structure(
            lambda x: tf.TensorSpec([None, *x.shape[1:]] if len(x.shape) > 1 else x.shape), TENSORS
        )
        signature = [unknown] if place == "unknown_batch" else None
        everything = tf.function(
            everything, autograph=False, jit_compile=place == "xla" or None, input_signature=signature
        )
    found = everything(TENSORS)
    for name, wanted in eager_results.items():
        for other, value in zip(tf.nest.flatten(found[name]), tf.nest.flatten(wanted), strict=True):
            np.testing.assert_allclose(other, value, rtol=1e-4, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("name", CASES)
def test_half_precision_keeps_its_dtype_and_rounds_once(name, dtype):
    function, _, arrays = CASES[name]
    rounded = [tf.cast(array, dtype) for array in arrays]
    results, gradients = weighed(function, rounded)
    wide, wide_gradients = weighed(function, [tf.cast(array, "float32") for array in rounded])
    tolerance = 2.0 ** (-7 if dtype == "bfloat16" else -10)
    for value, other in zip([*results, *gradients], [*wide, *wide_gradients], strict=True):
        assert value.dtype == dtype
        scale = np.abs(other).max()
        np.testing.assert_allclose(tf.cast(value, "float32"), other, rtol=2 * tolerance, atol=2 * tolerance * scale)


def test_bias_gradient_sums_many_rows_in_float32():
    """TensorFlow's BiasAddGrad adds bfloat16 to bfloat16: rows beyond the first few hundred are lost."""
    x = tf.cast(normal(4096, 16) + 0.5, "bfloat16")
    bias = tf.zeros((16,), "bfloat16")
    expected = np.asarray(tf.cast(x, "float64")).sum(axis=0)
    with tf.GradientTape() as tape:
        tape.watch(bias)
        y = kernels.add_bias(tf.zeros_like(x), bias)
    gradient = tape.gradient(y, bias, output_gradients=x)
    np.testing.assert_allclose(tf.cast(gradient, "float64"), expected, rtol=2**-8)


def test_second_derivative():
    x = tf.constant(normal(8))
    with tf.GradientTape() as outer:
        outer.watch(x)
        with tf.GradientTape() as inner:
            inner.watch(x)
            y = kernels.gelu(x)
        first = inner.gradient(y, x)
    second = outer.gradient(first, x)
    wide = np.asarray(x, "float64")
    expected = (2 - wide**2) * np.exp(-(wide**2) / 2) / math.sqrt(2 * math.pi)
    np.testing.assert_allclose(second, expected, rtol=1e-4, atol=1e-6)


def test_fully_padded_row_stays_finite():
    bias = np.full((1, 1, 1, 4), -1e9, "float32")
    results, gradients = weighed(
        lambda scores, value: kernels.attend(scores, bias, value),
        [tf.ones((1, 1, 4, 4)), tf.ones((1, 1, 4, 2))],
    )
    assert all(np.isfinite(x).all() for x in [*results, *gradients])


def test_seed_of_a_generator_inside_a_compiled_step():
    """The seed is read from a variable: a kernel must not look for that variable's gradient."""
    generator = keras.random.SeedGenerator(0)

    @tf.function(autograph=False)
    def step(scores, value):
        return weighed(lambda *x: kernels.attend(x[0], None, x[1], 0.5, generator.next()), [scores, value])

    inputs = tf.constant(normal(B, N, S, T)), tf.constant(normal(B, N, T, H))
    first, second = step(*inputs)[0][0], step(*inputs)[0][0]
    assert not np.allclose(first, second)


def test_embedding_gradient_is_dense_and_sums_repeated_ids():
    table, ids = tf.constant(normal(7, 3)), np.array([[1, 2, 2], [6, 1, 2]])
    upstream = normal(2, 3, 3)
    for function in (kernels.embedding_lookup, tf.function(kernels.embedding_lookup)):
        with tf.GradientTape() as tape:
            tape.watch(table)
            rows = function(table, tf.constant(ids))
            loss = tf.reduce_sum(rows * upstream)
        gradient = tape.gradient(loss, table)
        assert isinstance(gradient, tf.Tensor)
        expected = np.zeros((7, 3))
        np.add.at(expected, ids, upstream)
        np.testing.assert_allclose(gradient, expected, rtol=1e-6)
        np.testing.assert_array_equal(rows, np.asarray(table)[ids])
    np.testing.assert_array_equal(kernels.embedding_lookup(table, ids, "gather"), np.asarray(table)[ids])
    with pytest.raises(ValueError, match="known: take, gather"):
        kernels.embedding_lookup(table, ids, "scatter")


def test_embedding_of_a_variable():
    table = keras.Variable(normal(7, 3))
    with tf.GradientTape() as tape:
        loss = ops.sum(kernels.embedding_lookup(table, np.array([0, 0, 3])))
    np.testing.assert_allclose(tape.gradient(loss, table.value)[:, 0], [2, 0, 0, 1, 0, 0, 0])


def gradients_of_halves_and_of_the_whole(strategy):
    """For `replicas.run`: gradients summed over two replicas, those of one device, and whether dropout stays finite."""
    x = np.random.default_rng(0).standard_normal((4, 3, 6, 6)).astype("float32")
    value = x[..., :2] + 1
    with strategy.scope():
        bias, gamma = tf.Variable(tf.ones(2)), tf.Variable(tf.ones(2))

    def loss_of(x, value, rate):
        y = kernels.gelu(kernels.attend(x, None, value, rate, SEED), bias)
        return tf.reduce_sum(kernels.add_norm(y, value, gamma, bias, 1e-3, rate=rate, seed=SEED) * value)

    def replica(rate):
        index = tf.distribute.get_replica_context().replica_id_in_sync_group
        part = [tf.gather(tf.reshape(a, (2, 2, 3, 6, -1)), index) for a in (x, value)]
        with tf.GradientTape() as tape:
            loss = loss_of(*part, rate)
        return tape.gradient(loss, [bias, gamma])

    @tf.function(autograph=False)
    def step(rate):
        gradients = strategy.run(replica, args=(rate,))
        return [strategy.reduce("SUM", gradient, axis=None) for gradient in gradients]

    with tf.GradientTape() as tape:
        loss = loss_of(tf.constant(x), tf.constant(value), 0.0)
    found = [gradient.numpy().tolist() for gradient in step(0.0)]
    expected = [gradient.numpy().tolist() for gradient in tape.gradient(loss, [bias, gamma])]
    return found, expected, all(bool(np.isfinite(gradient).all()) for gradient in step(0.5))


@pytest.mark.slow
def test_two_replicas():
    """Clusters inside MirroredStrategy on two logical CPUs: the sum of the halves is the whole."""
    found, expected, finite = replicas.run(gradients_of_halves_and_of_the_whole, clusters=True)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    assert finite
