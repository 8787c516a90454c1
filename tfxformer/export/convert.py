"""Traced signatures to the bytes of a .tflite file, in builtin operators only."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable
from dataclasses import dataclass

import flatbuffers
import numpy as np

from tfxformer.export.errors import ExportError
from tfxformer.export.quantization import calibration, int4, quantize, tied_table
from tfxformer.runtime.format import flatbuffer
from tfxformer.runtime.quiet import quiet

NOTE = "CONVERSION_METADATA"  # the name of the metadata entry that the converter writes


@dataclass(frozen=True)
class Signature:
    """One entry of a file.

    Attributes:
        name: str.
        inputs: {name: (shape, dtype)}, all static.
        function: dict of tensors -> dict of tensors, written with builtin operators.
    """

    name: str
    inputs: dict[str, tuple[tuple[int, ...], str]]
    function: Callable[[dict], dict]


@dataclass(frozen=True)
class Converted:
    """A file and, per signature, how many elements of weights its outputs use."""

    content: bytes
    weight_elements: dict[str, int]


def convert(signatures: list[Signature], mode: quantize.Mode, representative=None) -> Converted:
    """Converts through a SavedModel, whose named signatures share their weights.

    Args:
        signatures: what the file offers.
        mode: the quantization; int4 is made from the float file.
        representative: callable yielding (signature name, dict of arrays) for modes that are calibrated or rounded.

    Raises:
        ExportError: if an operator is not LiteRT's own, or the converter fails otherwise.
    """
    import tensorflow as tf

    with quiet():
        functions = {signature.name: _trace(signature) for signature in signatures}
        module = tf.Module()
        # What the traces really read: a variable that is not tracked here would become an empty VAR_HANDLE.
        captured = {id(v): v for function in functions.values() for v in function.graph.variables}
        module.captured_variables = list(captured.values())
        with tempfile.TemporaryDirectory() as folder:
            tf.saved_model.save(module, folder, signatures=functions)
            converter = _converter(folder, list(functions))
            quantize.configure(converter, mode, representative)
            model = flatbuffer.read(_run(converter, mode, representative))
        flatbuffer.share_buffers(model)
        flatbuffer.set_metadata(model, NOTE, _note(converter, model))
        if mode.name == "dynamic_int8":
            tied_table.share_tied_tables(model)
        content = flatbuffer.write(model)
        if mode.name.startswith("int4"):
            content = int4.to_int4(content, mode.name == "int4_block32", representative)
    return Converted(content, {name: used_weight_elements(f) for name, f in functions.items()})


def _trace(signature: Signature):
    import tensorflow as tf

    specs = [tf.TensorSpec(shape, dtype, name=name) for name, (shape, dtype) in signature.inputs.items()]

    def call(*tensors):
        outputs = signature.function(dict(zip(signature.inputs, tensors, strict=True)))
        return {name: tf.identity(tensor, name=name) for name, tensor in outputs.items()}

    return tf.function(call, input_signature=specs, autograph=False).get_concrete_function()


def _converter(folder: str, signatures: list[str]):
    """What `tf.lite.TFLiteConverter.from_saved_model` gives, for a folder that `tf.saved_model.save` has just written.

    TensorFlow's own loads the folder twice, to list its signatures and for lines of source that no message shows; the
    native converter reads it itself. It looks for double constants, unpacking the file twice and packing it, and packs
    it again for its note: `convert` does both with what else it changes.
    """
    from tensorflow.lite.python import lite
    from tensorflow.python.saved_model import loader_impl

    class Converter(lite.TFLiteSavedModelConverterV2):
        def convert(self):
            (graph,) = loader_impl.parse_saved_model(self.saved_model_dir).meta_graphs
            return self._convert_from_saved_model(graph.graph_def)

        def _optimize_tflite_model(self, model, quant_mode, *arguments, **options):
            if not quant_mode.is_integer_quantization():  # there is nothing but double constants
                return model
            return super()._optimize_tflite_model(model, quant_mode, *arguments, **options)

    lite.TFLiteConverterBase._set_original_model_type(lite.conversion_metadata_fb.ModelType.TF_SAVED_MODEL)
    return Converter(folder, {"serve"}, signatures)


def _note(converter, model) -> bytes:
    """What TensorFlow's converter notes in a file of how it was made."""
    from tensorflow.lite.python import util

    note = converter._metadata
    note.options.modelOptimizationModes.extend(util.get_sparsity_modes(model))
    note.environment.modelHash = util.get_model_hash(model)
    builder = flatbuffers.Builder(0)
    builder.Finish(note.Pack(builder))
    return bytes(builder.Output())


