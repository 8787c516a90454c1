"""export_litert of encoder-decoders: what reads a source and what writes a target, against Keras without a cache."""

import litert_files
import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter

from tfxformer import export
from tfxformer.runtime.format import flatbuffer

SHORT, LONG = litert_files.SOURCE_LENGTHS
START, VOCABULARY = 0, 310


def runners_of(path):
    interpreter = Interpreter(model_path=str(path))
    return {name: interpreter.get_signature_runner(name) for name in interpreter.get_signature_list()}


def source_of(row, length):
    ids, mask = np.zeros((1, length), "int32"), np.zeros((1, length), "int32")
    ids[0, : len(row)], mask[0, : len(row)] = row, 1
    return {"encoder_token_ids": ids, "encoder_padding_mask": mask}


def file_written(path, row, length, ids, count):
    """(`ids` and the likeliest `count` tokens behind them, logits behind each) through the plain interpreter alone."""
    runners = runners_of(path)
    source = runners[f"encode_{length}"](**source_of(row, length))
    details = runners["decode"].get_input_details()
    cache = {name: np.zeros(d["shape"], d["dtype"]) for name, d in details.items() if name.startswith("kv_cache_")}
    ids, logits = list(ids), []
    for position in range(len(ids) + count):
        tokens, place = np.array([[ids[position]]], "int32"), np.array([position], "int32")
        outputs = runners["decode"](tokens=tokens, input_pos=place, **cache, **source)
        logits.append(outputs.pop("logits")[0, 0])
        if position + 1 == len(ids):
            ids.append(int(logits[-1].argmax()))
        cache = outputs
    return ids, np.stack(logits)


def keras_logits(model, row, ids):
    target = np.array([ids], "int32")
    inputs = {**source_of(row, len(row)), "decoder_token_ids": target, "decoder_padding_mask": np.ones_like(target)}
    return np.asarray(model(inputs))[0]


def rows(*lengths):
    generator = np.random.default_rng(3)
    return [generator.integers(3, VOCABULARY, length).tolist() for length in lengths]


@pytest.mark.parametrize("preset", ["marian", "t5"])
def test_what_the_file_writes_is_what_keras_writes(preset):
    """Sines and scaled embeddings; learned distances, no bias, RMS norms. Sources of both signatures, some padded."""
    model = litert_files.seq2seq_model(preset)
    path, report = litert_files.exported_seq2seq(preset=preset)
    assert report.signatures == (f"encode_{SHORT}", f"encode_{LONG}", "decode")
    assert report.error < 1e-5
    assert report.greedy_agreement == 1.0
    distinct = set()
    for row, target in zip(rows(2, 7, SHORT, SHORT + 1, LONG), rows(14, 15, 16, 17, 18), strict=True):
        for length in (length for length in (SHORT, LONG) if len(row) <= length):
            ids = [model.decoder_start_token_id, *target]
            ids, logits = file_written(path, row, length, ids, litert_files.TARGET - len(ids))
            wanted = keras_logits(model, row, ids[:-1])
            np.testing.assert_allclose(logits, wanted, atol=2e-5 * np.abs(wanted).max())
            assert wanted.argmax(-1).tolist() == logits.argmax(-1).tolist()
            distinct.update(wanted.argmax(-1).tolist())
    assert len(distinct) > 8


def test_weights_are_stored_once_for_all_signatures():
    """The table of both stacks, which is the head's too, scaled by another number than the rows that are looked up."""
    path, _ = litert_files.exported_seq2seq("dynamic_int8", "t5")
    types = flatbuffer.bytes_by_type(flatbuffer.read(path.read_bytes()))
    weights = sum(int(np.prod(weight.shape)) for weight in litert_files.seq2seq_model("t5").weights)
    assert types["int8"] < 1.02 * weights


def test_outliers_in_what_cross_attention_reads_cost_nothing(tmp_path):
    """One scale for all channels of the encoder's output would leave the small ones nothing: the fault of the field.

    One channel is 100 times as large, and what reads it as much smaller: the same function, so the same error.
    """
    model = litert_files.seq2seq_model("t5")
    parts = model.backbone._parts
    norm, scale = parts.encoder.final_norm, np.ones((32, 1), "float32")
    scale[3] = 100.0
    readers = [
        layer for block in parts.decoder.blocks for layer in (block.cross_attention.key, block.cross_attention.value)
    ]
    before = [(weight, np.array(weight)) for weight in (*norm.weights, *(layer.kernel for layer in readers))]
    try:
        for weight, values in before:
            weight.assign(values / scale if values.ndim == 2 else values * scale[:, 0])
        report = export.export_litert(
            model, tmp_path / "m.tflite", "dynamic_int8", sequence_lengths=litert_files.SOURCE_LENGTHS,
            cache_length=litert_files.TARGET, tolerance=0.2,
        )  # fmt: skip
    finally:
        for weight, values in before:
            weight.assign(values)
    assert report.error < 1.05 * litert_files.exported_seq2seq("dynamic_int8", "t5")[1].error


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"quantization": "int8"}, r'quantization="int8" is not for decoders'),
        (
            {"prefill_lengths": (16,)},
            r"is exported with sequence_length and cache_length; prefill_lengths and full_cache would mean",
        ),
        ({"cache_length": 0}, r"cache_length=0 is the most tokens of a target: 1 to 48"),
        ({"cache_length": 49}, r"cache_length=49 is the most tokens of a target: 1 to 48"),
        ({"sequence_length": 49}, r"The model has 48 positions"),
        ({"samples": []}, r"There is no sample to verify the file on"),
    ],
)
def test_what_it_refuses(tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        export.export_litert(litert_files.seq2seq_model(), tmp_path / "m.tflite", **arguments)
    assert not list(tmp_path.iterdir())
