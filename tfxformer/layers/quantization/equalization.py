"""Equalization: the same products, written so that outliers cost a file in int8 less precision.

A file that computes in int8 has one scale for each output channel of a kernel, one for each token of what the kernel
reads, and one for a whole table of embeddings: a single large channel takes the precision of all the others. Four
rewritings move it out of the way; none changes the result by more than float32's rounding:

* `x @ W = (x * s) @ (W / s)`, s by input channel, so that both factors share the outliers that one of them had (Xiao
  et al., 2022, arXiv:2211.10438, after Nagel et al., 2019, arXiv:1906.04721). W / s is a constant of the file.
* The few inner units of a feed-forward layer with far larger weights than the others are a small feed-forward layer
  beside it, with scales of their own (Dettmers et al., 2022, arXiv:2208.07339, keep outliers apart, in float16).
* `table[ids] = (table / s)[ids] * s`, s by column; a head tied to the table reads `(x * s) @ (table / s).T`.
* A gated feed-forward layer takes a scale through to its output without an operator of its own:
  `(gate * (x @ W * s)) @ (V / s) = (gate * (x @ (W * s))) @ (V / s)`, s by inner unit.

Shape letters: B batch, S sequence length, D model width, F feed-forward width, V vocabulary.
"""

from __future__ import annotations

import keras
import numpy as np
from keras import ops

OUTLIER_UNITS = 8  # computed apart: XNNPACK computes this many at a time
OUTLIER_RATIO = 6.0  # of a unit's largest weight to the median unit's, from which on that is worth its time
SMALLEST = 1e-3  # of the largest channel: dead (pruned) channels count as this large


class Equalization:
    """How the products of one model are written.

    The rewritten weights are variables of their own, made once: what each signature of a file would compute from the
    layers' own, the converter would hold in memory as often as there are signatures.

    Args:
        scales: {paths of the Dense layers that read one input: float32 [D], what the input is multiplied by}.
        unit_parts: {path of a feed-forward layer's output: tuple of int arrays, inner units computed together}.
        column_scales: {path of an embedding layer: float32 [D], what rows are multiplied by after the lookup}.
        gated_scales: {path of a gated feed-forward layer's output: float32 [F], by which the product that it reads is
            larger}.
        weights: {path of a layer: (kernel or table, bias or None), as scales and gated scales rewrite them}.
    """

    def __init__(self, scales: dict, unit_parts: dict, column_scales: dict, gated_scales: dict, weights: dict):
        self.scales = scales
        self.unit_parts = unit_parts
        self.column_scales = column_scales
        self.gated_scales = gated_scales
        self._weights = weights

    def scale(self, inputs, layers):
        """float32 [D], the scale of `inputs` [..., D] in front of the Dense `layers`; None to leave them."""
        return self.scales.get(_paths(layers))

    def weights(self, layer):
        """(kernel, bias or None) of a Dense layer as it is written."""
        return self._weights.get(layer.path, (layer.kernel, layer.bias))

    def table(self, layer):
        """The table of an embedding layer as it is written."""
        return self._weights.get(layer.path, (layer.embeddings, None))[0]

    def see_gated(self, layer, source, inputs):
        """Told that a gated feed-forward layer's output reads `inputs` [..., F], linear in what the layer `source`
        gives: that is for an `Observer`."""

    def parts(self, layer):
        """The parts in which the input channels [F] of a feed-forward output are computed; None for one."""
        return self.unit_parts.get(layer.path)

    def column_scale(self, layer, inputs=None):
        """float32 [D], what the rows of an embedding layer are multiplied by, and the `inputs` [..., D] of a head that
        is tied to it; None to leave them."""
        return self.column_scales.get(layer.path)


class Observer:
    """Takes an `Equalization`'s place in eager calls, leaves everything as it is, and learns how to write it.

    Attributes:
        mask: None, or int [B, S], 0 where a token is padding, whose activations are nobody's: of the next call.
    """

    def __init__(self):
        self.mask = None
        self._inputs = {}  # paths -> (layers, largest magnitude of each channel [D])
        self._gated = {}  # the same of gated products [F]
        self._sources = {}  # path of an output that reads a gated product -> (it, the layer to scale)
        self._outputs = {}
        self._tables = {}  # path -> the embedding layer
        self._heads = {}  # as `_inputs`, of those that are a head too

    def scale(self, inputs, layers):
        self._see(self._inputs, layers, inputs)

    def weights(self, layer):
        return layer.kernel, layer.bias

    def table(self, layer):
        return layer.embeddings

    def see_gated(self, layer, source, inputs):
        self._see(self._gated, (layer,), inputs)
        self._sources[layer.path] = layer, source

    def parts(self, layer):
        self._outputs[layer.path] = layer

    def column_scale(self, layer, inputs=None):
        self._tables[layer.path] = layer
        if inputs is not None:
            self._see(self._heads, (layer,), inputs)

    def _see(self, seen, layers, inputs):
        values = np.abs(np.asarray(inputs, np.float32))
        if self.mask is not None and values.shape[:-1] == self.mask.shape:
            values = values[self.mask.astype(bool)]
        largest = values.reshape(-1, values.shape[-1]).max(axis=0, initial=0.0)  # -> [D]
        _, before = seen.get(_paths(layers), (layers, largest))
        seen[_paths(layers)] = (layers, np.maximum(before, largest))

    def equalization(self) -> Equalization:
        """How to write the products that were seen."""
        scales = {key: _balanced(*seen) for key, seen in self._inputs.items()}
        gated = {path: _balanced(*seen) for (path,), seen in self._gated.items()}
        parts = {path: part_units(np.asarray(layer.kernel)) for path, layer in self._outputs.items()}
        columns = _present({path: self._column_scale(path, layer) for path, layer in self._tables.items()})
        return Equalization(scales, _present(parts), columns, gated, self._written(scales, gated, columns))

    def _column_scale(self, path, layer):
        table, (_, largest) = np.asarray(layer.embeddings), self._heads.get((path,), (None, None))
        # The rows that are looked up stay bit for bit what they were, unless a head has to share their scale.
        return shrink_columns(table) if largest is None else balance(largest, [table.T])

    def _written(self, scales, gated, columns) -> dict:
        """The rewritten weights: {path: (kernel or table, bias or None)}."""
        kernels, biases = {}, {}
        for key, (layers, _) in self._inputs.items():
            for layer in layers:
                kernels[layer.path] = np.asarray(layer.kernel) / scales[key][:, None]
                biases[layer.path] = None if layer.bias is None else np.asarray(layer.bias)
        for path, (output, source) in self._sources.items():
            kernels[source.path] = kernels.get(source.path, np.asarray(source.kernel)) * gated[path]
            biases[source.path] = None if source.bias is None else np.asarray(source.bias) * gated[path]
            kernels[path] = np.asarray(output.kernel) / gated[path][:, None]
            biases[path] = None if output.bias is None else np.asarray(output.bias)
        for path, scale in columns.items():
            kernels[path], biases[path] = np.asarray(self._tables[path].embeddings) / scale, None
        return {path: (_variable(kernel), _variable(biases[path])) for path, kernel in kernels.items()}


