"""Fake quantization: float layers that round where int8 files do (Jacob et al., 2018, arXiv:1712.05877).

Kernels are rounded by output channel, symmetrically, to 255 levels; what layers compute is rounded by tensor to 256
levels of a range that was observed. The gradient passes through a rounding as if there were none, and not at all where
the range cut a value off (the straight-through estimator; Bengio et al., 2013, arXiv:1308.3432).

Layers ask at each rounding what is in force. It stands around a call, not in its arguments, so that the graph of any
functional model made of our layers can be trained so, and is the same graph again afterwards.
"""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Iterable

import keras
import numpy as np
from keras import ops

from tfxformer.layers.quantization.graph_form import GraphForm

_in_force = contextvars.ContextVar("fake_quantization", default=None)


class FakeQuantization:
    """How the layers of one model round.

    Args:
        ranges: {(layer, name): (lowest, highest)}, of everything that its layers round.
        graph_form: GraphForm, how blocks are written.
        layers: further layers that it concerns: those that round nothing themselves, but hold others that do.
    """

    def __init__(self, ranges: dict, graph_form: GraphForm, layers: Iterable = ()):
        self.graph_form = graph_form
        self.ranges = {(id(layer), name): limits for (layer, name), limits in ranges.items()}
        self.layers = list({id(layer): layer for layer, _ in ranges}.values())  # those that round
        # Kept with their ids, so that an id stays its layer's.
        self._concerned = {id(layer): layer for layer in (*self.layers, *layers)}

    def concerns(self, layer) -> bool:
        """Whether it is a layer of the model that rounds: the teacher of a distillation does not."""
        return id(layer) in self._concerned

    def rounded(self, x, layer, name: str):
        """`x` as int8 of its range holds it."""
        lowest, highest = self.ranges[(id(layer), name)]
        return keras.quantizers.fake_quant_with_min_max_vars(x, lowest, highest)

    def kernel(self, layer):
        """The kernel [in, out] of a Dense layer as int8 holds it, a scale for each output."""
        kernel = ops.convert_to_tensor(layer.kernel)
        wide = ops.cast(kernel, "float32")
        largest = ops.stop_gradient(ops.maximum(ops.max(ops.abs(wide), axis=0), 1e-12))
        rounded = keras.quantizers.fake_quant_with_min_max_vars(wide, -largest, largest, narrow_range=True, axis=-1)
        return ops.cast(rounded, kernel.dtype)


class RangeObserver:
    """Takes a `FakeQuantization`'s place in eager calls, rounds nothing, and learns the ranges.

    Args:
        layers: those that are to round, as far as they can.
        graph_form: GraphForm, how blocks are written.
    """

    def __init__(self, layers, graph_form: GraphForm):
        self.graph_form = graph_form
        self._layers = {id(layer): layer for layer in layers}
        self._ranges = {}

    def concerns(self, layer) -> bool:
        return id(layer) in self._layers

    def rounded(self, x, layer, name: str):
        """`x` as it is, its range noted."""
        values = np.asarray(ops.convert_to_numpy(ops.cast(x, "float32")))
        if values.size:
            lowest, highest = self._ranges.get((layer, name), (0.0, 0.0))  # int8 has to hold a zero
            self._ranges[layer, name] = min(lowest, float(values.min())), max(highest, float(values.max()))
        return x

    def kernel(self, layer):
        return layer.kernel

    def fake_quantization(self) -> FakeQuantization:
        """What rounds in the ranges that were seen."""
        ranges = {key: limits if limits[0] < limits[1] else (0.0, 1.0) for key, limits in self._ranges.items()}
        return FakeQuantization(ranges, self.graph_form, self._layers.values())


@contextlib.contextmanager
def rounding(quantization):
    """Inside, the layers that a `FakeQuantization` (or an observer) concerns round; None for none."""
    token = _in_force.set(quantization)
    try:
        yield
    finally:
        _in_force.reset(token)


def in_force():
    """What rounds at the moment, or None."""
    return _in_force.get()


def rounds(layer) -> bool:
    """Whether a layer is to round now: it then computes as a file does, not by the kernels that train fastest."""
    quantization = _in_force.get()
    return quantization is not None and quantization.concerns(layer)


def rounded(x, layer, name: str):
    """`x`, rounded where `layer` is to round now."""
    return _in_force.get().rounded(x, layer, name) if rounds(layer) else x


def rounded_kernel(layer):
    """The kernel of a Dense layer that is to round now."""
    return _in_force.get().kernel(layer)
