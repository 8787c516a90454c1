"""The .tflite files in MediaPipe's own text tasks: raw text in, Keras' scores out.

MediaPipe lives in an environment of its own. Name its python in TFXFORMER_MEDIAPIPE_PYTHON:
    python -m venv mediapipe && mediapipe/bin/pip install mediapipe==1.2.2
    TFXFORMER_MEDIAPIPE_PYTHON=mediapipe/bin/python pytest tests/clients
"""

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
from export_cases import TEXTS, backbone, keras_probabilities, perturb, vocabulary

from tfxformer import export, tasks
from tfxformer.text import Tokenizer

PYTHON = os.environ.get("TFXFORMER_MEDIAPIPE_PYTHON")
SCRIPT = Path(__file__).with_name("mediapipe_text.py")
LENGTH = 32
# A text longer than the file, one of unknown words, brackets and digits: MediaPipe tokenizes on its own.
SAMPLES = [*TEXTS, TEXTS[2] * 3, "xyzzy (plugh) 12,5% -- ok?!", "a"]

pytestmark = [
    pytest.mark.client,
    pytest.mark.skipif(not PYTHON, reason="TFXFORMER_MEDIAPIPE_PYTHON names no python with mediapipe"),
]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    path = tmp_path_factory.mktemp("vocabulary") / "vocab.txt"
    path.write_text("\n".join(vocabulary()), encoding="utf-8")
    return Tokenizer.from_vocabulary(path, lowercase=True)


def mediapipe(job, path, folder):
    (folder / "texts.json").write_text(json.dumps(SAMPLES), encoding="utf-8")
    done = subprocess.run(
        [PYTHON, SCRIPT, job, path, folder / "texts.json"], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


@pytest.mark.parametrize(("mode", "tolerance"), [("float32", 1e-5), ("dynamic_int8", 2e-2)])
def test_classifier(tokenizer, tmp_path, mode, tolerance):
    task = perturb(tasks.TextClassifier(backbone(), ["negative", "neutral", "positive"], tokenizer=tokenizer))
    report = export.export_litert(task, tmp_path / "model.tflite", mode, sequence_length=LENGTH)
    assert report.mediapipe
    found = mediapipe("classify", tmp_path / "model.tflite", tmp_path)
    got = np.array([[scores[label] for label in task.labels] for scores in found])
    assert np.abs(got - keras_probabilities(task, SAMPLES, LENGTH)).max() <= tolerance


def test_embedder(tokenizer, tmp_path):
    task = perturb(tasks.TextEmbedder(backbone(), tokenizer=tokenizer))
    export.export_litert(task, tmp_path / "model.tflite", "float32", sequence_length=LENGTH)
    encoding = tokenizer.encode(SAMPLES, sequence_length=LENGTH)
    wanted = np.asarray(task({tensor.name: getattr(encoding, tensor.name) for tensor in task.inputs}))
    assert np.abs(np.array(mediapipe("embed", tmp_path / "model.tflite", tmp_path)) - wanted).max() <= 1e-5