def _variable(values):
    return None if values is None else keras.Variable(values.astype(np.float32), trainable=False, dtype="float32")


def _balanced(layers, largest) -> np.ndarray:
    return balance(largest, [np.asarray(layer.kernel) for layer in layers])


def balance(inputs, kernels) -> np.ndarray:
    """The scale after which inputs and kernels have the same outliers: each the square root of both.

    Args:
        inputs: [D], the largest magnitude of each channel.
        kernels: list of [D, F], which read them.

    Returns:
        float32 [D], 1 in the median.
    """
    weights = np.max([np.abs(kernel).max(axis=1) for kernel in kernels], axis=0)
    scale = np.sqrt(_floored(weights) / _floored(inputs))
    return (scale / np.median(scale)).astype(np.float32)


def part_units(kernel: np.ndarray):
    """The input channels of a kernel [F, D] as (the others, outliers), ascending; None where none is an outlier."""
    largest = np.abs(kernel).max(axis=1)
    if len(largest) <= 2 * OUTLIER_UNITS or largest.max() <= OUTLIER_RATIO * np.median(largest):
        return None
    order = np.argsort(largest, kind="stable")
    return np.sort(order[:-OUTLIER_UNITS]), np.sort(order[-OUTLIER_UNITS:])


def shrink_columns(table: np.ndarray):
    """The powers of two that make no column of a table [V, D] larger than the median one; None where all are alike.

    Powers of two, so that the rows stay bit for bit what they were.
    """
    largest = _floored(np.abs(table).max(axis=0))
    scale = 2.0 ** np.ceil(np.log2(np.maximum(largest / np.median(largest), 1.0)))
    return scale.astype(np.float32) if scale.max() > 2.0 else None


def equalized(inputs, layers, graph_form):
    """What Dense layers make of one input, written as `graph_form` says.

    Args:
        inputs: [..., D], read by all of `layers`.
        layers: tuple of Dense layers.
        graph_form: GraphForm.

    Returns:
        project(layer, units=None): [..., F], or only its channels `units`, an int array.
    """
    equalization = graph_form.equalization
    scale = None if equalization is None else equalization.scale(inputs, layers)
    if scale is not None:
        inputs = scaled(inputs, scale)

    def project(layer, units=None):
        if equalization is None and units is None:
            return layer(inputs)
        kernel, bias = (layer.kernel, layer.bias) if equalization is None else equalization.weights(layer)
        if units is not None:
            kernel, bias = ops.take(kernel, units, axis=1), None if bias is None else ops.take(bias, units)
        product = ops.matmul(inputs, kernel)
        product = product if bias is None else product + bias
        return layer.after(product if layer.activation is None else layer.activation(product))

    return project


def equalized_product(layer, inputs, graph_form):
    """A Dense layer without activation of inputs that come as its written kernel wants them."""
    kernel, bias = graph_form.equalization.weights(layer)
    product = ops.matmul(inputs, kernel)
    return layer.after(product if bias is None else product + bias)


def sum_of_parts(layer, inputs, parts):
    """A Dense layer without activation whose input channels come in parts: a list of [B, S, part] -> [B, S, D]."""
    first, *others = [
        ops.matmul(x, ops.take(layer.kernel, part, axis=0)) for x, part in zip(inputs, parts, strict=True)
    ]
    return layer.after(sum(others, first if layer.bias is None else first + layer.bias))


def scaled(inputs, scale):
    """inputs [..., D] * scale [D], as LiteRT's converter leaves it.

    By a constant of rank 3: a product with a vector [D] it would fold back into the kernel that reads it.
    """
    return ops.reshape(inputs * scale[None, None], ops.shape(inputs))


def _paths(layers) -> tuple[str, ...]:
    return tuple(layer.path for layer in layers)


def _floored(values: np.ndarray) -> np.ndarray:
    return np.maximum(values, SMALLEST * values.max()) if values.any() else np.ones_like(values)


def _present(values: dict) -> dict:
    return {key: value for key, value in values.items() if value is not None}
