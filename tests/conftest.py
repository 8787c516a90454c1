"""Shared by all tests: what a mark needs, and tiny texts, tokenizer and checkpoints."""

import collections
import contextlib
import functools
import gc
import importlib.util
import os
import random
import re
import sys
from pathlib import Path

import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# Modules that tests share: `batteries`, `tiny` and others for all folders, `*_cases` for those of one.
for shared in ("", "backends", "clients", "compression", "export", "generation", "training"):
    sys.path.insert(0, str(Path(__file__).parent / shared))

# Modules that make something costly once in a process: the files that import one of them share a process, wherever
# tests run that use it.
MADE_ONCE = re.compile(r"^ *import (replicas|litert_files)$", re.MULTILINE)
# How long a test usually takes that has such a mark: the files that take longest are begun first. Others take less.
SECONDS = {"road": 20.0, "slow": 20.0, "client": 20.0, "samples": 5.0, "extra": 5.0}
REFERENCE = ("torch", "transformers", "safetensors", "sentence_transformers")


def pytest_addoption(parser):
    parser.addoption("--roads", action="store_true", help="run the tests marked road too, as .ci/run does")
    parser.addoption("--slow", action="store_true", help="run those marked slow and road too, as .ci/full does")
    parser.addoption("--shuffle", metavar="SEED", help="run files, and the tests of each, in a random order")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config):
    """How many processes `-n auto` means: for up to three files none of their own, whose start would cost more.

    For more one beyond the cores: a fifth of the time a test waits for a process that it has started.
    """
    files = {argument.partition("::")[0] for argument in config.args}
    few = len(files) <= 3 and all(name.endswith(".py") for name in files)
    return 0 if few else (os.cpu_count() or 1) + 1


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """A file's tests in one process, and files together that share a child of two replicas, or exported files.

    Each process would start such a child, and write such files, once more: 10 s and 30 s of processor time.
    """
    if config.getoption("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling

    class Together(LoadFileScheduling):
        def _split_scope(self, nodeid):
            if "::test_page[" in nodeid:  # the pages of the documentation share nothing, and take minutes together
                return nodeid
            return in_one_process(config.rootpath / super()._split_scope(nodeid), runs_roads(config))

    config.option.loadscopereorder = False  # by the number of tests; `pytest_collection_modifyitems` knows more
    return Together(config, log)


def runs_roads(config):
    return config.getoption("--roads") or config.getoption("--slow")


@functools.cache
def in_one_process(path, roads):
    """What all files have in common that run in the same process: what they share, or their own name."""
    shared = MADE_ONCE.search(path.read_text(encoding="utf-8"))
    uses = shared and (roads or shared[1] != "replicas")  # whose tests are roads
    return shared[1] if uses else str(path)


def longest_first(items, roads):
    """Sorts files, and those that run together, by how long they will usually take: none is left over at the end."""
    totals = collections.Counter()
    for item in items:
        seconds = [SECONDS[mark.name] for mark in item.iter_markers() if mark.name in SECONDS]
        skipped = item.get_closest_marker("skip") is not None
        totals[in_one_process(item.path, roads)] += 0.0 if skipped else max(seconds, default=0.5)
    items.sort(key=lambda item: -totals[in_one_process(item.path, roads)])


@pytest.hookimpl(trylast=True)  # after -m and -k have taken theirs away
def pytest_collection_modifyitems(config, items):
    """Skips, visibly, reference tests where the extra is not installed, and long ones that nobody asked for.

    They are asked for by `--slow` and `--roads`, or by a test's name: `pytest tests/test_samples.py::test_name`.
    """
    reasons = {}
    absent = [name for name in REFERENCE if importlib.util.find_spec(name) is None]
    if absent:
        reasons["reference"] = f'{", ".join(absent)} not installed: pip install -e ".[reference]"'
    if not config.getoption("--slow") and not any("::" in argument for argument in config.args):
        reasons["slow"] = "slow: pytest --slow"
        if not config.getoption("--roads"):
            reasons["road"] = "a whole road: pytest --roads"
    for item in items:
        for mark, reason in reasons.items():
            if item.get_closest_marker(mark):
                item.add_marker(pytest.mark.skip(reason=reason))
    if seed := config.getoption("--shuffle"):
        random.Random(seed).shuffle(items)
        files = {}  # each file's tests stay together, so that what they share is made once
        items.sort(key=lambda item: files.setdefault(item.path, len(files)))
    elif hasattr(config, "workerinput"):
        longest_first(items, runs_roads(config))


def pytest_collection_finish(session):
    """What importing Keras and TensorFlow has made is off the collector's list for the first file too."""
    _freeze()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_protocol(item, nextitem):
    """Between two files, what the first left is collected, and what lives on is taken off the collector's list.

    Keras and TensorFlow hold millions of objects for good: without this, Python walks all of them again at every full
    collection, which took a sixth of the suite's time.
    """
    yield
    if nextitem is None or nextitem.path != item.path:
        _freeze()


def pytest_terminal_summary(terminalreporter):
    """With `--durations`, the files that took longest too: many short tests cost more than a few long ones."""
    if terminalreporter.config.getoption("durations") is None:
        return
    totals, counts = collections.Counter(), collections.Counter()
    for reports in terminalreporter.stats.values():  # of all processes
        for report in reports:
            if hasattr(report, "duration"):  # warnings have none
                file = report.nodeid.partition("::")[0]
                totals[file] += report.duration
                counts[file] += report.when == "call"
    terminalreporter.write_sep("=", f"what costs minutes: {sum(totals.values()):.0f} s in {len(totals)} files")
    for file, seconds in totals.most_common(25):
        terminalreporter.write_line(f"{seconds:8.1f} s  {counts[file]:4} tests  {file}")


def _freeze():
    gc.collect()
    gc.freeze()


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


@pytest.fixture(scope="module")
def clusters_of_any_size():
    """Training kernels as XLA clusters, however few elements they have."""
    from tfxformer.layers.kernels import clusters

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clusters, "FEW_ELEMENTS", 0)
        yield


@pytest.fixture
def plain_kernels(monkeypatch):
    """Training kernels as plain operations, as GPUs run them: their XLA clusters cost seconds of compilation a fit.

    tests/layers/kernels/test_formulas.py shows that both are one; a few tests of each folder run the clusters.
    """
    from tfxformer.layers.kernels import clusters

    monkeypatch.setattr(clusters, "use_clusters", lambda: False)


@contextlib.contextmanager
def _functions_eager(wanted):
    """Nothing on another backend than TensorFlow, whose functions these are."""
    import keras

    if keras.backend.backend() != "tensorflow":
        yield
        return
    import tensorflow as tf

    before = tf.config.functions_run_eagerly()
    tf.config.run_functions_eagerly(wanted)
    yield
    tf.config.run_functions_eagerly(before)


@pytest.fixture
def eager():
    """Every step runs op by op: where numbers are tested and not tracing, which costs a second for each `fit`.

    Each folder has tests without it, and `traced` takes it back for a test of a file whose others have it.
    """
    with _functions_eager(True):
        yield


@pytest.fixture
def traced(eager):
    """Steps are graphs, as a user's are, in a file whose tests are eager."""
    with _functions_eager(False):
        yield
