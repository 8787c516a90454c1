"""Shared by all tests: what a mark needs, and tiny texts, tokenizer and checkpoints."""

import importlib.util
import os
import sys
from pathlib import Path

import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# Modules that tests share: `batteries`, `tiny` and others for all folders, `*_cases` for those of one.
for shared in ("", "compression", "export", "generation", "training"):
    sys.path.insert(0, str(Path(__file__).parent / shared))

REFERENCE = ("torch", "transformers", "safetensors", "sentence_transformers")


def pytest_addoption(parser):
    parser.addoption("--slow", action="store_true", help="run the tests marked slow too, as .ci/full does")


def pytest_collection_modifyitems(config, items):
    """Skips, visibly, reference tests where the extra is not installed, and slow ones that nobody asked for.

    Slow ones are asked for by `--slow`, or by a test's name: `pytest tests/test_samples.py::test_name`.
    """
    reasons = {}
    absent = [name for name in REFERENCE if importlib.util.find_spec(name) is None]
    if absent:
        reasons["reference"] = f'{", ".join(absent)} not installed: pip install -e ".[reference]"'
    if not config.getoption("--slow") and not any("::" in argument for argument in config.args):
        reasons["slow"] = "slow: pytest --slow"
    for item in items:
        for mark, reason in reasons.items():
            if item.get_closest_marker(mark):
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(autouse=True)
def float32_policy():
    """No test leaves its dtype policy to the next."""
    import keras

    before = keras.config.dtype_policy()
    yield
    keras.config.set_dtype_policy(before)


@pytest.fixture(scope="session")
def tiny_tokenizer(tmp_path_factory):
    """A lowercasing WordPiece tokenizer of a few words."""
    import tiny

    return tiny.tokenizer(tmp_path_factory.mktemp("vocabulary"))


@pytest.fixture
def plain_kernels(monkeypatch):
    """Training kernels as plain operations, as GPUs run them: their XLA clusters cost seconds of compilation a fit.

    tests/layers/kernels/test_formulas.py shows that both are one; a few tests of each folder run the clusters.
    """
    from tfxformer.layers.kernels import formulas as kernels

    monkeypatch.setattr(kernels, "use_clusters", lambda: False)
