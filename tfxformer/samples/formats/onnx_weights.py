"""The weights of an ONNX file that onnxruntime has quantized, as floats: just what is needed of the format.

A file is one protocol buffer (https://onnx.ai, onnx.proto): a model holds a graph, that its nodes and initializers.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

# Numbers of the fields that are read, and of the types of tensors.
_GRAPH, _NODE, _INITIALIZER = 7, 1, 5
_NODE_INPUT, _NODE_NAME, _NODE_OPERATION = 1, 3, 4
_DIMS, _DATA_TYPE, _TENSOR_NAME, _RAW_DATA, _FLOATS, _INTEGERS = 1, 2, 8, 9, 4, 5
_DTYPES = {1: "float32", 2: "uint8", 3: "int8", 6: "int32", 7: "int64"}


class Node(NamedTuple):
    """One operation: its name (the path of the module it came from), its type, the names of its inputs."""

    name: str
    operation: str
    inputs: tuple[str, ...]


class Graph(NamedTuple):
    """Nodes in their order, and initializers by name."""

    nodes: tuple[Node, ...]
    initializers: dict[str, np.ndarray]


def read_graph(path: Path) -> Graph:
    """The nodes and initializers of an ONNX file; ValueError for what is none."""
    nodes, initializers = [], {}
    for number, graph in _fields(memoryview(Path(path).read_bytes())):
        if number != _GRAPH:
            continue
        for kind, content in _fields(graph):
            if kind == _NODE:
                nodes.append(_node(content))
            elif kind == _INITIALIZER:
                name, array = _tensor(content)
                initializers[name] = array
    if not nodes:
        raise ValueError(f"{path} holds no graph of ONNX.")
    return Graph(tuple(nodes), initializers)


def dequantized(graph: Graph, name: str) -> np.ndarray:
    """A quantized initializer as float32: (q - zero point) * scale, one of each for the whole tensor."""
    held = graph.initializers
    zero = held[f"{name}_zero_point"].astype("float32")
    return (held[f"{name}_quantized"].astype("float32") - zero) * held[f"{name}_scale"]


def _fields(buffer: memoryview) -> Iterator[tuple[int, object]]:
    """(number, int or bytes) of each field of a message."""
    at = 0
    while at < len(buffer):
        tag, at = _varint(buffer, at)
        number, kind = tag >> 3, tag & 7
        if kind == 0:
            value, at = _varint(buffer, at)
        elif kind == 2:
            length, at = _varint(buffer, at)
            value, at = buffer[at : at + length], at + length
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
            value, at = buffer[at : at + size], at + size
        else:
            raise ValueError(f"Field {number} has the wire type {kind}: this is no ONNX file.")
        if at > len(buffer):
            raise ValueError(f"Field {number} ends behind the file: it is cut, or no ONNX file.")
        yield number, value


def _varint(buffer: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if at >= len(buffer) or shift > 63:
            raise ValueError("A number ends behind the file: it is cut, or no ONNX file.")
        byte = buffer[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if not byte & 0x80:
            return value, at


def _node(content: memoryview) -> Node:
    name = operation = ""
    inputs = []
    for number, value in _fields(content):
        if number == _NODE_INPUT:
            inputs.append(bytes(value).decode())
        elif number == _NODE_NAME:
            name = bytes(value).decode()
        elif number == _NODE_OPERATION:
            operation = bytes(value).decode()
    return Node(name, operation, tuple(inputs))


def _tensor(content: memoryview) -> tuple[str, np.ndarray]:
    name, shape, dtype, data = "", [], None, b""
    for number, value in _fields(content):
        if number == _TENSOR_NAME:
            name = bytes(value).decode()
        elif number == _DIMS:
            shape += [value] if isinstance(value, int) else _packed(value)
        elif number == _DATA_TYPE:
            dtype = _DTYPES.get(value)
        elif number in (_RAW_DATA, _FLOATS):
            data = value
        elif number == _INTEGERS:  # small ones of int8 and the like, where they are not raw
            data = np.array([value] if isinstance(value, int) else _packed(value), "int64").astype(dtype).tobytes()
    if dtype is None:
        return name, np.zeros(0)  # of a type that no weight here has
    return name, np.frombuffer(data, dtype).reshape(shape)


def _packed(content: memoryview) -> list[int]:
    numbers, at = [], 0
    while at < len(content):
        number, at = _varint(content, at)
        numbers.append(number)
    return numbers
