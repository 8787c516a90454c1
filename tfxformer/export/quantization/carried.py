"""Weights that have 4 bits already, those of GGUF files: carried over as they are, not rounded a second time.

A block of 32 weights of such a file is d * q + m, with q from 0 to 15. LiteRT's blocks have a scale d and integers from
-8 to 7, but no offset. The offset c = m + 8 d of a block goes into columns of its own, since its part of a product is c
times the sum of the block's inputs:

    sum_k (d (q_k - 8) + c) x_k  =  sum_k d (q_k - 8) x_k  +  c sum_k x_k

The inputs [K] are written with the sums of their blocks behind them, [K + 2 P], twice: for c in 4 bits, and for what
that leaves of it. The weights of SmolLM2-135M are then within 0.3 % of what they were; with the sums once it would be
4 %, and 9 % by rounding.

Shape letters: O outputs, K inputs of a product, P its blocks, filled up to a multiple of 32.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import ml_dtypes
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tfxformer.export.quantization import rounding
from tfxformer.runtime.format import flatbuffer

BLOCK = 32
LEVELS = rounding.HIGHEST - rounding.LOWEST  # steps between the lowest and the highest integer
NEAR = 1e-3  # of a step: what float32 leaves of a grid
ROWS = 8  # of a kernel, which say whether it is worth a closer look


class Grid(NamedTuple):
    """Weights as steps and offsets of blocks.

    Attributes:
        integers: int8 [O, K], -8 to 7.
        steps: float32 [O, K/32], that bfloat16 has.
        offsets: float32 [O, K/32].
    """

    integers: np.ndarray
    steps: np.ndarray
    offsets: np.ndarray


def grid_of(weights: np.ndarray) -> Grid | None:
    """The grid that float32 weights [O, K] lie on, or None where a block has none of at most 16 levels."""
    outputs, inputs = weights.shape
    if inputs % BLOCK or (outputs > ROWS and grid_of(weights[:ROWS]) is None):  # some rows say it of most kernels
        return None
    groups = weights.reshape(-1, BLOCK)
    lowest = groups.min(axis=-1)
    spread = groups.max(axis=-1) - lowest
    levels = np.zeros(len(groups), np.int32)  # 0: no grid is known yet
    for count in range(LEVELS, 0, -1):
        open_ = np.flatnonzero(levels == 0)
        step = np.maximum(spread[open_, None], rounding.SMALLEST_SCALE) / count
        places = (groups[open_] - lowest[open_, None]) / step
        fits = np.abs(places - np.rint(places)).max(axis=-1, initial=0.0) < NEAR
        levels[open_[fits]] = count
        if fits.all():
            break
    if not levels.all():
        return None
    steps = np.maximum(spread / levels, rounding.SMALLEST_SCALE)
    zero = np.clip(np.rint(-lowest / steps), levels - rounding.HIGHEST, -rounding.LOWEST)  # the step that is 0
    zero[spread == 0] = 0.0  # equal weights are an offset alone
    integers = np.rint((groups - lowest[:, None]) / steps[:, None]) - zero[:, None]
    return Grid(
        integers.astype(np.int8).reshape(outputs, inputs),
        steps.astype(ml_dtypes.bfloat16).astype(np.float32).reshape(outputs, -1),
        (lowest + zero * steps).astype(np.float32).reshape(outputs, -1),
    )


def of_four_bits(model) -> bool:
    """Whether most of a Keras model's kernels lie on grids of 4 bits, by some rows of each."""
    kernels = [v for v in model.weights if v.path.endswith("kernel") and len(v.shape) == 2]
    sizes = {True: 0, False: 0}
    for kernel in kernels:
        rows = np.ascontiguousarray(np.asarray(kernel.value)[:, :ROWS].T, np.float32)
        sizes[grid_of(rows) is not None] += int(np.prod(kernel.shape))
    return sizes[True] > sizes[False]


def columns(grid: Grid) -> tuple[np.ndarray, np.ndarray]:
    """What a product that reads the sums too is stored as: (integers [O, K + 2 P], scales [O, (K + 2 P) / 32])."""
    offsets = _filled(grid.offsets)
    coarse, coarse_scales = rounding.rounded(offsets, BLOCK)
    left = offsets - coarse * np.repeat(coarse_scales, BLOCK, axis=1)
    fine, fine_scales = rounding.rounded(left, BLOCK)
    integers = np.concatenate([grid.integers, coarse, fine], axis=1)
    return integers, np.concatenate([grid.steps, coarse_scales, fine_scales], axis=1)


def _filling(blocks: int) -> int:
    """Columns of zeros behind a product's sums."""
    return -blocks % BLOCK


