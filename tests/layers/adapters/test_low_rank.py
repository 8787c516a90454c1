"""Low-rank adapters beside Dense kernels: the sum, the fast gradient, dropout, and recomputation."""

import keras
import numpy as np
import pytest
import tiny
from keras import ops
from optional_tensorflow import tf

from tfxformer.layers import Dense, TransformerBlock
from tfxformer.layers.adapters.base import adapted_layers, adapter_seed, attach, detach
from tfxformer.layers.adapters.low_rank import LowRank, SingularValues, product

RANDOM = np.random.default_rng(3)
INPUTS = RANDOM.normal(size=(2, 5, 6)).astype("float32")


def dense(units, adapter=None, dtype=None):
    layer = Dense(units, dtype=dtype)
    layer.build((None, None, 6))
    if adapter is not None:
        attach(layer, adapter)
    return tiny.perturb(layer)


def summed(layer):
    """The kernel with its adapter, in numpy."""
    if layer.adapter is None:
        return np.asarray(layer.kernel)
    return np.asarray(layer.base_kernel) + layer.adapter.scale * (
        np.asarray(layer.adapter.a) @ np.asarray(layer.adapter.b)
    )


def layers():
    """Three that read one input: two of them adapted, by different ranks and scales."""
    return dense(4, LowRank(2, 0.5)), dense(3), dense(5, LowRank(3, 2.0, index=1))


def test_kernel_is_the_sum():
    layer = dense(4, LowRank(2, 0.5))
    np.testing.assert_allclose(layer.kernel, summed(layer), atol=1e-6)
    np.testing.assert_allclose(layer(INPUTS), INPUTS @ summed(layer) + np.asarray(layer.bias), atol=1e-5)


@pytest.mark.parametrize("count", [1, 3])
def test_product_and_all_its_gradients_are_those_of_the_sum(count):
    chosen = layers()[:count]
    variables = [variable for layer in chosen for variable in layer.variables if variable.name != "bias"]
    weight = RANDOM.normal(size=(2, 5, sum(layer.units for layer in chosen))).astype("float32")

    def gradients(compute):
        x = tf.constant(INPUTS)
        with tf.GradientTape() as tape:
            tape.watch(x)
            result = compute(x)
            loss = tf.reduce_sum(result * weight)
        return [result, *tape.gradient(loss, [x, *(variable.value for variable in variables)])]

    def plainly(x):
        return tf.concat([tf.matmul(x, layer.kernel) for layer in chosen], axis=-1)

    for ours, wanted in zip(gradients(lambda x: product(x, chosen)), gradients(plainly), strict=True):
        np.testing.assert_allclose(ours, wanted, atol=1e-5)
    np.testing.assert_allclose(
        product(INPUTS, chosen), INPUTS @ np.concatenate([summed(layer) for layer in chosen], axis=1), atol=1e-5
    )


def test_a_frozen_kernel_costs_no_product_of_its_size():
    """What is left of a compiled step: of the products over all rows, only those of the factors' sizes."""
    layer = dense(7, LowRank(2))

    @tf.function
    def step(x):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(layer(x, training=True) ** 2)
        return tape.gradient(loss, [layer.adapter.a.value, layer.adapter.b.value])

    def over_rows(function):
        operations = [one for one in function.graph.get_operations() if one.type == "MatMul"]
        return sorted(tuple(one.outputs[0].shape) for one in operations if one.get_attr("transpose_a"))

    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    traced = step.get_concrete_function(INPUTS)
    assert over_rows(traced) == [(2, 7), (6, 2), (6, 7)]
    assert over_rows(convert_variables_to_constants_v2(traced)) == [(2, 7), (6, 2)]


def test_dropout_is_that_of_the_adapters_input_alone():
    layer = dense(4, LowRank(2, 0.5, dropout=0.5))
    with adapter_seed(tf.constant([3, 4], "uint32")):
        first, again = np.asarray(layer.product(INPUTS)), np.asarray(layer.product(INPUTS))
        dropped = np.asarray(layer.adapter.dropped(INPUTS))
    np.testing.assert_array_equal(first, again)
    assert set(np.unique(dropped / INPUTS).round(5)) == {0.0, 2.0}
    wanted = INPUTS @ np.asarray(layer.base_kernel)
    wanted = wanted + 0.5 * dropped @ np.asarray(layer.adapter.a) @ np.asarray(layer.adapter.b)
    np.testing.assert_allclose(first, wanted, atol=1e-5)
    np.testing.assert_allclose(layer(INPUTS), INPUTS @ summed(layer) + np.asarray(layer.bias), atol=1e-5)


def test_masks_differ_from_adapter_to_adapter_and_from_call_to_call():
    one, other = LowRank(2, dropout=0.5), LowRank(2, dropout=0.5, index=1)
    with adapter_seed(tf.constant([3, 4], "uint32")):
        assert (np.asarray(one.dropped(INPUTS)) != np.asarray(other.dropped(INPUTS))).any()
    assert (np.asarray(one.dropped(INPUTS)) != np.asarray(one.dropped(INPUTS))).any()  # its own generator


def test_side_by_side_with_dropout():
    """Equal rates share a mask, different ones have their own; either way each part is that layer's own product."""
    for rates in ((0.5, 0.5), (0.5, 0.25)):
        chosen = (dense(4, LowRank(2, dropout=rates[0])), dense(3), dense(5, LowRank(2, 2.0, dropout=rates[1])))
        with adapter_seed(tf.constant([3, 4], "uint32")):
            together = np.asarray(product(INPUTS, chosen))
            apart = np.concatenate([np.asarray(layer.product(INPUTS)) for layer in chosen], axis=-1)
        np.testing.assert_allclose(together, apart, atol=1e-5)


