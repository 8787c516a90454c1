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


def pytest_collection_modifyitems(items):
    """Skips reference tests, visibly, where the extra is not installed."""
    absent = [name for name in REFERENCE if importlib.util.find_spec(name) is None]
    if absent:
        reason = f'{", ".join(absent)} not installed: pip install -e ".[reference]"'
        for item in items:
            if item.get_closest_marker("reference"):
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
