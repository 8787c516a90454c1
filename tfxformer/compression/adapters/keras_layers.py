"""Adapters beside the kernels of any Dense and EinsumDense layer: ours, Keras' and KerasHub's."""

from __future__ import annotations

import functools
import math

from keras import ops

from tfxformer.compression.kernels import Kernel
from tfxformer.layers import Dense, low_rank
from tfxformer.layers.low_rank import LowRank


def matrix_shape(kernel: Kernel) -> tuple[int, int]:
    """(in, out) of a kernel as a matrix."""
    rows = math.prod(kernel.variable.shape[axis] for axis in kernel.summed_axes)
    return rows, math.prod(kernel.variable.shape) // rows


def check_dropout(kernel: Kernel, rate: float) -> None:
    """Refuses dropout on a layer that is not ours: it multiplies its input once, by the sum.

    Raises:
        ValueError: for such a layer.
    """
    layer = kernel.layer
    if rate and not isinstance(layer, Dense):
        raise ValueError(
            f"LoRA: dropout={rate} needs tfxformer's layers; {layer.path} is a {type(layer).__module__}."
            f"{type(layer).__name__}, which reads one kernel. Use dropout=0."
        )


def attach(kernel: Kernel, adapter: LowRank) -> None:
    """Puts an adapter beside a kernel. Of a layer that is not ours, `kernel` becomes the sum of both."""
    layer = kernel.layer
    if isinstance(layer, Dense):
        low_rank.attach(layer, adapter)
        return
    layer.__class__ = _with_adapter(type(layer))
    low_rank.attach(layer, adapter, matrix_shape(kernel))
    layer._matrix_axes = (kernel.permutation, tuple(kernel.variable.shape))


def detach(kernel: Kernel) -> LowRank:
    """Takes an adapter away again; the layer is what it was."""
    layer = kernel.layer
    adapter = low_rank.detach(layer)
    if not isinstance(layer, Dense):
        layer.__class__ = type(layer).__bases__[0]
        del layer.adapter, layer._matrix_axes
    return adapter


def delta(kernel: Kernel, adapter: LowRank):
    """What an adapter adds to a kernel, in the kernel's shape."""
    return _shaped(adapter.delta(), kernel.permutation, tuple(kernel.variable.shape))


def _shaped(matrix, permutation, shape):
    turned = ops.reshape(matrix, [shape[axis] for axis in permutation])  # [in, out] -> the kernel's axes, summed first
    return ops.transpose(turned, sorted(range(len(shape)), key=permutation.__getitem__))


@functools.cache
def _with_adapter(cls: type) -> type:
    """A subclass whose `kernel` is the sum, for as long as a layer of `cls` has an adapter."""

    def kernel(self):
        added = _shaped(self.adapter.delta(), *self._matrix_axes)
        return super(adapted, self).kernel + ops.cast(added, self.compute_dtype)

    def save_own_variables(self, store):
        raise ValueError(
            f"{self.path} has the adapter {self.adapter.name!r}, which a Keras file of a {cls.__name__} has no place "
            "for: merge() it first, or save it alone (compression.Adapters.save)."
        )

    members = {"kernel": property(kernel), "save_own_variables": save_own_variables, "__module__": cls.__module__}
    adapted = type(cls.__name__, (cls,), members)
    return adapted
