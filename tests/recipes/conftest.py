"""Steps of the tests of recipes."""

import batteries
import pytest


@pytest.fixture(scope="module", autouse=True)
def steps():
    """Run op by op: what is tested is what a recipe does in which order; tests/training traces the same steps."""
    with batteries.steps(eager=True):
        yield
