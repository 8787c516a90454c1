"""The tied table stored once, whatever reads it."""

import numpy as np
import pytest
from export_cases import TEXTS, backbone, perturb
from language_cases import causal_lm

from tfxformer import export, tasks
from tfxformer.runtime.format import flatbuffer

TABLE = (400, 64)
INT4 = [pytest.param(mode, marks=pytest.mark.extra) for mode in ("int4", "int4_block32")]


def tables(path, shape):
    """The constants of a table's shape: {buffer: dtypes}."""
    model = flatbuffer.read(path.read_bytes())
    found = {}
    for tensor in (tensor for graph in model.subgraphs for tensor in graph.tensors):
        info = flatbuffer.tensor_info(tensor)
        if info.shape == shape and model.buffers[tensor.buffer].data is not None:
            found.setdefault(tensor.buffer, set()).add(info.dtype)
    return found


@pytest.mark.parametrize("mode", ["float32", pytest.param("float16", marks=pytest.mark.slow), "dynamic_int8", *INT4])
def test_decoder_stores_its_table_once_in_every_mode(tmp_path, mode):
    if mode.startswith("int4"):
        pytest.importorskip("ai_edge_quantizer", reason="needs the extra [int4]")
    model = causal_lm(decoder__num_layers=1, decoder__hidden_size=64, decoder__attention__heads=8)
    model = perturb(model, kernels=0.03)
    report = export.export_litert(model, tmp_path / "m.tflite", mode, cache_length=32, prefill_lengths=(4,))
    assert report.error <= report.tolerance
    assert report.greedy_agreement > 0.5
    wanted = mode if mode.startswith("float") else "int8"
    assert list(tables(tmp_path / "m.tflite", TABLE).values()) == [{wanted}]


def test_masked_lm_stores_its_table_once(tokenizer, tmp_path):
    task = perturb(tasks.MaskedLM(backbone(encoder__num_layers=1), tokenizer=tokenizer), kernels=0.03)
    path = tmp_path / "m.tflite"
    report = export.export_litert(task, path, "dynamic_int8", sequence_length=32)
    assert list(tables(path, TABLE).values()) == [{"int8"}]
    assert report.error <= report.tolerance
    assert export.inspect(path).operators["EMBEDDING_LOOKUP"] == 1
    assert len(export.LiteRTModel(path).predict([TEXTS[0] + " [MASK]"])[0]) == 1


def test_tables_of_their_own_stay_apart(tmp_path):
    """A head that is not tied has other numbers in the same shape."""
    model = perturb(causal_lm("untied", decoder__num_layers=1), kernels=0.03)
    path = tmp_path / "m.tflite"
    report = export.export_litert(model, path, "dynamic_int8", cache_length=32, prefill_lengths=(4,))
    assert report.error <= report.tolerance and report.greedy_agreement > 0.5
    assert len(tables(path, (400, 48))) == 2
    assert "EMBEDDING_LOOKUP" not in export.inspect(path).operators


def test_rows_of_very_different_size_keep_their_scales(tmp_path):
    """The lookup reads scales by row: a row a thousand times smaller than the largest is still there."""
    model = perturb(causal_lm(decoder__num_layers=1), kernels=0.03)
    table = model.backbone.token_embedding.embeddings
    values = table.numpy()
    values[7] = 1e-3 * values[8]  # whatever the columns are scaled by, they stay alike
    table.assign(values)
    path = tmp_path / "m.tflite"
    export.export_litert(model, path, "dynamic_int8", cache_length=32, prefill_lengths=(4,))
    model = flatbuffer.read(path.read_bytes())
    tensor = next(t for t in model.subgraphs[0].tensors if flatbuffer.tensor_info(t).shape == (400, 48))
    rows = model.buffers[tensor.buffer].data.view(np.int8).reshape(400, 48) * tensor.quantization.scale[:, None]
    np.testing.assert_allclose(rows[7], 1e-3 * rows[8], rtol=0, atol=np.abs(rows[7]).max() / 127)
    assert np.count_nonzero(rows[7]) > 40
