"""The quantization modes as data."""

from __future__ import annotations

from dataclasses import dataclass, replace

from tfxformer.extras import needs
from tfxformer.layers.quantization.graph_form import STATIC_INT8, GraphForm

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
        rounded: bool, whether weights are rounded by what they read of representative texts, where there are some.
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
    rounded: bool = False
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
        Mode("int4", 0.5, 2e-1, rounded=True, equalized=True, instead="dynamic_int8"),
        Mode("int4_block32", 0.5, 2e-1, rounded=True, equalized=True, instead="dynamic_int8"),
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
