"""Adapters beside the kernels of any Dense and EinsumDense layer: ours, Keras' and KerasHub's."""

from __future__ import annotations

import functools
import math

import keras
from keras import ops

from tfxformer.compression.weights.matrices import Kernel
from tfxformer.layers import Dense, TokenEmbedding
from tfxformer.layers.adapters import base as adapters
from tfxformer.layers.adapters.base import LayerAdapter
from tfxformer.layers.attention.attention import Attention

OURS = (Dense, TokenEmbedding, Attention)  # they read their adapter themselves


def matrix_shape(kernel: Kernel) -> tuple[int, int]:
    """(in, out) of a kernel as a matrix."""
    rows = math.prod(kernel.variable.shape[axis] for axis in kernel.summed_axes)
    return rows, math.prod(kernel.variable.shape) // rows


def check(kernel: Kernel, adapter: LayerAdapter) -> None:
    """Refuses on a layer that is not ours what it cannot do.

    Raises:
        ValueError: for dropout, as it multiplies its input once, by the sum; for scales of a bias of another shape.
    """
    layer = kernel.layer
    if isinstance(layer, OURS):
        return
    kind = f"{type(layer).__module__}.{type(layer).__name__}"
    if adapter.rate:
        raise ValueError(
            f"LoRA: dropout={adapter.rate} needs tfxformer's layers; {layer.path} is a {kind}, which reads one "
            "kernel. Use dropout=0."
        )
    bias = layer.bias
    if adapter.kind == "scaling" and bias is not None and math.prod(bias.shape) != matrix_shape(kernel)[1]:
        raise ValueError(
            f"IA3: {layer.path} is a {kind} whose bias {tuple(bias.shape)} is not one for each of its "
            f"{matrix_shape(kernel)[1]} outputs, so it could not be scaled with them: choose other targets."
        )


def attach(kernel: Kernel, adapter: LayerAdapter) -> None:
    """Puts an adapter beside a kernel; `kernel` and `bias` of its layer become what it makes of them."""
    layer = kernel.layer
    if isinstance(layer, OURS):
        adapters.attach(layer, adapter)
        return
    layer.__class__ = _with_adapter(type(layer))
    adapters.attach(layer, adapter, matrix_shape(kernel))
    layer._adapted = kernel


def detach(kernel: Kernel) -> LayerAdapter:
    """Takes an adapter away again; the layer is what it was."""
    layer = kernel.layer
    adapter = adapters.detach(layer)
    if not isinstance(layer, OURS):
        layer.__class__ = type(layer).__bases__[0]
        del layer.adapter, layer._adapted
    return adapter


def kernel_of(layer) -> Kernel:
    """The kernel that the adapter of a Dense or EinsumDense layer stands beside."""
    return Kernel(layer, layer._kernel, (0,)) if isinstance(layer, OURS) else layer._adapted


def merged(kernel: Kernel, adapter: LayerAdapter) -> list[tuple[keras.Variable, object]]:
    """The variables of a layer without its adapter, each with the value that makes it compute as with it."""
    values = [(kernel.variable, _adapted_kernel(kernel, adapter, ops.convert_to_tensor(kernel.variable)))]
    if kernel.layer.bias is not None:
        values.append((kernel.layer.bias, _adapted_bias(adapter, ops.convert_to_tensor(kernel.layer.bias))))
    return values


def _adapted_kernel(kernel: Kernel, adapter: LayerAdapter, tensor):
    """What an adapter makes of a kernel, in the kernel's shape."""
    permutation, shape = kernel.permutation, tuple(kernel.variable.shape)
    matrix = ops.reshape(ops.transpose(tensor, permutation), matrix_shape(kernel))  # the kernel's axes -> [in, out]
    matrix = adapter.adapted_kernel(matrix)
    turned = ops.reshape(matrix, [shape[axis] for axis in permutation])  # [in, out] -> the kernel's axes, summed first
    return ops.transpose(turned, sorted(range(len(shape)), key=permutation.__getitem__))


def _adapted_bias(adapter: LayerAdapter, tensor):
    flat = ops.reshape(tensor, (-1,))  # the bias' axes -> [out]
    return ops.reshape(adapter.adapted_bias(flat), tensor.shape)


@functools.cache
def _with_adapter(cls: type) -> type:
    """A subclass with an adapter in it, for as long as a layer of `cls` has one."""

    def kernel(self):
        adapted_kernel = _adapted_kernel(self._adapted, self.adapter, ops.convert_to_tensor(self._adapted.variable))
        return ops.cast(adapted_kernel, self.compute_dtype)

    def bias(self):
        own = self.__dict__["bias"]
        return None if own is None else _adapted_bias(self.adapter, ops.convert_to_tensor(own))

    def call(self, inputs, training=None):
        return self.adapter.after(super(adapted, self).call(inputs, training=training), training)

    def save_own_variables(self, store):
        raise ValueError(
            f"{self.path} has the adapter {self.adapter.name!r}, which a Keras file of a {cls.__name__} has no place "
            "for: merge() it first, or save it alone (compression.Adapters.save)."
        )

    members = {
        "kernel": property(kernel),
        "bias": property(bias),
        "call": call,
        "save_own_variables": save_own_variables,
        "__module__": cls.__module__,
    }
    adapted = type(cls.__name__, (cls,), members)
    return adapted
