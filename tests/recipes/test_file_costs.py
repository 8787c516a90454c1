"""Files side by side: sizes as the system and zlib say, a table, and clear errors."""

import json
import zlib

import keras
import litert_files
import numpy as np
import pytest
import tiny

from tfxformer import export
from tfxformer.recipes.file_costs import FileCost, FileCosts, file_costs


def saved(path, kernel):
    inputs = keras.Input((64,), name="features")
    model = keras.Model(inputs, keras.layers.Dense(64, name="dense")(inputs))
    model.get_layer("dense").kernel.assign(kernel)
    export.export_litert(model, path, "float32")
    return path


def test_sizes_and_times_of_files(tmp_path):
    kernel = np.random.default_rng(0).normal(size=(64, 64))
    files = {
        "dense": saved(tmp_path / "dense.tflite", kernel),
        "pruned": saved(tmp_path / "pruned.tflite", kernel * (np.abs(kernel) > 0.7)),
        "clustered": saved(tmp_path / "clustered.tflite", np.round(kernel)),
    }
    costs = file_costs(files, rounds=3)
    assert [row.name for row in costs.rows] == list(files)
    for row, path in zip(costs.rows, files.values(), strict=True):
        assert row.bytes == path.stat().st_size
        assert row.zipped_bytes == len(zlib.compress(path.read_bytes(), 6))
        assert 0 < row.low_quartile_ms <= row.median_ms <= row.high_quartile_ms
    dense, pruned, clustered = costs.rows
    assert dense.bytes == pruned.bytes == clustered.bytes
    assert clustered.zipped_bytes < pruned.zipped_bytes < dense.zipped_bytes
    assert json.loads(json.dumps(costs.to_dict()))["files"][1]["zipped_bytes"] == pruned.zipped_bytes


@pytest.mark.road
def test_a_task_is_run_on_full_rows_or_on_a_batch_given():
    for given in (None, tiny.batch(1, litert_files.LENGTH)):
        (row,) = file_costs({"task": litert_files.classifier("dynamic_int8")}, given, rounds=2).rows
        assert row.median_ms > 0
    several, _ = litert_files.exported("dynamic_int8", 16, 48)
    with pytest.raises(ValueError, match=r"\.tflite has 2 signatures \(classify_\d+, classify_\d+\)"):
        file_costs({"several": several})


def test_of_a_file_that_writes_a_whole_target_is_timed():
    path, report = litert_files.exported_seq2seq()
    (row,) = file_costs({"writer": path}, rounds=2).rows
    assert row.bytes == report.bytes and row.median_ms > 0


def test_the_table_compares_with_the_first():
    rows = (FileCost("dense", 8_000_000, 6_000_000, 4.0, 3.9, 4.1), FileCost("small", 2_000_000, 1_000_000, 1.0, 1, 1))
    assert str(FileCosts(rows, 1, 50)).splitlines() == [
        "| file | MB | zip MB | ms a call | smaller | zip smaller | faster |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
        "| dense | 8.00 | 6.00 | 4.00 | 1.00x | 1.00x | 1.00x |",
        "| small | 2.00 | 1.00 | 1.00 | 4.00x | 6.00x | 4.00x |",
    ]


def test_what_cannot_be_measured_is_refused(tmp_path):
    with pytest.raises(ValueError, match="at least one file"):
        file_costs({})
    with pytest.raises(ValueError, match="at least 2 rounds; got 1"):
        file_costs({"a": tmp_path / "a.tflite"}, rounds=1)
    with pytest.raises(FileNotFoundError):
        file_costs({"a": tmp_path / "a.tflite"})
