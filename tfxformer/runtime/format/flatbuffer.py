"""Reading and editing the flatbuffer that a .tflite file is.

Schema: https://github.com/google-ai-edge/LiteRT/blob/main/tflite/converter/schema/schema.fbs, through the
classes generated from it in `ai_edge_litert`. Buffers stay numpy views of the file; lists would take minutes.
"""

from __future__ import annotations

import contextlib
import hashlib
import struct
from collections import Counter
from dataclasses import dataclass

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tfxformer.runtime.format import structure

IDENTIFIER = b"TFL3"
BUFFER_ALIGNMENT = 16  # the schema's force_align of Buffer.data

_OPERATORS = {code: name for name, code in vars(schema.BuiltinOperator).items() if isinstance(code, int)}
_TYPES = {code: name for name, code in vars(schema.TensorType).items() if isinstance(code, int)}
_STATEFUL = ("VAR_HANDLE", "READ_VARIABLE", "ASSIGN_VARIABLE")
_CONTROL_FLOW = ("IF", "WHILE", "STABLEHLO_WHILE", "CALL", "CALL_ONCE", "STABLEHLO_COMPOSITE")


class AlignedBuffer(schema.BufferT):
    """A buffer that packs as the schema wants it: the generated class aligns it to one byte."""

    def Pack(self, builder):
        vector = None
        if self.data is not None:
            data = np.ascontiguousarray(self.data, np.uint8)
            builder.StartVector(1, data.size, BUFFER_ALIGNMENT)
            builder.head -= data.size
            builder.Bytes[builder.head : builder.head + data.size] = data.tobytes()
            vector = builder.EndVector()
        schema.BufferStart(builder)
        if vector is not None:
            schema.BufferAddData(builder, vector)
        return schema.BufferEnd(builder)


@dataclass(frozen=True)
class TensorInfo:
    """An input or output of a signature."""

    name: str
    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class SignatureInfo:
    """A signature: its subgraph, and its inputs and outputs by the names a client calls them."""

    name: str
    subgraph: int
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]


def read(content: bytes) -> schema.ModelT:
    """Unpacks a .tflite file; buffers that lie behind the flatbuffer are brought inside.

    Raises:
        ValueError: if the content is no .tflite file, or a damaged one.
    """
    packed = _checked(content)
    with _naming_damage():
        model = schema.ModelT.InitFromObj(packed)
    model.buffers = [_brought_inside(content, buffer) for buffer in model.buffers]
    nothing = np.zeros(0, np.int32)
    for graph in model.subgraphs:
        graph.tensors = graph.tensors or []
        for part in (graph, *(graph.operators or ())):  # absent vectors are empty ones
            part.inputs = nothing if part.inputs is None else part.inputs
            part.outputs = nothing if part.outputs is None else part.outputs
    return model


def outline(content: bytes) -> schema.ModelT:
    """What `signatures` and `get_metadata` read of a file; tensors and buffers are unpacked when they ask for them.

    Of MiniLM's file it takes a fifth of the time that `read` does.

    Raises:
        ValueError: if the content is no .tflite file, or its tables do not fit together.
    """
    packed = _checked(content)
    with _naming_damage():
        model = schema.ModelT()
        model.subgraphs = []
        for index in range(packed.SubgraphsLength()):
            graph = schema.SubGraphT()
            graph.inputs = packed.Subgraphs(index).InputsAsNumpy()
            graph.tensors = _OnDemand(packed.Subgraphs(index).Tensors, schema.TensorT.InitFromObj)
            model.subgraphs.append(graph)
        unpacked = schema.SignatureDefT.InitFromObj
        model.signatureDefs = [unpacked(packed.SignatureDefs(i)) for i in range(packed.SignatureDefsLength())]
        model.metadata = [schema.MetadataT.InitFromObj(packed.Metadata(i)) for i in range(packed.MetadataLength())]
    model.buffers = _OnDemand(packed.Buffers, lambda one: _brought_inside(content, schema.BufferT.InitFromObj(one)))
    return model


class _OnDemand:
    """A vector of a packed file, whose items are unpacked one by one."""

    def __init__(self, packed, unpack):
        self._packed, self._unpack = packed, unpack

    def __getitem__(self, index: int):
        return self._unpack(self._packed(index))


@contextlib.contextmanager
def _naming_damage():
    try:
        yield
    # What the generated classes raise for options of operators, whose fields are not checked one by one.
    except (ValueError, TypeError, AttributeError, LookupError, OverflowError, MemoryError, struct.error) as error:
        raise ValueError(f"This .tflite file is damaged or cut off: {error}.") from error


def _checked(content: bytes):
    """The packed model, whose offsets may be followed."""
    if len(content) < 8 or content[4:8] != IDENTIFIER:
        raise ValueError(f"This is no .tflite file: it begins with {bytes(content[:8])!r}, not with ....TFL3.")
    with _naming_damage():
        structure.check_model(content)
    return schema.Model.GetRootAsModel(content, 0)


