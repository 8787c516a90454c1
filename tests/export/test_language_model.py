"""export_litert of causal language models: prefill and decode signatures against Keras without a cache."""

import litert_files
import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter
from hypothesis import given
from hypothesis import strategies as st
from language_cases import KINDS, causal_lm, confirmed

from tfxformer import export
from tfxformer.export import language_model as decoder
from tfxformer.runtime.format import flatbuffer
from tfxformer.runtime.generation import decoding

# Positions that other files of a kind beside them have in part; Keras' own are tested in tests/models.
ROADS = dict.fromkeys(("gpt2", "alibi", "normed outputs, scaled halves, longrope"), pytest.mark.road)
T, LENGTHS = litert_files.CACHE, litert_files.PREFILL_LENGTHS


@pytest.fixture(scope="module")
def model():
    return litert_files.language_model()


@pytest.fixture(scope="module")
def written():
    return litert_files.exported_decoder()


def file_greedy(path, prompt, count, lengths=LENGTHS):
    """The same by a file, through the plain interpreter and none of our reading code."""
    interpreter = Interpreter(model_path=str(path))
    runners = {name: interpreter.get_signature_runner(name) for name in interpreter.get_signature_list()}
    details = runners["decode"].get_input_details()
    cache = {name: np.zeros(d["shape"], d["dtype"]) for name, d in details.items() if name.startswith("kv_cache_")}
    position, waiting, out = 0, list(prompt[:-1]), []
    while waiting:
        size = next((s for s in lengths if s >= len(waiting)), lengths[-1])
        if size > len(waiting) and any("state" in name for name in cache):  # it would have read the padding
            tokens, positions = np.array([waiting[:1]], "int32"), np.array([position], "int32")
            cache = runners["decode"](tokens=tokens, input_pos=positions, **cache)
            del cache["logits"]
            position, waiting = position + 1, waiting[1:]
            continue
        tokens = np.zeros((1, size), "int32")
        tokens[0, : len(waiting[:size])] = waiting[:size]
        positions = np.arange(position, position + size, dtype="int32")
        cache = runners[f"prefill_{size}"](tokens=tokens, input_pos=positions, **cache)
        position, waiting = position + len(waiting[:size]), waiting[size:]
    token = prompt[-1]
    for _ in range(count):
        outputs = runners["decode"](
            tokens=np.array([[token]], "int32"), input_pos=np.array([position], "int32"), **cache
        )
        token, position = int(outputs.pop("logits")[0, 0].argmax()), position + 1
        out.append(token)
        cache = outputs
    return out


def test_greedy_tokens_equal_keras(model, written):
    path, report = written
    assert report.signatures == ("prefill_4", "prefill_16", "decode")
    assert report.error < 1e-5
    assert report.greedy_agreement == 1.0
    generator, distinct = np.random.default_rng(5), set()
    for length in (1, 2, 5, 17, 30):  # with padded chunks, and with several
        prompt = generator.integers(0, 400, length).tolist()
        found = file_greedy(path, prompt, 12)
        assert found == confirmed(model, prompt, found)
        distinct.update(found)
    assert len(distinct) > 8


@pytest.mark.parametrize(
    "kind",  # "untied" stands in quantization/test_tied_table.py
    [pytest.param(kind, marks=ROADS.get(kind, ())) for kind in KINDS if kind != "untied"],
)
def test_kinds_of_decoders(tmp_path, monkeypatch, kind):
    """Learned, partial and no rotary positions, ALiBi, windows, parallel halves: logits and tokens.

    By the plain interpreter, and by the calls that our generator chooses, on both sides of each border.
    """
    monkeypatch.setattr(decoder, "DECODE_SLOTS", (12, 20, 40) if kind == "llama" else (12,))
    model = causal_lm(kind)
    path = tmp_path / "model.tflite"
    report = export.export_litert(model, path, "float32", cache_length=T, prefill_lengths=(16,))
    less = ("decode_12", "decode_20") if kind == "llama" else ("decode_12",)
    assert report.signatures == ("prefill_16", *less, "decode")
    assert report.error < 1e-5
    assert report.greedy_agreement == 1.0
    prompt = np.random.default_rng(2).integers(0, 400, 21).tolist()
    found = file_greedy(path, prompt, 8, lengths=(16,))
    assert found == confirmed(model, prompt, found)
    prompt, generator = np.random.default_rng(3).integers(0, 400, 9).tolist(), export.LiteRTGenerator(path)
    found = generator.generate_ids(prompt, 30 if kind == "llama" else 8)
    assert found == confirmed(model, prompt, found)
    with pytest.raises(ValueError, match="carries no tokenizer"):
        generator.generate("text")


