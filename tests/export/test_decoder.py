"""export_litert of causal language models: prefill and decode signatures against Keras without a cache."""

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter
from language_cases import causal_lm, greedy

from tfxformer import export

T, LENGTHS = 48, (4, 16)


@pytest.fixture(scope="module")
def model():
    return causal_lm()


@pytest.fixture(scope="module")
def written(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("decoder") / "model.tflite"
    return path, export.export_litert(model, path, "float32", cache_length=T, prefill_lengths=LENGTHS)


def file_greedy(path, prompt, count, lengths=LENGTHS):
    """The same by a file, through the plain interpreter and none of our reading code."""
    interpreter = Interpreter(model_path=str(path))
    runners = {name: interpreter.get_signature_runner(name) for name in interpreter.get_signature_list()}
    details = runners["decode"].get_input_details()
    cache = {name: np.zeros(d["shape"], d["dtype"]) for name, d in details.items() if name.startswith("kv_cache_")}
    position, waiting, out = 0, list(prompt[:-1]), []
    while waiting:
        size = next((s for s in lengths if s >= len(waiting)), lengths[-1])
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
        wanted = greedy(model, prompt, 12)
        assert file_greedy(path, prompt, 12) == wanted
        distinct.update(wanted)
    assert len(distinct) > 8
