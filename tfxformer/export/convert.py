"""Traced signatures to the bytes of a .tflite file, in builtin operators only."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from tfxformer.export.errors import ExportError
from tfxformer.export.quantization import calibration, quantize, tied_table
from tfxformer.runtime.quiet import quiet


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
        representative: callable yielding (signature name, dict of arrays) for calibrated modes.

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
            converter = tf.lite.TFLiteConverter.from_saved_model(folder, signature_keys=list(functions))
            quantize.configure(converter, mode, representative)
            content = _run(converter, mode, representative)
        if mode.name.startswith("int4"):
            content = quantize.to_int4(content, blockwise=mode.name == "int4_block32")
        elif mode.name == "dynamic_int8":
            content = tied_table.share(content)
    return Converted(content, {name: used_weight_elements(f) for name, f in functions.items()})


def _trace(signature: Signature):
    import tensorflow as tf

    specs = [tf.TensorSpec(shape, dtype, name=name) for name, (shape, dtype) in signature.inputs.items()]

    def call(*tensors):
        outputs = signature.function(dict(zip(signature.inputs, tensors, strict=True)))
        return {name: tf.identity(tensor, name=name) for name, tensor in outputs.items()}

    return tf.function(call, input_signature=specs, autograph=False).get_concrete_function()


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
    """Elements of the variables that the outputs of a concrete function depend on.

    A variable of which only a slice or known rows are read (positions beyond the sequence length) counts with them; one
    that holds the same number everywhere (a bias still zero) does not count: the converter folds it away.
    """
    graph, waiting, seen = function.graph, [t.op for t in function.graph.outputs], set()
    while waiting:
        operation = waiting.pop()
        if operation.name in seen:
            continue
        seen.add(operation.name)
        waiting.extend(tensor.op for tensor in operation.inputs)
    variables = {id(variable.handle): variable for variable in graph.variables}
    total = 0
    for handle, placeholder in graph.captures:
        if id(handle) in variables and placeholder.op.name in seen:
            values = variables[id(handle)].numpy()
            full = min(values.size, _read_elements(placeholder, seen, values.size))
            total += 0 if np.ptp(values) == 0 else full
    return total


def _read_elements(placeholder, seen: set[str], full: int) -> int:
    total = 0
    for read in placeholder.consumers():
        if read.name not in seen:
            continue
        if _looks_up_known_rows(read, "ResourceGather"):
            total += read.outputs[0].shape.num_elements() or full
            continue
        if read.type != "ReadVariableOp":
            return full
        users = _users(read.outputs[0], seen)
        sliced = [u for u in users if u.type in ("StridedSlice", "Slice") or _looks_up_known_rows(u, "GatherV2")]
        if len(sliced) < len(users) or not users:
            return full
        total += sum(user.outputs[0].shape.num_elements() or full for user in sliced)
    return total


def _users(tensor, seen: set[str]) -> list:
    """The operations that read a tensor, or the same under another name."""
    found = []
    for user in (user for user in tensor.consumers() if user.name in seen):
        if user.type not in ("Identity", "IdentityN"):
            found.append(user)
            continue
        for name, same in zip(user.inputs, user.outputs, strict=True):
            found += _users(same, seen) if name is tensor else []
    return found


def _looks_up_known_rows(operation, kind: str) -> bool:
    """Whether it reads rows whose numbers hang on no input: the converter holds the rows alone."""
    if operation.type != kind:
        return False
    waiting, seen = [operation.inputs[1].op], set()
    while waiting:
        one = waiting.pop()
        if one.name in seen:
            continue
        seen.add(one.name)
        if not one.inputs and one.type != "Const":
            return False
        waiting.extend(tensor.op for tensor in one.inputs)
    return True


def batches(data: Iterable[dict]) -> list[dict]:
    """Splits batches into batches of one, the shape every signature has: [B, ...] -> B times [1, ...]."""
    rows = []
    for batch in data:
        count = len(next(iter(batch.values())))
        rows.extend({name: np.asarray(value)[i : i + 1] for name, value in batch.items()} for i in range(count))
    return rows
