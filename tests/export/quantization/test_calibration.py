"""Calibrations and float layers: ranges by brute force, and what arrives in the file."""

import litert_files
import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter
from export_cases import TEXTS, backbone, perturb

from tfxformer import export, tasks
from tfxformer.export.quantization import calibration
from tfxformer.runtime.format import flatbuffer

GENERATOR = np.random.default_rng(0)
LONG_TAILED = GENERATOR.standard_t(3, size=100_000)


def histogram(values):
    counts, _ = np.histogram(values, calibration.BINS, (values.min(), values.max()))
    return counts, float(values.min()), float(values.max())


def test_percentiles_are_numpys():
    low, high = calibration.percentile_range(*histogram(LONG_TAILED))
    bin_width = np.ptp(LONG_TAILED) / calibration.BINS
    np.testing.assert_allclose((low, high), np.percentile(LONG_TAILED, [0.005, 99.995]), atol=2 * bin_width)
    assert calibration.percentile_range(*histogram(np.abs(LONG_TAILED) + 1.0))[0] == 0.0


def test_least_squares_are_those_of_rounding_for_real():
    def error(fraction):
        low, high = fraction * LONG_TAILED.min(), fraction * LONG_TAILED.max()
        step = (high - low) / calibration.LEVELS
        return np.square(np.clip(np.round(LONG_TAILED / step) * step, low, high) - LONG_TAILED).mean()

    low, high = calibration.least_squares_range(*histogram(LONG_TAILED))
    assert low / LONG_TAILED.min() == pytest.approx(high / LONG_TAILED.max())
    found, best = error(high / LONG_TAILED.max()), min(map(error, calibration.FRACTIONS))
    assert found <= 1.01 * best and found < 0.9 * error(1.0)


@pytest.fixture(scope="module")
def whole():
    """The int8 file whose ranges are the converter's own."""
    return litert_files.exported("int8", 48)[0]


def scales(path):
    """The scale of each activation by its tensor's name."""
    details = Interpreter(model_path=str(path)).get_tensor_details()
    kept = [d for d in details if d["dtype"] == np.int8 and len(d["quantization_parameters"]["scales"]) == 1]
    return {d["name"]: float(d["quantization_parameters"]["scales"][0]) for d in kept}


def test_no_range_is_wider_and_some_are_narrower(whole):
    whole, found = scales(whole), scales(litert_files.exported("int8", 48, calibration="mse")[0])
    assert found.keys() == whole.keys()
    ratios = np.array([found[name] / whole[name] for name in whole])
    assert (ratios <= 1.001).all() and (ratios < 0.95).sum() > 5


def test_our_halves_are_the_converters_whole(whole, monkeypatch):
    """Where nothing is chosen, calibrating and quantizing by ourselves gives the converter's own scales and answers."""
    monkeypatch.setattr("tfxformer.export.convert._run", calibration.convert)
    path, _ = litert_files.exported("int8", 48, calibration="min_max")
    assert scales(path) == scales(whole)
    answers = [export.LiteRTModel(one).predict(TEXTS) for one in (path, whole)]
    np.testing.assert_array_equal(*answers)


def float_kernels(path):
    """Shapes [out, in] of the float32 kernels of products."""
    model = flatbuffer.read(path.read_bytes())
    tensors = [
        graph.tensors[int(operator.inputs[1])]
        for graph in model.subgraphs
        for operator in graph.operators
        if flatbuffer.operator_name(model, operator) == "FULLY_CONNECTED"
    ]
    infos = [flatbuffer.tensor_info(tensor) for tensor in tensors]
    return [info.shape for info in infos if info.dtype == "float32"]


def test_named_layers_stay_float(classifier, whole, tmp_path):
    names = ["encoder_block_0/feed_forward/expand", "encoder_block_0/feed_forward_norm"]
    path = tmp_path / "model.tflite"
    report = export.export_litert(
        classifier, path, "int8", sequence_length=48, representative=TEXTS, float_layers=names
    )
    assert list(report.float_layers) == names
    assert float_kernels(path) == [(128, 64)] and not float_kernels(whole)
    assert report.to_dict()["float_layers"] == names


@pytest.mark.road
def test_the_most_sensitive_block_is_found_and_left_float(tokenizer, tmp_path):
    """An inner unit that no output reads takes all the precision of its block."""
    task = perturb(tasks.TextClassifier(backbone(), ["a", "b", "c"], tokenizer=tokenizer))
    for weight in task.weights:
        values = np.array(weight)
        if weight.path.endswith("encoder_block_1/feed_forward/expand/kernel"):
            values[:, 5] *= 400
        elif weight.path.endswith("encoder_block_1/feed_forward/output/kernel"):
            values[5] = 0
        weight.assign(values)
    path, arguments = tmp_path / "m.tflite", {"sequence_length": 48, "representative": TEXTS, "tolerance": 0.9}
    reports = [export.export_litert(task, path, "int8", float_layers=count, **arguments) for count in (0, 1)]
    assert reports[1].float_layers == ("encoder_block_1",)
    assert len(float_kernels(path)) == 6
    assert reports[1].error < 0.6 * reports[0].error


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"calibration": "entropy", "representative": TEXTS}, "Unknown calibration 'entropy'; known: min_max"),
        ({"float_layers": -1, "representative": TEXTS}, "must be a number of layers"),
        ({"float_layers": ["encoder_block_7"], "representative": TEXTS}, "the model has no layer 'encoder_block_7'"),
        ({"representative": []}, "representative data is empty"),
        ({}, "pass representative=texts"),
        ({"quantization": "dynamic_int8", "calibration": "mse"}, "calibration= is a choice of quantization"),
        ({"quantization": "float16", "float_layers": 2}, "float_layers= is a choice of quantization"),
        ({"quantization": "dynamic_int8", "representative": TEXTS}, "calibrate nothing"),
    ],
)
def test_what_does_not_fit_together(classifier, tmp_path, arguments, message):
    with pytest.raises((ValueError, export.ExportError), match=message):
        export.export_litert(
            classifier, tmp_path / "m.tflite", **{"quantization": "int8", "sequence_length": 32, **arguments}
        )
    assert not list(tmp_path.iterdir())


def test_several_lengths_are_calibrated_each(classifier, tmp_path):
    report = export.export_litert(
        classifier,
        tmp_path / "m.tflite",
        "int8",
        sequence_lengths=(16, 48),
        representative=TEXTS,
        calibration="percentile",
        float_layers=1,
    )
    assert report.signatures == ("classify_16", "classify_48") and report.error <= report.tolerance
