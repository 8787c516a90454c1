"""Which weights of a Keras model can be pruned, and how each is read as a matrix [in, out]."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import keras

from tfxformer.models.heads import ClassificationHead

CONVOLUTIONS = (keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Conv3D)


@dataclass(frozen=True)
class Kernel:
    """A kernel and those of its axes that are summed over: the rows of its matrix, the others its columns."""

    layer: keras.layers.Layer
    variable: keras.Variable
    summed_axes: tuple[int, ...]

    @property
    def path(self) -> str:
        return self.variable.path

    @property
    def permutation(self) -> tuple[int, ...]:
        """The order of axes that brings those summed over to the front."""
        others = (axis for axis in range(len(self.variable.shape)) if axis not in self.summed_axes)
        return (*self.summed_axes, *others)


def all_kernels(model: keras.Model) -> list[Kernel]:
    """The float kernels of all Dense, EinsumDense and Conv1D/2D/3D layers, nested ones too, each once.

    `MultiHeadAttention`, also KerasHub's, holds EinsumDense layers. Embeddings are lookup tables, no kernels.
    A layer whose `kernel` is computed (LoRA adds two factors to it) or stored in integers has none to prune.
    Of a `Distiller` they are those of its student.
    """
    model = getattr(model, "student", model)
    kernels: dict[int, Kernel] = {}
    for layer in model._flatten_layers(include_self=False):  # Keras has no public walk into nested layers
        summed_axes = _summed_axes(layer)
        if summed_axes is None:
            continue
        variable = layer.kernel
        if isinstance(variable, keras.Variable) and keras.backend.is_float_dtype(variable.dtype):
            kernels.setdefault(id(variable), Kernel(layer, variable, summed_axes))  # a shared kernel once
    return list(kernels.values())


def choose_kernels(model: keras.Model, layers: Callable | None = None) -> list[Kernel]:
    """The kernels of the layers that `layers(layer) -> bool` wants; None: of all but the output layers.

    The output layer, a classifier's head, is new and small, and each of its weights serves one label: it
    wins no size and costs accuracy. `layers=lambda layer: True` takes it too.
    """
    if layers is not None:
        return [kernel for kernel in all_kernels(model) if layers(kernel.layer)]
    outputs = {id(layer) for layer in output_layers(getattr(model, "student", model))}
    return [kernel for kernel in all_kernels(model) if id(kernel.layer) not in outputs]


def output_layers(model: keras.Model) -> list[keras.layers.Layer]:
    """The layers that make a functional model's outputs, seen through what has no weights (softmax, dropout).

    A subclassed model shows no graph: its list is empty.
    """
    found = []
    for tensor in getattr(model, "outputs", None) or ():
        operation, node_index, _ = tensor._keras_history
        while not getattr(operation, "weights", ()):
            inputs = operation._inbound_nodes[node_index].input_tensors
            if len(inputs) != 1:  # an input of the model, or a sum of branches: no head
                break
            operation, node_index, _ = inputs[0]._keras_history
        else:
            # A head of ours is a layer of layers; the one that makes the labels is inside.
            found.append(operation.output_projection if isinstance(operation, ClassificationHead) else operation)
    return found


def _summed_axes(layer: keras.layers.Layer) -> tuple[int, ...] | None:
    """The axes of the layer's kernel that its product sums over; None for other layers and unbuilt ones."""
    if not layer.built:
        return None
    if isinstance(layer, keras.layers.Dense):
        return (0,)  # [in, out]
    if isinstance(layer, CONVOLUTIONS):
        return tuple(range(layer.rank + 1))  # [*window, in, out]
    if isinstance(layer, keras.layers.EinsumDense):
        operands, output = layer.equation.split("->")
        letters = operands.split(",")[1]
        return tuple(axis for axis, letter in enumerate(letters) if letter not in output)
    return None