def test_layers_that_see_a_window_keep_no_more(tmp_path):
    """Nine tokens of a window and 3 more of a prefill; all slots where they are asked for, with the same tokens."""
    kept, model = {}, causal_lm("partial, parallel and windows")
    prompt = np.random.default_rng(4).integers(0, 400, 13).tolist()
    for full in (None, True):
        path = tmp_path / f"{full}.tflite"
        export.export_litert(model, path, "float32", cache_length=T, prefill_lengths=(4,), full_cache=full)
        tensors = export.inspect(path).signatures["decode"].inputs
        kept[full] = [tensor.shape[2] for tensor in tensors if tensor.name.startswith("kv_cache_k")]
        generator = export.LiteRTGenerator(path)
        assert generator.cache_length == T
        found = generator.generate_ids(prompt, T - 13)  # the ring is written three times over
        assert found == confirmed(model, prompt, found)
        with pytest.raises(ValueError, match="cache 48 slots"):
            generator.generate_ids(range(T + 1), 1)
    assert kept == {None: [9 + 4 - 1, T], True: [T, T]}


def test_the_least_that_suffices_is_read():
    called = []
    steps = decoding.DecodingSession(lambda name, *_: called.append(name), (4,), 48, (12, 20))
    steps.prefill(range(11))
    for _ in range(10):
        steps.decode(1)
    assert called == ["prefill_4"] * 3 + ["decode_12"] + ["decode_20"] * 8 + ["decode"]


@pytest.mark.parametrize("mode", ["int8", "int16x8"])
def test_modes_that_quantize_the_cache_are_refused(model, tmp_path, mode):
    with pytest.raises(ValueError, match="not for decoders"):
        export.export_litert(model, tmp_path / "m.tflite", mode, representative=["good film"])
    assert not list(tmp_path.iterdir())


def test_signatures_are_those_of_litertlm(written):
    info = export.inspect(written[0])
    assert list(info.signatures) == ["decode", "prefill_16", "prefill_4"]
    for name, length in (("prefill_4", 4), ("prefill_16", 16), ("decode", 1)):
        inputs = {tensor.name: (tensor.shape, tensor.dtype) for tensor in info.signatures[name].inputs}
        outputs = {tensor.name: (tensor.shape, tensor.dtype) for tensor in info.signatures[name].outputs}
        cache = {f"kv_cache_k_{layer}": ((1, 2, T, 8), "float32") for layer in range(2)}
        cache |= {f"kv_cache_v_{layer}": ((1, 2, 8, T), "float32") for layer in range(2)}
        assert inputs == {"tokens": ((1, length), "int32"), "input_pos": ((length,), "int32"), **cache}
        assert outputs == {**cache, **({"logits": ((1, 1, 400), "float32")} if name == "decode" else {})}


