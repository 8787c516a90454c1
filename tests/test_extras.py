"""Packages that are missing: the pip line in the error is the one that brings them."""

import importlib.metadata
import sys

import packages
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tfxformer.extras import EXTRAS, needs


@pytest.mark.parametrize("package", EXTRAS)
def test_the_extra_that_is_named_brings_the_package(package):
    owners = importlib.metadata.packages_distributions().get(package)
    if owners is None:
        pytest.skip(f"{package} is not installed")
    assert {canonicalize_name(owner) for owner in owners} & packages.required(EXTRAS[package])


def test_extras_are_asked_for_by_names_that_there_are():
    extras = packages.arguments()["extras_require"]
    for lines in extras.values():
        for requirement in map(Requirement, lines):
            assert requirement.name != "tfxformer" or requirement.extras <= extras.keys()
    assert "train" in Requirement(extras["test"][-1]).extras


def test_what_is_missing_is_said_with_its_pip_line(monkeypatch):
    needs("Nothing", "keras", "tensorflow")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ModuleNotFoundError) as error:
        needs("A figure", "keras", "matplotlib")
    assert error.value.name == "matplotlib"
    assert str(error.value) == 'A figure needs matplotlib, which is not installed: pip install "tfxformer[train]".'
    with pytest.raises(ModuleNotFoundError, match="A figure needs matplotlib"):
        from tfxformer.figures import figure

        figure(1, (2.0, 2.0))


def test_a_tpu_host_is_told_to_keep_its_tensorflow(monkeypatch):
    versions = {"tensorflow-tpu": "2.20.0"}
    monkeypatch.setattr(importlib.metadata, "version", versions.__getitem__)
    monkeypatch.setitem(sys.modules, "tensorflow_model_optimization", None)
    with pytest.raises(ModuleNotFoundError, match="on a TPU host with --no-deps"):
        needs("Pruning", "tensorflow_model_optimization")