def block(gradient_checkpointing, dropout=0.0, gated=False):
    """A block whose every Dense has an adapter, its generator at a fixed state."""
    attention, feed_forward = {"num_heads": 2, "head_size": 3}, {"size": 8, "activation": "gelu", "gated": gated}
    made = TransformerBlock(attention, feed_forward, gradient_checkpointing=gradient_checkpointing, dropout=dropout)
    made.build((None, None, 6))
    for index, layer in enumerate(one for one in made._flatten_layers() if isinstance(one, Dense)):
        attach(layer, LowRank(2, dropout=0.3, index=index))
    made.seed_generator.state.assign([5, 6])
    return tiny.perturb(made)


def loss_and_gradients(made, **arguments):
    variables = [layer.adapter.a.value for layer in adapted_layers(made)]

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(made(INPUTS, training=True, **arguments) ** 2)
        return loss, tape.gradient(loss, variables)

    return step()


@pytest.mark.parametrize(("made", "called"), [({"dropout": 0.2}, {}), ({"gated": True}, {"first_only": True})])
def test_recomputation_drops_the_same_units(made, called, plain_kernels):
    loss, gradients = loss_and_gradients(block(False, **made), **called)
    again, recomputed = loss_and_gradients(block(True, **made), **called)
    np.testing.assert_allclose(loss, again, rtol=1e-6)
    assert len(gradients) == 6 + made.get("gated", False)
    for one, other in zip(gradients, recomputed, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5 * np.abs(one).max())


@pytest.mark.parametrize("dtype", ["mixed_bfloat16", "bfloat16"])
def test_half_precision(dtype):
    layer, full = dense(4, LowRank(2, 0.5, dtype=dtype), dtype=dtype), dense(4, LowRank(2, 0.5))
    assert layer.adapter.a.dtype == ("float32" if dtype.startswith("mixed") else "bfloat16")
    for training in (False, True):
        result = layer(ops.cast(INPUTS, "bfloat16"), training=training)
        assert result.dtype == "bfloat16"
        np.testing.assert_allclose(ops.cast(result, "float32"), full(INPUTS), atol=3e-2)


def test_a_layer_without_its_adapter_is_what_it_was():
    layer = dense(4)
    before, paths = np.asarray(layer(INPUTS)), [variable.path for variable in layer.variables]
    attach(layer, LowRank(2, name="films"))
    tiny.perturb(layer.adapter)
    assert [variable.path for variable in layer.variables] == [
        *paths, f"{layer.name}/films/lora_a", f"{layer.name}/films/lora_b"
    ]  # fmt: skip
    assert (np.asarray(layer(INPUTS)) != before).any()
    assert detach(layer).name == "films"
    assert [variable.path for variable in layer.variables] == paths
    np.testing.assert_array_equal(layer(INPUTS), before)


def test_what_cannot_be_attached():
    layer = dense(4, LowRank(2, name="films"))
    with pytest.raises(ValueError, match="has the adapter 'films' already"):
        attach(layer, LowRank(2))
    with pytest.raises(ValueError, match=r"\(6, 4\).*\(6, 5\)"):
        attach(dense(5), detach(layer))


def test_a_new_adapter_changes_nothing():
    layer = dense(4)
    before = np.asarray(layer(INPUTS))
    keras.utils.set_random_seed(1)
    attach(layer, LowRank(2))
    np.testing.assert_array_equal(layer(INPUTS), before)
    values = np.asarray(layer.adapter.a)
    assert np.abs(values).max() <= 1 / np.sqrt(6) and values.std() > 0.1


def test_small_changes_survive_bfloat16():
    """Many changes far below a weight's own precision: on average they are in the sum."""
    layer = Dense(256, dtype="mixed_bfloat16", use_bias=False)
    layer.build((None, 256))
    added = np.arange(256)[:, None] < 128
    x = tf.constant(np.where(added.T, 1, -1), "bfloat16")  # so that the sums are small, and bfloat16 keeps them
    attach(layer, LowRank(1, dtype="mixed_bfloat16"))
    layer.base_kernel.assign(RANDOM.uniform(1.0, 2.0, (256, 256)))
    layer.adapter.a.assign(added.astype("float32"))
    for training in (False, True):
        sums = []
        for change in (0.0, 0.001):  # the step between two bfloat16 numbers from 1 to 2 is 0.0078
            layer.adapter.b.assign(np.full((1, 256), change))
            sums.append(float(tf.reduce_mean(tf.cast(layer(x, training=training), "float32"))))
        np.testing.assert_allclose(sums[1] - sums[0], 128 * 0.001, rtol=0.2)


def test_singular_values():
    layer = dense(4)
    before = np.asarray(layer(INPUTS))
    attach(layer, SingularValues(3, scale=0.5, orthogonality=0.1))
    np.testing.assert_array_equal(layer(INPUTS), before)
    tiny.perturb(layer)
    a, e, b = (np.asarray(x) for x in (layer.adapter.a, layer.adapter.e, layer.adapter.b))
    kernel = np.asarray(layer.base_kernel) + 0.5 * a @ np.diag(e) @ b
    wanted = INPUTS @ kernel + np.asarray(layer.bias)
    np.testing.assert_allclose(layer(INPUTS), wanted, atol=1e-5)
    np.testing.assert_allclose(layer(INPUTS, training=True), wanted, atol=1e-5)
    distances = [np.linalg.norm(a.T @ a - np.eye(3)), np.linalg.norm(b @ b.T - np.eye(3))]
    np.testing.assert_allclose(sorted(map(float, layer.losses)), sorted(0.1 * one for one in distances), rtol=1e-5)
