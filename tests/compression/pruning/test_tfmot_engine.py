import keras
import numpy as np
import pytest
import tensorflow as tf
from pruning_cases import largest

from tfxformer.compression import ConstantSparsity
from tfxformer.compression.pruning.tfmot_engine import KernelPruning
from tfxformer.compression.weights.matrices import all_kernels


def mask_of(values, sparsity, dtype="float32", layer=None, **options):
    """The engine's mask of a kernel with these values."""
    layer = layer or keras.layers.Dense(values.shape[-1], use_bias=False, dtype=dtype)
    model = keras.Sequential([layer])
    model.build((None, *([3] * (values.ndim - 2)), values.shape[0]))
    layer.kernel.assign(values)
    (kernel,) = all_kernels(model)
    engine = KernelPruning(kernel, lambda: tf.constant(-1, tf.int64), ConstantSparsity(sparsity, 5), **options)
    engine.conditional_mask_update()
    assert engine.mask.numpy().all()  # step -1 never acts
    engine.update_mask_at(5)
    return engine.mask.numpy()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize("sparsity", [0.0, 0.33, 0.5, 0.99])
def test_elements_are_counted_exactly_also_among_equals(dtype, sparsity):
    rng = np.random.default_rng(1)
    for values in (np.ones((6, 11)), np.round(rng.normal(size=(6, 11)), 1), np.zeros((6, 11))):
        values = np.asarray(keras.ops.convert_to_numpy(keras.ops.cast(values, dtype)), "float64")
        assert (mask_of(values, sparsity, dtype) == largest(np.abs(values), sparsity)).all()


@pytest.mark.parametrize("pooling", ["AVG", "MAX"])
@pytest.mark.parametrize(("shape", "block"), [((16, 6), (4, 1)), ((10, 7), (4, 3)), ((8, 5), (8, 1)), ((4, 1), (2, 1))])
def test_blocks_also_at_the_edge_and_where_a_dimension_becomes_one(shape, block, pooling):
    values = np.random.default_rng(2).normal(size=shape).astype("float32")
    height, width = block
    rows, columns = -(-shape[0] // height), -(-shape[1] // width)
    reduce = {"AVG": np.mean, "MAX": np.max}[pooling]
    pooled = np.array(
        [
            [reduce(np.abs(values[i * height : (i + 1) * height, j * width : (j + 1) * width])) for j in range(columns)]
            for i in range(rows)
        ]
    )
    wanted = largest(pooled, 0.5).repeat(height, 0).repeat(width, 1)[: shape[0], : shape[1]]
    assert (mask_of(values, 0.5, block_size=block, block_pooling=pooling) == wanted).all()


@pytest.mark.parametrize("rows", [8, 10])
def test_two_of_four_along_the_input(rows):
    values = np.random.default_rng(3).normal(size=(rows, 5)).astype("float32")
    values[:4, 0] = 1  # equals: the first two stay
    mask = mask_of(values, 0.5, m_by_n=(2, 4))
    for column in range(5):
        for start in range(0, rows, 4):
            group = np.abs(values[start : start + 4, column])
            kept = np.sort(np.argsort(-group, kind="stable")[:2])
            assert np.flatnonzero(mask[start : start + 4, column]).tolist() == kept.tolist()


@pytest.mark.parametrize(
    ("equation", "shape", "to_matrix"),
    [
        ("abc,cde->abde", (3, 2, 4), lambda w: w.reshape(3, 8)),  # attention's query
        ("abde,dec->abc", (3, 4, 2), lambda w: w.reshape(12, 2)),  # attention's output
        ("abc,dc->abd", (2, 3), lambda w: w.T),  # a kernel [out, in]
        ("abc,bcd->abd", (3, 4, 2), lambda w: w.transpose(1, 0, 2).reshape(4, 6)),  # one kernel for each b
    ],
)
def test_kernels_of_any_einsum_are_seen_as_in_by_out(equation, shape, to_matrix):
    output = {"abc,cde->abde": (None, 2, 4), "abde,dec->abc": (None, 2), "abc,dc->abd": (None, 2)}
    layer = keras.layers.EinsumDense(equation, output.get(equation, (3, 2)), bias_axes=None)
    inputs = {"abde,dec->abc": (5, 3, 4), "abc,bcd->abd": (3, 4)}.get(equation, (5, 3))
    model = keras.Sequential([keras.Input(inputs), layer])
    (kernel,) = all_kernels(model)
    values = np.random.default_rng(4).normal(size=shape).astype("float32")
    kernel.variable.assign(values)
    engine = KernelPruning(kernel, lambda: tf.constant(-1, tf.int64), ConstantSparsity(0.5, 0), (2, 1))
    engine.update_mask_at(0)
    matrix, mask = np.abs(to_matrix(values)), to_matrix(engine.mask.numpy())
    pairs = np.array([[c[i : i + 2].mean() for c in matrix.T] for i in range(0, len(matrix), 2)])
    assert (mask == largest(pairs, 0.5).repeat(2, 0)[: len(matrix)]).all()
