"""TensorFlow for tests whose subject is not TensorFlow: without it the tests that touch it are skipped, visibly."""

import importlib
import importlib.util

import pytest


class _Optional:
    """TensorFlow, imported when its first attribute is asked for."""

    def __getattr__(self, name):
        if importlib.util.find_spec("tensorflow") is None:
            pytest.skip("TensorFlow is not installed, and this test compares with it", allow_module_level=True)
        return getattr(importlib.import_module("tensorflow"), name)


tf = _Optional()
