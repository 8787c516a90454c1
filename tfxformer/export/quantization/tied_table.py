"""One quantized table for both its uses: looking rows up, and the logits of a head that is tied to it.

Converters quantize by use: a lookup (GATHER) with one scale for the whole table, a product (FULLY_CONNECTED) with one
for each row. The file would hold the largest constant of a small model twice. EMBEDDING_LOOKUP reads rows with scales
of their own, so that both can read the product's.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tfxformer.runtime.format import flatbuffer


class Lookup(NamedTuple):
    """GATHER from a constant int8 table with its DEQUANTIZE, which one EMBEDDING_LOOKUP replaces."""

    graph: object
    gather: object
    dequantize: object


def share_tied_tables(model: schema.ModelT) -> int:
    """Lets lookups read the table of the product that holds the same numbers; returns how many tables are dropped."""
    products, dropped = _product_tables(model), set()
    for lookup in list(_lookups(model)):
        table = lookup.graph.tensors[int(lookup.gather.inputs[0])]
        same = next((other for other in products if _same(model, table, other)), None)
        if same is None:
            continue
        dropped.add(table.buffer)
        # Each graph has tensors of its own; what they share is the buffer.
        table.buffer, table.quantization = same.buffer, same.quantization
        gather = lookup.gather
        gather.opcodeIndex = flatbuffer.code_of(model, "EMBEDDING_LOOKUP")
        gather.builtinOptionsType, gather.builtinOptions = 0, None
        gather.inputs = np.asarray(gather.inputs)[::-1].copy()
        gather.outputs = lookup.dequantize.outputs
        lookup.graph.operators.remove(lookup.dequantize)
    flatbuffer.drop_unused_buffers(model, dropped)
    return len(dropped)


def _product_tables(model) -> list:
    """The int8 weights [V, D] of FULLY_CONNECTED with a scale for each row."""
    found = {}
    for graph in model.subgraphs:
        for operator in graph.operators or ():
            if flatbuffer.operator_name(model, operator) == "FULLY_CONNECTED":
                weights = graph.tensors[int(operator.inputs[1])]
                if weights.type == schema.TensorType.INT8 and _scales(weights).size == weights.shape[0]:
                    found.setdefault(weights.buffer, weights)
    return list(found.values())


def _lookups(model):
    for graph in model.subgraphs:
        readers = {}
        for operator in graph.operators or ():
            for index in operator.inputs:
                readers.setdefault(int(index), []).append(operator)
        for operator in graph.operators or ():
            if not flatbuffer.is_row_lookup(model, graph, operator):
                continue
            table, rows = graph.tensors[int(operator.inputs[0])], int(operator.outputs[0])
            following = readers.get(rows, [])
            quantized = table.type == schema.TensorType.INT8 and _scales(table).size == 1
            if quantized and [flatbuffer.operator_name(model, reader) for reader in following] == ["DEQUANTIZE"]:
                yield Lookup(graph, operator, following[0])


def _scales(tensor) -> np.ndarray:
    quantization = tensor.quantization
    found = None if quantization is None else quantization.scale
    return np.zeros(0, np.float32) if found is None else np.asarray(found, np.float32)


def _same(model, table, weights) -> bool:
    """Whether a table with one scale and weights with one for each row were rounded from the same numbers."""
    if not np.array_equal(table.shape, weights.shape):
        return False
    rows, (coarse,), fine = _values(model, table), _scales(table), _scales(weights)
    for start in range(0, len(rows), 4096):  # not all in float at once
        part = slice(start, start + 4096)
        scale = fine[part, None]
        apart = np.abs(rows[part] * coarse - _values(model, weights)[part] * scale)
        if (apart > 0.51 * (coarse + scale)).any():  # half a step of either rounding
            return False
    return True


def _values(model, tensor) -> np.ndarray:
    return model.buffers[tensor.buffer].data.view(np.int8).reshape(tuple(tensor.shape))
