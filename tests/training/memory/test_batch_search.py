"""The search for the largest batch, against a compiler whose memory and seconds are known."""

import pytest

from tfxformer.training.memory import batch_search
from tfxformer.training.memory.batch_search import Search
from tfxformer.training.memory.tpu_compiler import Compiled

GIB = 2**30


class FakeCompiler:
    """Needs `fixed + slope * batch` bytes; refuses in some seconds, and takes many times them where it fits."""

    def __init__(self, available, fixed, slope, refuse=12.0, fit=90.0, refused_figure=1.0):
        self.available, self.fixed, self.slope = available, fixed, slope
        self.refuse, self.fit, self.refused_figure = refuse, fit, refused_figure
        self.now, self.batches = 0.0, []

    @property
    def truth(self):
        return int((self.available - self.fixed) // self.slope)

    def __call__(self, batch, patience):
        self.batches.append(batch)
        needed = self.fixed + self.slope * batch
        if needed > self.available:
            self.now += self.refuse
            return Compiled(False, self.refuse, needed_bytes=int(needed * self.refused_figure))
        if patience is not None and patience < self.fit:
            self.now += patience
            return Compiled(True, patience)
        self.now += self.fit
        return Compiled(True, self.fit, peak_bytes=int(needed))


def search(compiler, monkeypatch, first=1024, seconds=100000.0):
    monkeypatch.setattr(batch_search.time, "monotonic", lambda: compiler.now)
    return Search(compiler, first, compiler.available, compiler.fixed, seconds)


@pytest.mark.parametrize("slope", [0.9, 2.0, 7.3, 28.0, 61.0, 150.0])
@pytest.mark.parametrize("figure", [1.0, 1.15, 0.95])  # what a refusal says is not quite what a fitting program takes
@pytest.mark.parametrize("first", [8, 256, 4096])
def test_the_largest_multiple_of_eight(monkeypatch, slope, figure, first):
    compiler = FakeCompiler(16000, 1300, slope, refused_figure=figure)
    found = search(compiler, monkeypatch, first)
    best = found.run()
    assert best.batch_size == compiler.truth - compiler.truth % 8
    assert best.compiled.peak_bytes <= compiler.available
    assert found.refused == best.batch_size + 8
    assert len(compiler.batches) <= 16


def test_below_eight_every_batch_counts(monkeypatch):
    compiler = FakeCompiler(16000, 1300, 2500.0)
    found = search(compiler, monkeypatch, 64)
    assert found.run().batch_size == compiler.truth == 5
    assert found.refused == 6


def test_not_even_one_fits(monkeypatch):
    compiler = FakeCompiler(16000, 17000, 10.0)
    found = search(compiler, monkeypatch, 64)
    assert found.run() is None
    assert compiler.batches[-1] == 1
    assert found.fits is None and found.refused == 1


def test_it_ends_in_time_with_a_batch_that_was_compiled_to_its_end(monkeypatch):
    """With the seconds of BERT-base on two cores: a refusal in 17, a fit in 95."""
    compiler = FakeCompiler(15.75 * GIB, 1.23 * GIB, 0.0276 * GIB, refuse=17.0, fit=95.0, refused_figure=1.03)
    found = search(compiler, monkeypatch, 1024, seconds=250.0)
    best = found.run()
    assert compiler.now <= 250.0
    assert best.compiled.peak_bytes is not None
    assert 0.93 * compiler.truth <= best.batch_size <= compiler.truth


def test_where_time_is_short_the_first_that_fits_is_not_left(monkeypatch):
    compiler = FakeCompiler(16000, 1300, 28.0, refuse=40.0, fit=200.0)
    found = search(compiler, monkeypatch, 1024, seconds=250.0)
    best = found.run()
    assert best.batch_size <= compiler.truth
    assert compiler.now <= 250.0
    assert compiler.batches.count(best.batch_size) == 1


def test_a_batch_taken_to_fit_that_is_refused_in_the_end(monkeypatch):
    """The compiler may be slow to refuse: a batch left early is compiled to its end before it is the answer."""
    compiler = FakeCompiler(16000, 1300, 28.0)

    def slow_near_the_limit(batch, patience):
        if compiler.truth < batch < compiler.truth + 60:
            compiler.batches.append(batch)
            if patience is not None and patience < 80:
                compiler.now += patience
                return Compiled(True, patience)
            compiler.now += 80
            return Compiled(False, 80.0, needed_bytes=int(1300 + 28.0 * batch))
        return compiler(batch, patience)

    monkeypatch.setattr(batch_search.time, "monotonic", lambda: compiler.now)
    found = Search(slow_near_the_limit, 2048, 16000, 1300, 100000.0)
    best = found.run()
    assert best.batch_size <= compiler.truth
    assert best.compiled.peak_bytes is not None


@pytest.mark.parametrize(
    ("available", "fixed", "slope", "least"),
    [(16 * GIB, 2 * GIB, 100 * 2**20, 0.9), (16 * GIB, 0, 2**20, 0.9), (3 * GIB, 2 * GIB, 2**28, 1.0)],
)
def test_figures_lead_to_the_largest_batch(available, fixed, slope, least):
    asked = []

    def needed(batch):
        asked.append(batch)
        return fixed + slope * batch

    found, truth = batch_search.largest_by_figures(needed, available, fixed), (available - fixed) // slope
    assert least * truth - batch_search.FINE < found <= truth
    assert needed(found) <= available
    assert len(asked) <= 6


def test_figures_that_say_that_nothing_fits():
    assert batch_search.largest_by_figures(lambda batch: 5 + batch, 4, 5) == 0
    assert batch_search.largest_by_figures(lambda batch: 5 + 10 * batch, 12, 5) == 0


def test_figures_that_grow_by_leaps():
    """Padding and buffers: memory stands still, then leaps, and the search still ends below the limit."""

    def needed(batch):
        return 100 + 64 * (batch // 32)

    found = batch_search.largest_by_figures(needed, 1000, 100)
    assert needed(found) <= 1000
    assert found >= 0.8 * 32 * 14
