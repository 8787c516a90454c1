"""Steps of the tests of tasks."""

import pytest


@pytest.fixture(autouse=True)
def steps(eager):
    """Run op by op, but where a test asks for `traced`; `batteries.check_task` traces one step of every task."""
