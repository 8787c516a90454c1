"""Files of 4-bit weights: ai-edge-quantizer writes them, and what each weight is rounded to is chosen here.

Shape letters: R rows that a product reads, K its inputs, O its outputs.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tfxformer.export.errors import ExportError
from tfxformer.export.quantization import carried, rounding
from tfxformer.runtime.format import flatbuffer
from tfxformer.runtime.quiet import quiet

# Bytes of the moments [K, K] that are held at once; a model with more reads the texts several times.
MOST_BYTES = 2**30


@dataclass
class Matrix:
    """The constant weights of one or more FULLY_CONNECTED, which become int4.

    Attributes:
        weights: float32 [O, K].
        reads: list of (subgraph, tensor), what is multiplied by them.
        rounded: list of (subgraph, tensor), themselves in the quantized file.
        carried: (integers, scales) that they are stored as, where they had 4 bits before; see `carried`.
    """

    weights: np.ndarray
    reads: list = field(default_factory=list)
    rounded: list = field(default_factory=list)
    carried: tuple | None = None


def to_int4(content: bytes, blockwise: bool = False, representative: Callable[[], Iterator] | None = None) -> bytes:
    """Quantizes a float .tflite file: matrices int4, activations dynamic.

    int8 are the tables, a product tied to one, and the keys' and values' matrices of grouped attention. By blocks,
    weights that had 4 bits before are carried over (`carried`), those matrices among them.

    Args:
        content: the file.
        blockwise: bool, a scale for every 32 weights of a row in place of one for the row.
        representative: yields (signature name, batch of one). What the products read of them decides how weights are
            rounded; without, each is rounded by itself.
    """
    model = flatbuffer.read(content)
    flatbuffer.gather_to_embedding_lookup(model)
    tables = _looked_up(model)
    kept = carried.widen(model, (one for one in _products(model) if one[-1] not in tables)) if blockwise else {}
    finer = tables | _cached(model) - kept.keys()
    # The quantizer writes weights behind the flatbuffer; reading brings them inside.
    quantized = flatbuffer.read(_quantized(model, blockwise, finer))
    matrices = _matrices(model, quantized, kept)
    block = carried.BLOCK if blockwise else None
    for matrix in (one for one in matrices if one.carried is not None):
        _store(quantized, matrix, *matrix.carried, block)
    for group in _groups([one for one in matrices if one.carried is None]):
        moments = {} if representative is None else _moments(content, group, representative())
        known = {key: rounding.Known.of(sums) for key, sums in moments.items()}
        for matrix in group:
            _round(quantized, matrix, known.get(tuple(matrix.reads)), block)
    return flatbuffer.write(quantized)


def _quantized(model, blockwise: bool, finer: set[int]) -> bytes:
    """The file as ai-edge-quantizer writes it; the weights of some buffers are int8."""
    from ai_edge_quantizer import quantizer, recipe

    names = recipe.TFLOperationName
    matrices = recipe.dynamic_wi4b32_afp32 if blockwise else recipe.dynamic_wi4c_afp32
    recipes = matrices(operation_name=names.FULLY_CONNECTED)
    recipes += recipe.dynamic_wi8c_afp32(operation_name=names.EMBEDDING_LOOKUP)
    outputs = _outputs_of(model, finer)
    if outputs:
        recipes += recipe.dynamic_wi8c_afp32(
            operation_name=names.FULLY_CONNECTED, regex="|".join(map(re.escape, outputs))
        )
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "float.tflite"), Path(folder, "int4.tflite")
        source.write_bytes(flatbuffer.write(model))
        engine = quantizer.Quantizer(str(source))
        engine.load_quantization_recipe(recipes)
        try:
            with contextlib.redirect_stdout(io.StringIO()):  # it prints a summary
                engine.quantize().export_model(str(target))
        except (ValueError, RuntimeError) as error:
            name, instead = ("int4_block32", "int4 or dynamic_int8") if blockwise else ("int4", "dynamic_int8")
            raise ExportError(
                f"ai-edge-quantizer could not quantize the model to {name} ({error}): no file was written. Try "
                f"quantization={instead}."
            ) from error
        return target.read_bytes()


def _products(model) -> Iterator[tuple]:
    """(number of the subgraph, operator, buffer of the weights) of every product with weights."""
    for number, graph in enumerate(model.subgraphs):
        for operator in graph.operators or ():
            if flatbuffer.operator_name(model, operator) == "FULLY_CONNECTED":
                yield number, operator, graph.tensors[int(operator.inputs[1])].buffer


def _outputs_of(model, buffers: set[int]) -> list[str]:
    """Names of the outputs of the products with these weights: by them a recipe knows a product."""
    found = ((number, int(operator.outputs[0])) for number, operator, buffer in _products(model) if buffer in buffers)
    return sorted({flatbuffer.text(model.subgraphs[number].tensors[output].name) for number, output in found})


def _looked_up(model) -> set[int]:
    """The tables: a product with one reads it as the lookup does, so that it is stored once."""
    return {
        graph.tensors[int(operator.inputs[1])].buffer
        for graph in model.subgraphs
        for operator in graph.operators or ()
        if flatbuffer.operator_name(model, operator) == "EMBEDDING_LOOKUP"
    }


def _cached(model) -> set[int]:
    """The weights of keys and values that groups of queries share.

    All later tokens read them in the cache, and they are few: in int8 the error of SmolLM2-135M falls from 0.208 to
    0.195 for 3.5 % of the file. Where each query has keys of its own they are a sixth of a block, and stay int4.
    """
    found, readers = set(), [_readers(graph) for graph in model.subgraphs]
    for number, operator, buffer in _products(model):
        outputs, inputs = model.subgraphs[number].tensors[int(operator.inputs[1])].shape
        if 2 * outputs <= inputs and _is_cached(model, readers[number], int(operator.outputs[0])):
            found.add(buffer)
    return found


def _readers(graph) -> dict[int, list[tuple]]:
    """(operator, which of its inputs) of all that read a tensor, by the tensor."""
    found = {}
    for operator in graph.operators or ():
        for position, index in enumerate(operator.inputs):
            found.setdefault(int(index), []).append((operator, position))
    return found


def _is_cached(model, readers: dict[int, list[tuple]], tensor: int) -> bool:
    """Whether a tensor is written into a cache before a product reads it."""
    left, seen = [tensor], {tensor}
    while left:
        for operator, position in readers.get(left.pop(), ()):
            name = flatbuffer.operator_name(model, operator)
            if name == "DYNAMIC_UPDATE_SLICE" and position == 1:
                return True
            if name not in ("FULLY_CONNECTED", "BATCH_MATMUL"):
                new = {int(index) for index in operator.outputs} - seen
                left.extend(new)
                seen |= new
    return False


def _matrices(model, quantized, kept: dict) -> list[Matrix]:
    """The weights of a float file that are int4 in the quantized one, whose tensors keep their numbers."""
    found = {}
    for number, operator, buffer in _products(model):
        read, index = (int(i) for i in operator.inputs[:2])
        if quantized.subgraphs[number].tensors[index].type != schema.TensorType.INT4:
            continue
        if buffer not in found:
            shape = tuple(model.subgraphs[number].tensors[index].shape)
            found[buffer] = Matrix(model.buffers[buffer].data.view(np.float32).reshape(shape))
            found[buffer].carried = kept.get(buffer)
        found[buffer].reads.append((number, read))
        found[buffer].rounded.append((number, index))
    return list(found.values())


def _groups(matrices: list[Matrix]) -> Iterator[list[Matrix]]:
    """Matrices whose moments are held together; those that read the same stand behind each other."""
    group, seen, size = [], set(), 0
    for matrix in sorted(matrices, key=lambda matrix: matrix.reads):
        key, needed = tuple(matrix.reads), 4 * matrix.weights.shape[1] ** 2
        if key not in seen and group and size + needed > MOST_BYTES:
            yield group
            group, seen, size = [], set(), 0
        size += needed * (key not in seen)
        seen.add(key)
        group.append(matrix)
    if group:
        yield group


def _moments(content: bytes, group: list[Matrix], batches) -> dict[tuple, np.ndarray]:
    """X^T X [K, K] of what [R, K] each matrix reads, by `Matrix.reads`."""
    from ai_edge_litert.interpreter import Interpreter

    model, keys = flatbuffer.read(content), {tuple(matrix.reads): matrix.weights.shape[1] for matrix in group}
    for number, tensor in sorted({read for key in keys for read in key}):
        flatbuffer.add_output(model, number, tensor, f"reads_{tensor}")
    numbers = {name: info.subgraph for name, info in flatbuffer.signatures(model).items()}
    moments = {key: np.zeros((size, size), np.float32) for key, size in keys.items()}
    with quiet():
        interpreter = Interpreter(model_content=flatbuffer.write(model), num_threads=min(4, os.cpu_count() or 1))
        runners = {}
        for name, batch in batches:
            runner = runners.setdefault(name, interpreter.get_signature_runner(name))
            outputs = runner(**batch)
            for key, sums in moments.items():
                for number, tensor in key:
                    if number == numbers[name]:
                        rows = _unpadded(outputs[f"reads_{tensor}"].reshape(-1, len(sums)), batch)
                        sums += rows.T @ rows
    return moments


def _unpadded(rows, batch):
    """Rows [R, K] without those of padding, where they are the tokens of a text."""
    mask = batch.get("padding_mask")
    return rows if mask is None or mask.size != len(rows) else rows[mask.reshape(-1) > 0]


def _round(quantized, matrix: Matrix, known: rounding.Known | None, block: int | None) -> None:
    """Chooses the integers and the scales of a matrix, and stores them."""
    if known is None:
        integers, scales = rounding.rounded(matrix.weights, block)
    else:
        integers, scales = rounding.compensated(matrix.weights, known, block)
    _store(quantized, matrix, integers, scales, block)


def _store(quantized, matrix: Matrix, integers, scales, block: int | None) -> None:
    """Writes the integers and the scales of a matrix into the quantized file."""
    pairs = integers.reshape(-1, 2) & 0xF  # the first of two in the lower half of a byte
    packed = (pairs[:, 0] | pairs[:, 1] << 4).astype(np.uint8)
    for number, index in matrix.rounded:
        graph = quantized.subgraphs[number]
        tensor = graph.tensors[index]
        quantized.buffers[tensor.buffer].data = packed
        if block is None:
            tensor.quantization.scale = scales[:, 0]
        else:
            stored = graph.tensors[tensor.quantization.details.scales]
            quantized.buffers[stored.buffer].data = scales.astype(np.float16).reshape(-1).view(np.uint8)
