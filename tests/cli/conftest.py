"""A tiny checkpoint for all commands, and how their steps run."""

import batteries
import pytest
import tiny as tiny_models

WORDS = ["good", "bad", "film", "a", "the", "was", "it", "dull", "fine", "we", "saw", "is"]


@pytest.fixture(scope="module", autouse=True)
def steps():
    """Run op by op: what is tested is what a command says and writes; tests/tasks traces the same steps."""
    with batteries.steps(eager=True):
        yield


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """A BERT checkpoint folder of one layer with a vocabulary of a few words."""
    return tiny_models.checkpoint(tmp_path_factory.mktemp("tiny"), WORDS, num_layers=1, dropout=0.0)
