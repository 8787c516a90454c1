"""The .litertlm bundles in LiteRT-LM: prompts in, Keras' greedy text out.

LiteRT-LM lives in an environment of its own. Name its python in TFXFORMER_LITERTLM_PYTHON:
    python -m venv litertlm && litertlm/bin/pip install litert-lm-api==0.18.1
    TFXFORMER_LITERTLM_PYTHON=litertlm/bin/python pytest tests/clients
"""

import json
import os
import subprocess
from pathlib import Path

import pytest
from language_cases import causal_lm, chat_tokenizer, greedy_rows

from tfxformer import export
from tfxformer.export import language_model as decoder

PYTHON = os.environ.get("TFXFORMER_LITERTLM_PYTHON")
SCRIPT = Path(__file__).with_name("litertlm_text.py")
TOKENS = 10
# One token, a few, some that fill chunks of 8 and 32 exactly or in part, and one near the end of the cache.
PROMPTS = ["a", "good film", "prices rose by 3.5% in july, the office", "she asked where nobody answered " * 4]

pytestmark = [
    pytest.mark.client,
    pytest.mark.extra,
    pytest.mark.skipif(not PYTHON, reason="TFXFORMER_LITERTLM_PYTHON names no python with litert-lm-api"),
]


def litertlm(bundle, folder, prompts, messages=()):
    job = {"prompts": prompts, "messages": list(messages), "tokens": TOKENS}
    (folder / "job.json").write_text(json.dumps(job), encoding="utf-8")
    done = subprocess.run([PYTHON, SCRIPT, bundle, folder / "job.json"], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def keras_texts(model, prompts):
    """Keras' greedy continuation of each prompt as text, up to the end token."""
    end = model.tokenizer.eos_id
    rows = greedy_rows(model, prompts, TOKENS)
    return model.tokenizer.decode([row[: row.index(end)] if end in row else row for row in rows])


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_text_equals_greedy_keras(tmp_path, monkeypatch, kind):
    pytest.importorskip("litert_lm_builder", reason="needs the extra [litertlm]")
    monkeypatch.setattr(decoder, "DECODE_SLOTS", (40,))  # a signature of ours, which LiteRT-LM passes over
    model = causal_lm(kind, tokenizer=chat_tokenizer(), decoder__max_positions=128)
    report = export.export_litert(model, tmp_path / "m.tflite", "float32", cache_length=128, prefill_lengths=(8, 32))
    assert report.signatures == ("prefill_8", "prefill_32", "decode_40", "decode")
    export.bundle_litertlm(tmp_path / "m.tflite", model.tokenizer, tmp_path / "m.litertlm")
    found = litertlm(tmp_path / "m.litertlm", tmp_path, PROMPTS, PROMPTS[1:3])
    ids = model.tokenizer.ids(PROMPTS)
    assert found["ids"] == ids
    texts = [model.tokenizer.apply_chat_template([{"role": "user", "content": text}]) for text in PROMPTS[1:3]]
    chats = model.tokenizer.ids(texts, special_tokens=False)
    assert [*found["texts"], *found["answers"]] == keras_texts(model, [*ids, *chats])


def test_quantized_bundle_gives_the_text_of_our_own_runner(tmp_path):
    pytest.importorskip("litert_lm_builder", reason="needs the extra [litertlm]")
    model = causal_lm(tokenizer=chat_tokenizer(), decoder__max_positions=128)
    export.export_litert(model, tmp_path / "m.tflite", "dynamic_int8", cache_length=128, prefill_lengths=(8, 32))
    export.bundle_litertlm(tmp_path / "m.tflite", model.tokenizer, tmp_path / "m.litertlm")
    generator = export.LiteRTGenerator(tmp_path / "m.tflite", num_threads=1)
    wanted = [generator.generate(prompt, TOKENS) for prompt in PROMPTS]
    assert litertlm(tmp_path / "m.litertlm", tmp_path, PROMPTS)["texts"] == wanted