def _run(converter, mode: quantize.Mode, representative) -> bytes:
    try:
        if mode.calibration != "min_max" or mode.float_layers:
            return calibration.convert(converter, mode, representative)
        return converter.convert()
    except Exception as error:  # the converter raises its own type, RuntimeError and ValueError alike
        raise ExportError(explain(str(error), mode)) from error


def explain(message: str, mode: quantize.Mode) -> str:
    """What a converter's message means to the person who asked for the file."""
    foreign = re.findall(r"(?:TF Select|Flex|Custom) ops: ([^\n]+)", message)
    if foreign:
        names = ", ".join(sorted({name.strip() for line in foreign for name in line.split(",")}))
        return (
            f"The graph has operators that LiteRT does not have itself: {names}. No file was written. "
            "Write them with builtin operators (tf.argmax for keras.ops.argmax, keras.ops.gelu for erf)."
        )
    lines = [line for line in message.splitlines() if "error:" in line] or message.splitlines()
    reason = "\n".join(lines[:5]) or "the converter gave no reason"
    return f"The conversion to {mode.name} failed; no file was written. The converter says: {reason[:2000]}"


def used_weight_elements(function) -> int:
    """Elements of the variables that the outputs of a concrete function depend on, as the converter stores them.

    What hangs on no input it computes itself, and stores the result where that is smaller: a slice of a table or known
    rows of it (positions beyond the sequence length), distances times their kernel. Not counted is a variable that
    holds the same number everywhere (a bias still zero): the converter folds it away.
    """
    graph = function.graph
    variables = {id(variable.handle): variable for variable in graph.variables}
    values = {p.op.name: variables[id(handle)].numpy() for handle, p in graph.captures if id(handle) in variables}
    values = {name: array for name, array in values.items() if np.ptp(array) > 0}
    stored = dict.fromkeys([frozenset([name]) for name in values], 0)
    for tensor, sources in _constants(function, values):
        most = sum(values[name].size for name in sources)
        count = tensor.shape.num_elements() if tensor.dtype.name != "resource" else None
        stored[sources] = min(stored.get(sources, 0) + (most if count is None else count), most)
    return sum(stored.values())


def _constants(function, values: dict) -> list[tuple]:
    """(tensor, the names of the variables it is made of) for all that hangs on variables alone and is read by others.

    Those are the outputs, and the operations that hang on inputs, as far as an output needs them.
    """
    graph, needed = function.graph, _needed(function)
    captured = {placeholder.op.name for _, placeholder in graph.captures}
    made_of = {}  # the variables that an operation hangs on, None where it hangs on an input or on chance
    for operation in graph.get_operations():  # each after those it reads
        if operation.inputs:
            parts = [made_of[tensor.op.name] for tensor in operation.inputs]
            made_of[operation.name] = None if None in parts else frozenset().union(*parts)
        elif operation.type == "Const" or operation.name in captured:
            made_of[operation.name] = frozenset({operation.name} & values.keys())
        else:
            made_of[operation.name] = None
    readers = [name for name in needed if made_of[name] is None]
    read = [tensor for name in readers for tensor in graph.get_operation_by_name(name).inputs]
    tensors = {tensor.name: tensor for tensor in (*read, *graph.outputs)}
    return [(tensor, made_of[tensor.op.name]) for tensor in tensors.values() if made_of[tensor.op.name]]


def _needed(function) -> set[str]:
    """The names of the operations that the outputs of a concrete function depend on."""
    waiting, seen = [tensor.op for tensor in function.graph.outputs], set()
    while waiting:
        operation = waiting.pop()
        if operation.name not in seen:
            seen.add(operation.name)
            waiting.extend(tensor.op for tensor in operation.inputs)
    return seen
