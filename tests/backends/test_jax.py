"""JAX without TensorFlow: the same trainings, tokens and answers, on one device and on eight, and back for a phone.

The child runs in an environment with Keras and JAX of Colab's versions and no TensorFlow (requirements-jax.txt), which
TFXFORMER_JAX_PYTHON names; this process computes the same on TensorFlow.
"""

import json
import os
import subprocess
from pathlib import Path

import cases
import mesh_cases
import numpy as np
import pytest
import tiny
import watched_cases

from tfxformer import compression, export, samples, tasks, text

PYTHON = os.environ.get("TFXFORMER_JAX_PYTHON")
pytestmark = [
    pytest.mark.client,
    pytest.mark.road,  # minutes of processor time, most of them XLA's
    pytest.mark.skipif(not PYTHON, reason="TFXFORMER_JAX_PYTHON names no Python with JAX: see requirements-jax.txt"),
]
ROOT = Path(__file__).parent.parent.parent
# A mesh with both axes and every switch; then the other kinds. `equality_of_backends.py` has all cells.
CELL = cases.cell("llama", 0.1, 4, cases.MODEL)
OTHERS = [cases.cell("bert", 0.1, 1, cases.DATA), cases.cell("t5", 0.0, 4, cases.ONE)]
ATOL = 5e-6  # of logits and vectors


def on_jax(folder, cells, *parts):
    """The folder, with what `cases.py` writes on JAX."""
    (folder / "cells.json").write_text(json.dumps(cells), encoding="utf-8")
    cases.run_on_jax(PYTHON, folder, folder / "cells.json", *parts)
    return folder


@pytest.fixture(scope="module")
def child(tmp_path_factory):
    return on_jax(tmp_path_factory.mktemp("jax"), [CELL], "texts", "tasks")


@pytest.fixture(scope="module")
def rest(tmp_path_factory):
    return on_jax(tmp_path_factory.mktemp("rest"), OTHERS, "others", "measured", "watched", "resumed")


def ends_alike(folder, number, cell):
    """Token weights, rows that count nothing, a batch that the devices cannot share, dropout, clip, accumulation."""
    here = cases.train({**cell, "mesh": cases.ONE})
    with np.load(folder / f"{number}.npz") as there:
        assert sorted(there) == sorted(here)
        for key, value in here.items():
            atol = 2e-6 if key.startswith("weight") else 1e-5  # logits, losses
            np.testing.assert_allclose(there[key], value, rtol=2e-6, atol=atol, err_msg=key)
        assert int(there["updates"]) == 20 // cell["accumulation"]


def test_a_fit_ends_with_the_weights_of_tensorflow(child):
    ends_alike(child, 0, CELL)


@pytest.mark.slow
@pytest.mark.parametrize("number", range(len(OTHERS)), ids=[cases.name(cell) for cell in OTHERS])
def test_other_fits_end_with_the_weights_of_tensorflow(rest, number):
    ends_alike(rest, number, OTHERS[number])


def test_generation_gives_the_same_tokens(child):
    assert json.loads((child / "texts.json").read_text(encoding="utf-8")) == json.loads(json.dumps(cases.generate()))


@pytest.fixture(scope="module")
def answers(child):
    with np.load(child / "logits.npz") as found:
        return dict(found)


def test_fits_on_texts_end_alike(child, answers, tmp_path):
    here = cases.fit_tasks(tmp_path)
    # The first matrix of "lora" is drawn by each backend: it goes to TensorFlow below.
    np.testing.assert_allclose(answers["classifier"], here["classifier"], atol=ATOL)


@pytest.mark.slow
def test_the_other_tasks_are_fitted_and_lose_heads(rest):
    with np.load(rest / "others.npz") as there:
        np.testing.assert_allclose(there["fewer heads"], cases.fewer_heads(), atol=ATOL)
        losses = {name: there[name] for name in there if name != "fewer heads"}
    assert {*losses} == {"masked", "causal", "written", "distilled"}
    assert all(np.isfinite(loss).all() for loss in losses.values()), losses


@pytest.mark.slow
def test_what_a_model_would_miss_is_measured_alike(rest):
    with np.load(rest / "measured.npz") as there:
        for key, value in cases.measure().items():
            np.testing.assert_allclose(there[key], value, rtol=1e-4, atol=1e-6, err_msg=key)


@pytest.mark.slow
def test_what_callbacks_see_inside_the_steps_is_alike(rest):
    """Norms of gradients, tokens and model FLOPs, and the ranks that an AdaLoRA keeps."""
    here = watched_cases.watch()
    with np.load(rest / "watched.npz") as there:
        assert sorted(there) == sorted(here)
        for key, value in here.items():
            np.testing.assert_allclose(there[key], value, rtol=2e-5, atol=2e-6, err_msg=key)
    assert len(set(here["ranks ranks"])) > 1 and here["ranks ranks"].mean() == 2
    assert here["bert norms"].shape[0] == 5


