"""inspect: what it says against what LiteRT itself says."""

import json

import litert_files
import pytest
from ai_edge_litert.interpreter import Interpreter

from tfxformer import export


def test_inspection(classifier):
    path, report = litert_files.exported("dynamic_int8", 16, 48)
    found = export.inspect(path)
    assert found.bytes == report.bytes == path.stat().st_size
    assert found.zipped_bytes == report.zipped_bytes < found.bytes
    assert set(found.signatures) == set(Interpreter(model_path=str(path)).get_signature_list())
    assert found.metadata["task"] == "text-classification"
    assert found.metadata["labels"] == classifier.labels
    assert found.metadata["signatures"] == {"classify_16": 16, "classify_48": 48}
    assert "tokenizer.json" in found.files
    assert not found.mediapipe
    assert found.bytes_by_type["int8"] > found.bytes_by_type["float32"]
    # A block of q, k, v, output, expand, output; pooler and classifier; two signatures.
    assert found.operators["FULLY_CONNECTED"] == 2 * (6 + 2)
    assert all(1 <= count <= 3 for count in found.partitions.values())
    assert json.loads(json.dumps(found.to_dict()))["partitions"] == found.partitions
    for text in ("classify_16", "token_ids int32 [1, 16]", "dynamic_int8", "GELU 2"):
        assert text in str(found)


def test_delegate_partitions_are_the_interpreters(plain_model, tmp_path):
    path = tmp_path / "plain.tflite"
    export.export_litert(plain_model, path, "float32")
    interpreter = Interpreter(model_path=str(path))
    interpreter.allocate_tensors()
    wanted = sum(entry["op_name"] == "DELEGATE" for entry in interpreter._get_ops_details())
    assert export.inspect(path).partitions == {"serving_default": wanted}


def test_other_files_are_refused(tmp_path):
    (tmp_path / "text").write_text("hello, world")
    with pytest.raises(ValueError, match=r"no \.tflite file"):
        export.inspect(tmp_path / "text")
