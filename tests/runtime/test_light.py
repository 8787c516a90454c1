"""LiteRT files run and are read with what the base install brings: no TensorFlow, no Keras."""

import json
import os
import subprocess
import sys

import light
import litert_files
import numpy as np
import packages
from export_cases import keras_probabilities
from language_cases import greedy

from tfxformer.generation import Beams

HEAVY = {
    *("tensorflow", "keras", "tf_keras", "jax", "torch", "tensorflow_model_optimization"),
    *("sklearn", "scipy", "matplotlib", "seqeval", "pandas", "transformers"),
}


def test_the_base_install_runs_and_reads_files():
    refused = (packages.modules_installed() | HEAVY) - packages.modules_brought() - {"tfxformer"}
    assert refused >= HEAVY
    files = [litert_files.classifier("dynamic_int8"), litert_files.decoder(), litert_files.exported_seq2seq()[0]]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "COV_"))}
    command = [sys.executable, light.__file__, *files, *sorted(refused)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert not HEAVY & set(found["modules"])

    text = "good film"
    wanted = keras_probabilities(litert_files.task(), [text], litert_files.LENGTH)
    np.testing.assert_allclose(found["probabilities"], wanted, atol=0.03)  # int8
    assert found["operators"]["FULLY_CONNECTED"] == 8  # of a block, pooler and classifier
    model = litert_files.language_model()
    ids = greedy(model, model.tokenizer.ids([text])[0], 8)
    assert model.tokenizer.eos_id not in ids
    assert found["text"] == model.tokenizer.decode([ids])[0]
    assert (
        found["prompt"]
        == model.tokenizer.ids(
            [model.tokenizer.apply_chat_template([{"role": "user", "content": text}])], special_tokens=False
        )[0]
    )

    writer = litert_files.seq2seq_model()
    assert [found["target"]] == writer.generate([text], 8, jit_compile=False)
    assert [found["best_target"]] == writer.generate([text], 8, sampler=Beams(3), jit_compile=False)

    assert "inspect" in found["help"] and "signature decode" in found["inspect"]
    assert found["predict"]["predictions"][0]["label"] == litert_files.task().labels[int(wanted.argmax())]
    assert found["generate"]["continuation"] == found["text"]
    said = keras_probabilities(litert_files.task(), [text for text, _ in light.LABELLED], litert_files.LENGTH)
    right = [
        litert_files.task().labels[row.argmax()] == label for row, (_, label) in zip(said, light.LABELLED, strict=True)
    ]
    assert found["evaluate"]["accuracy"] == np.mean(right)
    assert len(found["refusals"]) == 5
    for said in found["refusals"].values():
        assert 'needs keras, which is not installed: pip install "tfxformer[train]".' in said