def _brought_inside(content: bytes, buffer) -> AlignedBuffer:
    """A buffer of a file, wherever its bytes lie there."""
    if buffer.offset > 1:  # 0 and 1 are the schema's "inside"
        return AlignedBuffer(np.frombuffer(content, np.uint8, buffer.size, buffer.offset))
    return AlignedBuffer(buffer.data)


def write(model: schema.ModelT) -> bytes:
    """Packs a model into the bytes of a .tflite file."""
    size = sum(buffer.data.size for buffer in model.buffers if buffer.data is not None)
    builder = flatbuffers.Builder(size + size // 8 + 65536)
    builder.Finish(model.Pack(builder), IDENTIFIER)
    return bytes(builder.Output())


def text(name) -> str:
    """A flatbuffer string as str."""
    return name.decode("utf-8") if isinstance(name, bytes) else (name or "")


def operator_name(model: schema.ModelT, operator) -> str:
    """The name of an operator: a builtin's, or a custom one's own."""
    code = model.operatorCodes[operator.opcodeIndex]
    builtin = max(code.builtinCode, code.deprecatedBuiltinCode)
    if builtin == schema.BuiltinOperator.CUSTOM:
        return text(code.customCode)
    return _OPERATORS.get(builtin, f"BUILTIN_{builtin}")  # of a newer schema


def operators(model: schema.ModelT, subgraph: int | None = None) -> Counter:
    """How often each operator occurs, in one subgraph or in all."""
    graphs = model.subgraphs if subgraph is None else [model.subgraphs[subgraph]]
    return Counter(operator_name(model, operator) for graph in graphs for operator in graph.operators or ())


def foreign_operators(model: schema.ModelT) -> list[str]:
    """Names of the operators that a plain LiteRT runtime does not have, or that hold hidden state."""
    builtins = set(_OPERATORS.values()) - {"CUSTOM", *_STATEFUL}
    return sorted(set(operators(model)) - builtins)


def _type_name(code: int) -> str:
    return _TYPES.get(code, f"TYPE_{code}").lower()


def tensor_info(tensor, name: str | None = None) -> TensorInfo:
    """Name, shape and dtype of a tensor."""
    shape = () if tensor.shape is None else tuple(int(size) for size in tensor.shape)
    if tensor.shapeSignature is not None and len(tensor.shapeSignature):
        shape = tuple(int(size) for size in tensor.shapeSignature)  # -1 where the length is free
    return TensorInfo(text(tensor.name) if name is None else name, shape, _type_name(tensor.type))


def signatures(model: schema.ModelT) -> dict[str, SignatureInfo]:
    """The signatures of a file by name."""
    found = {}
    for definition in model.signatureDefs or ():
        tensors = model.subgraphs[definition.subgraphIndex].tensors

        def infos(maps, tensors=tensors):
            return tuple(tensor_info(tensors[entry.tensorIndex], text(entry.name)) for entry in maps or ())

        name = text(definition.signatureKey)
        found[name] = SignatureInfo(name, definition.subgraphIndex, infos(definition.inputs), infos(definition.outputs))
    return found


def _is_constant(model, tensor) -> bool:
    data = model.buffers[tensor.buffer].data
    return data is not None and data.size > 0


def constant_buffers(model: schema.ModelT, subgraph: int) -> set[int]:
    """Indexes of the constant buffers that the outputs of a subgraph depend on, each once."""
    graph = model.subgraphs[subgraph]
    if any(operator_name(model, operator) in _CONTROL_FLOW for operator in graph.operators or ()):
        tensors = [tensor for graph in model.subgraphs for tensor in graph.tensors]  # nested graphs: take all
        return {tensor.buffer for tensor in tensors if _is_constant(model, tensor)}
    producer = {index: operator for operator in graph.operators or () for index in operator.outputs}
    waiting, seen = [int(index) for index in graph.outputs], set()
    while waiting:
        index = waiting.pop()
        if index < 0 or index in seen:  # -1 is an absent optional input
            continue
        seen.add(index)
        if index in producer:
            waiting.extend(int(i) for i in producer[index].inputs)
    return {graph.tensors[i].buffer for i in seen if _is_constant(model, graph.tensors[i])}


def constant_bytes(model: schema.ModelT, subgraph: int) -> int:
    """Bytes of the constants that the outputs of a subgraph depend on, each buffer counted once."""
    return sum(int(model.buffers[index].data.size) for index in constant_buffers(model, subgraph))


def bytes_by_type(model: schema.ModelT) -> dict[str, int]:
    """Bytes of all constants by element type, each buffer counted once."""
    types = {}
    for graph in model.subgraphs:
        for tensor in graph.tensors:
            if _is_constant(model, tensor):
                types[tensor.buffer] = _type_name(tensor.type)
    totals = Counter()
    for index, name in types.items():
        totals[name] += int(model.buffers[index].data.size)
    return dict(totals)


def share_buffers(model: schema.ModelT) -> int:
    """Lets tensors with equal constants share one buffer; returns the bytes saved.

    The converter shares float weights between signatures, but calibrated ones only in part.
    """
    first, saved = {}, 0
    replacement = {}
    for index, buffer in enumerate(model.buffers):
        if buffer.data is None or not buffer.data.size:
            continue
        key = (buffer.data.size, hashlib.blake2b(buffer.data, digest_size=16).digest())
        if key in first:
            replacement[index] = first[key]
            saved += int(buffer.data.size)
        else:
            first[key] = index
    for tensor in (tensor for graph in model.subgraphs for tensor in graph.tensors):
        tensor.buffer = replacement.get(tensor.buffer, tensor.buffer)
    for entry in model.metadata or ():
        entry.buffer = replacement.get(entry.buffer, entry.buffer)
    for index in replacement:
        model.buffers[index] = AlignedBuffer(None)  # the numbers of the others stay
    return saved


def drop_output(model: schema.ModelT, signature: str, output: str) -> None:
    """Hides an output of a signature; the operators and constants stay as they are."""
    definition = next(d for d in model.signatureDefs if text(d.signatureKey) == signature)
    entry = next(entry for entry in definition.outputs if text(entry.name) == output)
    graph = model.subgraphs[definition.subgraphIndex]
    graph.outputs = np.asarray([i for i in graph.outputs if i != entry.tensorIndex], np.int32)
    definition.outputs.remove(entry)


def add_output(model: schema.ModelT, subgraph: int, tensor: int, name: str) -> None:
    """Lets every signature of a subgraph give one more of its tensors, by that name."""
    graph = model.subgraphs[subgraph]
    graph.outputs = np.asarray([*graph.outputs, tensor], np.int32)
    for definition in model.signatureDefs:
        if definition.subgraphIndex == subgraph:
            entry = schema.TensorMapT()
            entry.name, entry.tensorIndex = name, tensor
            definition.outputs.append(entry)


def keep_signature(model: schema.ModelT, signature: str) -> None:
    """Drops every other signature's subgraph (a file without control flow)."""
    definition = next(d for d in model.signatureDefs if text(d.signatureKey) == signature)
    model.subgraphs = [model.subgraphs[definition.subgraphIndex]]
    definition.subgraphIndex = 0
    model.signatureDefs = [definition]


def get_metadata(model: schema.ModelT, name: str) -> bytes | None:
    """The content of a metadata entry, or None."""
    for entry in model.metadata or ():
        if text(entry.name) == name:
            return model.buffers[entry.buffer].data.tobytes()
    return None


def set_metadata(model: schema.ModelT, name: str, content: bytes) -> None:
    """Adds a metadata entry, or replaces the one of that name."""
    model.metadata = [entry for entry in model.metadata or () if text(entry.name) != name]
    model.buffers.append(AlignedBuffer(np.frombuffer(content, np.uint8)))
    entry = schema.MetadataT()
    entry.name, entry.buffer = name, len(model.buffers) - 1
    model.metadata.append(entry)


def is_row_lookup(model: schema.ModelT, graph, operator) -> bool:
    """Whether an operator is GATHER(constant table [V, D], ids [S]): what EMBEDDING_LOOKUP can do too."""
    if operator_name(model, operator) != "GATHER":
        return False
    table, ids = (graph.tensors[int(i)] for i in operator.inputs)
    options = operator.builtinOptions
    if options is not None and (options.axis or options.batchDims):
        return False
    return _is_constant(model, table) and len(table.shape) == 2 and len(ids.shape) == 1


def code_of(model: schema.ModelT, name: str) -> int:
    """The index of a builtin operator in a file; one that is new to it becomes known in its first version."""
    builtin = getattr(schema.BuiltinOperator, name)
    for index, known in enumerate(model.operatorCodes):
        if max(known.builtinCode, known.deprecatedBuiltinCode) == builtin:
            return index
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = builtin
    code.version = 1
    model.operatorCodes.append(code)
    return len(model.operatorCodes) - 1


def drop_unused_buffers(model: schema.ModelT, buffers) -> None:
    """Empties those buffers that no tensor reads any more; the numbers of the others stay."""
    used = {tensor.buffer for graph in model.subgraphs for tensor in graph.tensors}
    for index in set(buffers) - used:
        model.buffers[index] = AlignedBuffer(None)


def gather_to_embedding_lookup(model: schema.ModelT) -> int:
    """Rewrites row lookups GATHER(constant table [V, D], ids [S]) as EMBEDDING_LOOKUP(ids, table).

    ai-edge-quantizer quantizes the tables of the latter only. Returns the number of rewritten operators.
    """
    count = 0
    for graph in model.subgraphs:
        for operator in graph.operators or ():
            if not is_row_lookup(model, graph, operator):
                continue
            operator.opcodeIndex = code_of(model, "EMBEDDING_LOOKUP")
            operator.inputs = np.asarray(operator.inputs)[::-1].copy()
            operator.builtinOptionsType, operator.builtinOptions = 0, None
            count += 1
    return count