def test_what_jax_saved_opens_on_tensorflow_and_becomes_a_file(child, answers, tmp_path):
    import keras

    opened = tasks.TextClassifier.from_pretrained(child / "classifier")
    np.testing.assert_allclose(opened.predict(tiny.TEXTS[:6], verbose=0), answers["classifier"], atol=1e-6)
    whole = keras.saving.load_model(child / "classifier.keras")
    np.testing.assert_allclose(whole.predict(tiny.TEXTS[:6], verbose=0), answers["classifier"], atol=1e-6)
    path = tmp_path / "classifier.tflite"
    export.export_litert(whole, path, quantization="dynamic_int8", sequence_length=16)
    found = export.LiteRTModel(path).predict(tiny.TEXTS[:6])
    np.testing.assert_allclose(found, answers["classifier"], atol=0.02)


def test_an_adapter_goes_from_jax_to_tensorflow(child, answers):
    tokenizer = tasks.TextClassifier.from_pretrained(child / "classifier").tokenizer
    base = tasks.TextClassifier(tiny.backbone(), ["negative", "positive"], tokenizer=tokenizer)
    tiny.perturb(base)
    compression.Adapters(base).load(child / "lora", "films")
    np.testing.assert_allclose(base.predict(tiny.TEXTS[:6], verbose=0), answers["lora"], atol=1e-6)


@pytest.mark.slow
def test_an_interrupted_training_goes_on_bit_for_bit(rest):
    found = json.loads((rest / "resume.json").read_text(encoding="utf-8"))
    assert found["differences"] == {"arrays": [], "python": [], "epochs": []}
    assert found["losses"]["resumed"] == found["losses"]["whole"]
    assert found["losses"]["whole"][1] < found["losses"]["whole"][0]


STORED = "tests/checkpoints/test_families.py::test_equals_stored_results"


@pytest.mark.parametrize(
    ("chosen", "least"),
    [
        ([f"{STORED}[{name}]" for name in ("deberta-masked-lm", "modernbert-masked-lm", "gpt2-lm", "qwen3-lm")], 4),
        pytest.param(
            ["tests/checkpoints", "-m", "not reference and not extra and not samples"], 200, marks=pytest.mark.slow
        ),
    ],
    ids=["a few", "all"],
)
def test_stored_families_are_exact_on_jax(chosen, least):
    """The folders and answers of transformers in tests/fixtures, read by the tests of checkpoints."""
    command = [PYTHON, "-m", "pytest", "-q", "-n", "0", *chosen]
    done = subprocess.run(command, cwd=ROOT, env=cases.environment(), capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout[-3000:]
    assert " failed" not in done.stdout and int(done.stdout.split(" passed")[0].split()[-1]) >= least


@pytest.mark.slow
@pytest.mark.samples
@pytest.mark.reference
def test_the_real_minilm_equals_torch(tmp_path):
    import torch
    import transformers

    folder = samples.minilm()
    sentences = ["The striker scored twice.", "Rates rose again in July, the bank said, and a film ended well."]
    encoding = text.Tokenizer.from_pretrained(folder).encode(sentences, sequence_length=32)
    inputs = {name: getattr(encoding, name) for name in ("token_ids", "padding_mask", "segment_ids")}
    np.savez(tmp_path / "inputs.npz", **inputs)
    cases.run_script(PYTHON, Path(__file__).with_name("real_model.py"), folder, tmp_path / "inputs.npz")
    reference = transformers.BertModel.from_pretrained(folder, attn_implementation="eager").eval()
    named = zip(("input_ids", "attention_mask", "token_type_ids"), inputs.values(), strict=True)
    with torch.no_grad():
        wanted = reference(**{name: torch.from_numpy(array).long() for name, array in named})
    with np.load(tmp_path / "outputs.npz") as found:
        valid = encoding.padding_mask.astype(bool)
        assert np.abs(found["sequence_output"] - wanted.last_hidden_state.numpy())[valid].max() <= 1e-5
        assert np.abs(found["pooled_output"] - wanted.pooler_output.numpy()).max() <= 1e-5


@pytest.mark.slow
def test_what_a_check_compiles_is_what_fit_compiles(tmp_path):
    """Of shapes alone, on a mesh; tests/training/memory has the same where libtpu is."""
    found = mesh_cases.run_on_jax(PYTHON, tmp_path)
    assert found["checked"][:4] == found["trained"]
