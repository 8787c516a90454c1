import json

import keras
import numpy as np
import pytest
from pruning_cases import kernels, small_transformer

from tfxformer.compression import sparsity_report


def test_zeros_are_counted_by_kernel_and_together():
    model = small_transformer()
    dense = model.get_layer("dense").kernel
    values = np.ones(dense.shape, "float32")
    values[0, :5], values[1, :2] = 0.0, -0.0
    dense.assign(values)
    report = sparsity_report(model)
    (row,) = [row for row in report.rows if row.path == "dense/kernel"]
    assert (row.shape, row.parameters, row.zeros, row.sparsity) == ((8, 16), 128, 7, 7 / 128)
    assert len(report.rows) == 6 and "head/kernel" not in [row.path for row in report.rows]
    assert (report.kernels.parameters, report.kernels.zeros) == (4 * 64 + 2 * 128, 7)
    every_weight = model.get_weights()
    assert report.weights.parameters == sum(weight.size for weight in every_weight)
    assert report.weights.zeros == sum(int(np.sum(weight == 0)) for weight in every_weight)
    assert json.loads(json.dumps(report.to_dict()))["kernels"]["sparsity"] == 7 / 512
    assert "dense/kernel" in str(report) and "5.47%" in str(report)


def test_layers_choose_the_rows():
    report = sparsity_report(small_transformer(), lambda layer: layer.name == "head")
    assert [row.path for row in report.rows] == ["head/kernel"]


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_weights(dtype):
    model = small_transformer(dtype)
    zeros = sum(int(np.sum(kernel == 0)) for kernel in kernels(model).values())
    assert sparsity_report(model).kernels.zeros == zeros


def test_an_unbuilt_model_is_an_error():
    with pytest.raises(ValueError, match="no weights yet"):
        sparsity_report(keras.Sequential([keras.layers.Dense(3)]))
