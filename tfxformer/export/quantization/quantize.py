"""The quantization modes as data, and the one that a converter of its own makes."""

from __future__ import annotations

import contextlib
import io
import re
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

from tfxformer.export.errors import ExportError
from tfxformer.extras import needs
from tfxformer.layers.quantization.graph_form import STATIC_INT8, GraphForm
from tfxformer.runtime.format import flatbuffer

# -1e9 would be -inf in the float16 arithmetic of phone GPUs; exp(-1e4) is zero in float32 just as well.
FLOAT_NUMERICS = GraphForm(mask_value=-1e4, layer_norm="product", embedding="gather")
# One scale covers scores and mask in int16 too.
INT16_NUMERICS = GraphForm(mask_value=-30.0, layer_norm="product", embedding="gather")


@dataclass(frozen=True)
class Mode:
    """How the numbers of a file are stored and computed.

    Attributes:
        name: str.
        weight_bytes: float, the least number of bytes that an element of a weight takes in the file.
        tolerance: float, the largest relative L2 error of the outputs against Keras.
        graph_form: GraphForm, how the graph is written.
        calibrated: bool, whether activations are quantized from representative texts.
        equalized: bool, whether a task's products are written around their outliers (`layers.equalization`).
        splits_outliers: bool, whether outlier channels of an encoder are computed apart (`layers.outlier_channels`).
        calibration: str, how ranges are chosen (`export.calibration`).
        float_layers: tuple of str, paths of layers that compute in float32 in a calibrated file.
        instead: str, modes to try when the tolerance is missed.
    """

    name: str
    weight_bytes: float
    tolerance: float
    graph_form: GraphForm = FLOAT_NUMERICS
    calibrated: bool = False
    equalized: bool = False
    splits_outliers: bool = False
    calibration: str = "min_max"
    float_layers: tuple[str, ...] = ()
    instead: str = ""


MODES = {
    mode.name: mode
    for mode in (
        Mode("float32", 4, 1e-4),
        Mode("float16", 2, 5e-3, instead="float32"),
        Mode("dynamic_int8", 1, 5e-2, equalized=True, instead="float16"),
        Mode("int8", 1, 1.5e-1, STATIC_INT8, calibrated=True, splits_outliers=True, instead="dynamic_int8 or int16x8"),
        Mode("int16x8", 1, 2e-2, INT16_NUMERICS, calibrated=True, equalized=True, instead="float16"),
        Mode("int4", 0.5, 2e-1, equalized=True, instead="dynamic_int8"),
        Mode("int4_block32", 0.5, 2e-1, equalized=True, instead="dynamic_int8"),
    )
}


def mode(name: str, tolerance: float | None = None) -> Mode:
    """The mode of that name, with another tolerance where one is given.

    Raises:
        ValueError: if there is none, or for a tolerance that is no positive number.
    """
    if name not in MODES:
        raise ValueError(f"Unknown quantization {name!r}; known: {', '.join(MODES)}.")
    if tolerance is None:
        return MODES[name]
    if not 0 < tolerance < 1:
        raise ValueError(f"tolerance={tolerance!r} must be a relative error between 0 and 1.")
    return replace(MODES[name], tolerance=tolerance)


def configure(converter, mode: Mode, representative) -> None:
    """Sets a TFLiteConverter to a mode; `representative` yields (signature name, batch)."""
    import tensorflow as tf

    builtins = [tf.lite.OpsSet.TFLITE_BUILTINS]
    if mode.name == "int16x8":
        builtins.insert(0, tf.lite.OpsSet.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8)
    converter.target_spec.supported_ops = builtins
    if mode.name != "float32" and not mode.name.startswith("int4"):  # int4 starts from the float file
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if mode.name == "float16":
        converter.target_spec.supported_types = [tf.float16]
    if mode.calibrated:
        converter.representative_dataset = representative


def check_available(mode: Mode) -> None:
    """Says early what an optional mode needs.

    Raises:
        ImportError: if ai-edge-quantizer is not installed and the mode is one of its own.
    """
    if mode.name.startswith("int4"):
        needs("int4 quantization", "ai_edge_quantizer")


def to_int4(content: bytes, blockwise: bool = False) -> bytes:
    """Quantizes a float .tflite file: matrices int4, tables (and a product tied to one) int8, activations dynamic.

    Args:
        content: the file.
        blockwise: bool, a scale for every 32 weights of a row in place of one for the row.
    """
    from ai_edge_quantizer import quantizer, recipe

    model = flatbuffer.read(content)
    flatbuffer.gather_to_embedding_lookup(model)
    names = recipe.TFLOperationName
    matrices = recipe.dynamic_wi4b32_afp32 if blockwise else recipe.dynamic_wi4c_afp32
    recipes = matrices(operation_name=names.FULLY_CONNECTED)
    recipes += recipe.dynamic_wi8c_afp32(operation_name=names.EMBEDDING_LOOKUP)
    tied = _tied_products(model)
    if tied:  # as the lookup reads it: the table is stored once
        recipes += recipe.dynamic_wi8c_afp32(operation_name=names.FULLY_CONNECTED, regex="|".join(map(re.escape, tied)))
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
        # The quantizer writes weights behind the flatbuffer; reading brings them inside.
        return flatbuffer.write(flatbuffer.read(target.read_bytes()))


def _tied_products(model) -> list[str]:
    """Names of the outputs of products whose weights rows are looked up in, too."""
    lookups, products = set(), []
    for graph in model.subgraphs:
        for operator in graph.operators or ():
            name = flatbuffer.operator_name(model, operator)
            if name == "EMBEDDING_LOOKUP":
                lookups.add(graph.tensors[int(operator.inputs[1])].buffer)
            elif name == "FULLY_CONNECTED":
                output = flatbuffer.text(graph.tensors[int(operator.outputs[0])].name)
                products.append((graph.tensors[int(operator.inputs[1])].buffer, output))
    return sorted({output for buffer, output in products if buffer in lookups})
