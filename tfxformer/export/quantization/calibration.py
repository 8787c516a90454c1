"""Ranges of the activations of a file that computes in int8, chosen from what representative texts give.

The converter takes each tensor's smallest and largest value. A range that is cut where values are few rounds all others
finer. The converter notes the ranges in a float file first and quantizes that one then: in between they are replaced.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

import numpy as np

from tfxformer.export.quantization.quantize import Mode
from tfxformer.runtime.format import flatbuffer

METHODS = ("min_max", "percentile", "mse")
PERCENTILE = 99.99  # of the values of a tensor that its range holds
BINS = 2048
LEVELS = 255  # steps of an int8 range
FRACTIONS = np.linspace(0.05, 1.0, 96)  # of the whole range, tried for the least squared error


def check_method(method: str) -> None:
    """Refuses a calibration that there is not.

    Raises:
        ValueError: naming those there are.
    """
    if method not in METHODS:
        raise ValueError(f"Unknown calibration {method!r}; known: {', '.join(METHODS)}.")


def convert(converter, mode: Mode, representative: Callable[[], Iterable]) -> bytes:
    """The int8 file of a configured TFLiteConverter, with ranges and float layers of our own choice.

    Args:
        converter: TFLiteConverter.
        mode: its calibration and float layers.
        representative: () -> pairs (signature name, batch of one).
    """
    from tensorflow.lite.python.convert import mlir_quantize

    # What tf.lite.experimental.QuantizationDebugger does too; nothing public stands between the two halves.
    converter._experimental_calibrate_only = True
    content = converter.convert()
    if mode.calibration != "min_max":
        content = choose_ranges(content, representative, mode.calibration)
    return mlir_quantize(content, denylisted_nodes=float_nodes(content, mode.float_layers))


def float_nodes(content: bytes, layers: Iterable[str]) -> list[str]:
    """The names of the outputs of the operators of some layers and of all that is in them, of a float file.

    Args:
        content: the file.
        layers: paths of Keras layers.

    Raises:
        ValueError: naming a layer that no operator of the file is from.
    """
    model, layers = flatbuffer.read(content), list(layers)
    # TensorFlow numbers the scopes that are entered again.
    scopes = {layer: "/".join(rf"{re.escape(part)}(_\d+)?" for part in layer.split("/")) for layer in layers}
    found = {layer: [] for layer in layers}
    for graph in model.subgraphs:
        for operator in graph.operators or ():
            name = flatbuffer.text(graph.tensors[int(operator.outputs[0])].name)
            place = _place(name, flatbuffer.operator_name(model, operator))
            for layer in layers:
                if re.match(scopes[layer] + "/", place):
                    found[layer].append(name)
    missing = [layer for layer, names in found.items() if not names]
    if missing:
        raise ValueError(
            f"No operator of the file is from the layer {missing[0]!r}; layers have the paths that Keras gives them "
            "(layer.path), such as 'encoder_block_0/feed_forward/output'."
        )
    return sorted({name for names in found.values() for name in names})


def _place(name: str, operator: str) -> str:
    """Where an operator is from, of the names that the converter joins: a product begins with that of its input."""
    parts = [part for part in name.split(";") if part]
    if operator == "FULLY_CONNECTED":
        parts = [part for part in parts if part.endswith(("BiasAdd", "Tensordot", "MatMul"))] or parts
    return parts[0] if parts else ""


def choose_ranges(content: bytes, representative: Callable[[], Iterable], method: str) -> bytes:
    """The float file with other ranges in it.

    Args:
        content: the file as the converter calibrates it: float, with the range of each tensor.
        representative: () -> pairs (signature name, batch of one).
        method: "percentile" or "mse".
    """
    model = flatbuffer.read(content)
    choose = {"percentile": percentile_range, "mse": least_squares_range}[method]
    for (graph, index), (counts, lowest, highest) in _histograms(model, content, representative).items():
        quantization = model.subgraphs[graph].tensors[index].quantization
        low, high = choose(counts, lowest, highest)
        quantization.min, quantization.max = np.array([low], np.float32), np.array([high], np.float32)
    return flatbuffer.write(model)


def percentile_range(counts: np.ndarray, lowest: float, highest: float, percentile: float = PERCENTILE):
    """The range that leaves out the same share of values at either end, (100 - percentile) % in all.

    Args:
        counts: [bins], how many values lie in each of the equal parts of (lowest, highest).

    Returns:
        (low, high); zero is inside, as int8 needs it.
    """
    share = np.cumsum(counts) / counts.sum()
    left_out, edges = (100.0 - percentile) / 200.0, np.linspace(lowest, highest, len(counts) + 1)
    low = edges[np.searchsorted(share, left_out, side="right")]
    high = edges[np.searchsorted(share, 1.0 - left_out) + 1]
    return min(low, 0.0), max(high, 0.0)


def least_squares_range(counts: np.ndarray, lowest: float, highest: float):
    """The fraction of the whole range whose rounding and cutting have the least squared error; as `percentile_range`.

    The error of rounding is that of values spread evenly within a step, step^2 / 12 (Widrow, 1956).
    """
    edges = np.linspace(lowest, highest, len(counts) + 1)
    values = (edges[:-1] + edges[1:]) / 2
    errors = []
    for fraction in FRACTIONS:
        low, high = fraction * min(lowest, 0.0), fraction * max(highest, 0.0)
        cut = np.maximum(values - high, 0.0) + np.maximum(low - values, 0.0)
        step = (high - low) / LEVELS
        errors.append((counts * np.where(cut > 0, cut**2, step**2 / 12)).sum())
    best = FRACTIONS[int(np.argmin(errors))]
    return best * min(lowest, 0.0), best * max(highest, 0.0)


def _histograms(model, content: bytes, representative) -> dict:
    """{(subgraph, tensor): (counts [BINS], lowest, highest)} of the tensors that have a range."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    # Without a delegate, whose inner tensors nobody sees; and all tensors kept.
    interpreter = Interpreter(
        model_content=content,
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
        experimental_preserve_all_tensors=True,
    )
    infos = flatbuffer.signatures(model)
    runners, found = {name: interpreter.get_signature_runner(name) for name in infos}, {}
    for name, batch in representative():
        graph = infos[name].subgraph
        runners[name](**batch)
        for index, tensor in enumerate(model.subgraphs[graph].tensors):
            limits = _range(tensor)
            if limits is None:
                continue
            counts, lowest, highest = found.setdefault((graph, index), (np.zeros(BINS, np.int64), *limits))
            values = interpreter.get_tensor(index, graph).ravel()
            parts = np.clip((values - lowest) * (BINS / (highest - lowest)), 0, BINS - 1).astype(np.int64)
            counts += np.bincount(parts, minlength=BINS)
    return found


def _range(tensor):
    """The range of a tensor as the converter notes it, or None."""
    quantization = tensor.quantization
    if quantization is None or quantization.min is None or quantization.max is None or not len(quantization.min):
        return None
    lowest, highest = float(quantization.min[0]), float(quantization.max[0])
    return (lowest, highest) if highest > lowest else None