def _filled(offsets: np.ndarray) -> np.ndarray:
    """[O, K/32] -> [O, P]."""
    return np.pad(offsets, [(0, 0), (0, _filling(offsets.shape[1]))])


def widen(model, products: Iterable[tuple]) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """Writes the products whose weights lie on grids with the sums of their inputs' blocks.

    Args:
        model: of a float file, changed in place; its tensors and operators keep their order.
        products: (number of the subgraph, FULLY_CONNECTED, buffer of its weights).

    Returns:
        By buffer, the integers and scales that its weights are to be stored as.
    """
    found, wide = {}, {}
    for number, operator, buffer in list(products):
        graph = model.subgraphs[number]
        weights = graph.tensors[int(operator.inputs[1])]
        if buffer not in found:
            data = model.buffers[buffer].data.view(np.float32).reshape(tuple(weights.shape))
            grid = grid_of(data)
            found[buffer] = None if grid is None else columns(grid)
            if grid is not None:
                model.buffers[buffer].data = _wide_weights(data, grid)
        if found[buffer] is None:
            continue
        read = int(operator.inputs[0])
        if (number, read) not in wide:
            wide[number, read] = _with_sums(model, graph, read, operator)
        operator.inputs = np.asarray([wide[number, read], *operator.inputs[1:]], np.int32)
        weights.shape = np.asarray(found[buffer][0].shape, np.int32)
    return {buffer: stored for buffer, stored in found.items() if stored is not None}


def _wide_weights(weights, grid: Grid) -> np.ndarray:
    """The float weights of a widened product, as bytes; what it gives is the same."""
    offsets = _filled(grid.offsets)
    plain = weights - np.repeat(grid.offsets, BLOCK, axis=1)
    return np.concatenate([plain, offsets, np.zeros_like(offsets)], axis=1).reshape(-1).view(np.uint8)


def _with_sums(model, graph, read: int, before) -> int:
    """Adds [..., K + 2 P] of [..., K] in front of an operator; returns the tensor's number."""
    shape = [int(size) for size in graph.tensors[read].shape]
    *rows, inputs = shape
    blocks = inputs // BLOCK
    name = flatbuffer.text(graph.tensors[read].name)
    made = _Maker(model, graph, before, f"{name}/of_blocks")
    grouped = made.tensor([*rows, blocks, BLOCK])
    made.operator("RESHAPE", [read, made.constant([*rows, blocks, BLOCK], np.int32)], grouped)
    sums = made.tensor([*rows, blocks])
    made.operator("SUM", [grouped, made.constant([len(rows) + 1], np.int32)], sums, schema.ReducerOptionsT())
    filling, parts = _filling(blocks), [sums]
    if filling:
        parts.append(made.constant(np.zeros([*rows, filling], np.float32), np.float32))
    options = schema.ConcatenationOptionsT()
    options.axis = len(rows)
    whole = made.tensor([*rows, inputs + 2 * (blocks + filling)])
    made.operator("CONCATENATION", [read, *parts, *parts], whole, options)
    return whole


class _Maker:
    """Tensors and operators of a subgraph, the operators in front of a given one."""

    def __init__(self, model, graph, before, name: str):
        self.model, self.graph, self.before, self.name = model, graph, before, name

    def tensor(self, shape, dtype=np.float32, buffer: int = 0) -> int:
        tensor = schema.TensorT()
        tensor.shape, tensor.buffer = np.asarray(shape, np.int32), buffer
        tensor.type = schema.TensorType.FLOAT32 if dtype is np.float32 else schema.TensorType.INT32
        tensor.name = f"{self.name}_{len(self.graph.tensors)}"
        self.graph.tensors.append(tensor)
        return len(self.graph.tensors) - 1

    def constant(self, values, dtype) -> int:
        values = np.asarray(values, dtype)
        self.model.buffers.append(flatbuffer.AlignedBuffer(values.reshape(-1).view(np.uint8)))
        return self.tensor(values.shape, dtype, len(self.model.buffers) - 1)

    def operator(self, name: str, inputs, output: int, options=None) -> None:
        made = schema.OperatorT()
        made.opcodeIndex = flatbuffer.code_of(self.model, name)
        made.inputs, made.outputs = np.asarray(inputs, np.int32), np.asarray([output], np.int32)
        if options is not None:
            made.builtinOptions = options
            made.builtinOptionsType = getattr(schema.BuiltinOptions, type(options).__name__.removesuffix("T"))
        place = next(i for i, operator in enumerate(self.graph.operators) if operator is self.before)
        self.graph.operators.insert(place, made)