def test_the_graph_repeats_nothing(written):
    model = flatbuffer.read(written[0].read_bytes())
    found = {name: flatbuffer.operators(model, info.subgraph) for name, info in flatbuffer.signatures(model).items()}
    decode, prefill = found["decode"], found["prefill_16"]
    assert decode["COS"] == decode["SIN"] == decode["GATHER"] == 1, "angles are computed once"
    assert decode["GREATER_EQUAL"] + decode["LESS_EQUAL"] == 1, "the mask is made once"
    assert decode["TILE"] == prefill["TILE"] == 0, "grouped heads are not repeated"
    assert decode["TRANSPOSE"] == 0
    assert decode["FULLY_CONNECTED"] == 2 * 7 + 1
    # Nothing reads what the last block of a prefill makes of its tokens, only their keys and values.
    assert prefill["FULLY_CONNECTED"] == 7 + 2
    assert decode["BATCH_MATMUL"] == 4 and prefill["BATCH_MATMUL"] == 2


def test_signatures_share_their_weights(written):
    assert written[1].bytes < 1.6 * written[1].weight_bytes  # three times, were they stored for each


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"cache_length": 65}, "64 positions"),
        ({"cache_length": 32, "prefill_lengths": (16, 64)}, "no prefill can be longer"),
        ({"cache_length": 32, "prefill_lengths": ()}, "give one at least"),
        ({"cache_length": 32, "prefill_lengths": (1, 8)}, "2 tokens or more"),
        ({"cache_length": 0}, "positive integers"),
        ({"cache_length": 32, "prefill_lengths": (2.5,)}, "positive integers"),
        ({"cache_length": 8, "prefill_lengths": (4,)}, "cache_length above 8"),
        ({"sequence_length": 32}, "cache_length and prefill_lengths"),
        ({"full_cache": "no"}, "full_cache is True, False or None"),
    ],
)
def test_lengths_that_do_not_fit_are_refused(model, tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        export.export_litert(model, tmp_path / "m.tflite", "float32", **arguments)
    assert not list(tmp_path.iterdir())


def test_a_cache_is_not_for_encoders(classifier, tmp_path):
    with pytest.raises(ValueError, match="exported with sequence_length"):
        export.export_litert(classifier, tmp_path / "m.tflite", "float32", cache_length=32)


def test_defaults_fit_a_small_model(model):
    assert decoder.check_lengths(model, None, None) == (64, (16,))


def test_wrong_tokens_leave_no_file(tmp_path, monkeypatch):
    """A file that is not what Keras computes is refused: here Keras is made another model."""
    model = causal_lm(decoder__num_layers=1)
    keras_logits = decoder._keras_logits
    monkeypatch.setattr(decoder, "_keras_logits", lambda model, ids: keras_logits(model, ids)[:, ::-1])
    with pytest.raises(export.ExportError, match="relative L2 error"):
        export.export_litert(model, tmp_path / "m.tflite", "float32", cache_length=32, prefill_lengths=(8,))
    assert not list(tmp_path.iterdir())


@given(
    count=st.integers(0, 300),
    position=st.integers(0, 300),
    lengths=st.lists(st.sampled_from((2, 3, 8, 16, 32, 128)), min_size=1, max_size=3, unique=True),
    cache_length=st.integers(1, 400),
)
def test_chunks_write_every_token_and_never_past_the_end(count, position, lengths, cache_length):
    if position + count > cache_length:
        with pytest.raises(ValueError, match="do not fit"):
            list(decoding.chunks(count, position, lengths, cache_length))
        return
    found = list(decoding.chunks(count, position, lengths, cache_length))
    assert sum(chunk.count for chunk in found) == count
    for chunk in found:
        assert 1 <= chunk.count <= chunk.length and chunk.length in (1, *lengths)
        assert position + chunk.length <= cache_length, "LiteRT would move the write back over valid slots"
        position += chunk.count


def test_chunks_are_few():
    def lengths(count, position=0):
        return [chunk.length for chunk in decoding.chunks(count, position, (16, 128), 1040)]

    assert lengths(128) == [128]
    assert lengths(100) == [128]
    assert lengths(20) == [16, 16]
    assert lengths(3) == [16]
    assert lengths(300) == [128, 128, 16, 16, 16]
    assert lengths(3, 1030) == [1, 1, 1]
