import keras
import pytest
from pruning_cases import small_transformer

from tfxformer.compression.weights.matrices import all_kernels, choose_kernels, output_layers


def test_the_output_layer_is_found_behind_a_softmax():
    model = small_transformer()
    assert [layer.name for layer in output_layers(model)] == ["head"]
    assert len(all_kernels(model)) == 7 and len(choose_kernels(model)) == 6
    assert len(choose_kernels(model, lambda layer: True)) == 7


def test_a_sum_of_branches_and_an_operation_are_no_output_layers():
    x = keras.Input((4,))
    y = keras.layers.Dense(4, name="branch")(x)
    model = keras.Model(x, {"sum": x + y, "scaled": keras.layers.Dense(2, name="last")(y) * 2.0})
    assert [layer.name for layer in output_layers(model)] == ["last"]


def test_nested_shared_frozen_and_convolution_kernels():
    shared = keras.layers.Dense(4, name="shared")
    inner = keras.Sequential([keras.Input((6, 4)), shared, keras.layers.Conv1D(4, 3, padding="same")])
    x = keras.Input((6, 4))
    model = keras.Model(x, keras.layers.Dense(2)(shared(inner(x))))
    kernels = {kernel.layer.name: kernel for kernel in choose_kernels(model)}
    assert len(kernels) == 2
    assert kernels["shared"].summed_axes == (0,)
    assert [k.summed_axes for name, k in kernels.items() if name != "shared"] == [(0, 1)]


def test_layers_whose_kernel_is_no_float_variable_are_left_out():
    model = keras.Sequential(
        [keras.Input((8,)), keras.layers.Dense(8, name="a"), keras.layers.Dense(8), keras.layers.Dense(1)]
    )
    model.get_layer("a").enable_lora(2)
    model.layers[1].quantize("int8")
    assert [kernel.layer for kernel in all_kernels(model)] == [model.layers[2]]


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.table, self.dense = keras.layers.Embedding(5, 3), keras.layers.Dense(2)

    def call(self, inputs):
        return self.dense(self.table(inputs))


@pytest.mark.parametrize("built", [False, True])
def test_a_subclassed_model_shows_no_graph(built):
    model = Subclassed()
    if built:
        model(keras.ops.zeros((1, 2), "int32"))
    assert len(choose_kernels(model)) == built
