"""applications/finance_news: its splits, baselines and figures, and the whole story on a few texts."""

import json
from dataclasses import replace

import numpy as np
import pytest
import story_modules
import tiny

from tfxformer.samples import ScoredText, Split

TEXTS = [f"{first} {second} {kind}" for kind in ("cat", "film") for first in ("london", "ada", "alan", "paris")
         for second in ("engine", "plot", "mat", "code", "dog")]  # fmt: skip
LABELS = ["acq" if text.endswith("cat") else "earn" for text in TEXTS]
TURNS = [
    f"{name} {said}"
    for name in ("engine", "plot", "mat", "code")
    for said in ("shr profit two cts vs loss cts", "net loss mln vs profit mln")
]
WIRE = Split(TEXTS[::2] + TURNS, LABELS[::2] + ["earn"] * 8, TEXTS[1::2], LABELS[1::2], ["acq", "earn"])
EDITORIALS = [
    ScoredText(article, float(score), f"{word} {text}")
    for article in range(10)
    for word, score in (("good", 2 + article % 2), ("bad", -2), ("red", article - 4))
    for text in TEXTS[article : article + 2]
]


@pytest.fixture(scope="module")
def story():
    pytest.importorskip("sklearn", reason="the story's baselines: pip install scikit-learn")
    with story_modules.imported("finance_news", "news", "page", "run") as modules:
        yield modules


def test_an_article_is_in_one_part(story):
    learned, held_out = story["news"].by_article(EDITORIALS, 0.2)
    assert len({row.article for row in held_out}) == 2 and len(learned) + len(held_out) == len(EDITORIALS)
    assert not {row.article for row in learned} & {row.article for row in held_out}


def test_texts_are_learned_once_and_not_tested_on(story):
    texts, labels = story["news"].first_of_each(["a", "b", "a", "c"], ["x", "y", "z", "x"], without=["c"])
    assert (texts, labels) == (["a", "b"], ["x", "y"])


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("gti corp shr profit six cts vs loss two cts oper net profit vs loss revs", 1),
        ("am international shr loss two cts vs profit seven cts", -1),
        ("net loss mln vs profit mln revs mln vs mln", -1),
        ("shr profit cts vs profit cts net profit vs profit", 0),
        ("shr cts vs cts net vs", 0),
        ("company sees loss this year", 0),
    ],
)
def test_earnings_reports_say_what_they_turned_to(story, text, wanted):
    assert story["news"].turn(text) == wanted


def test_windows_hold_everything_in_order(story):
    parts = story["news"].windows(np.arange(47), 20)
    assert [len(part) for part in parts] == [24, 23]
    np.testing.assert_array_equal(np.concatenate(parts), np.arange(47))
    assert len(story["news"].windows(np.arange(3), 20)) == 1


def test_bootstraps_are_those_of_scipy(story):
    stats = pytest.importorskip("scipy.stats")
    generator = np.random.default_rng(1)
    first = generator.normal(size=200)
    second = first + generator.normal(size=200)
    found = story["news"].bootstrapped(story["news"].correlation, first, second)
    assert found["mean"] == pytest.approx(stats.pearsonr(first, second)[0])
    wanted = stats.bootstrap(
        (first, second), lambda *pair: stats.pearsonr(*pair)[0], paired=True, vectorized=False, n_resamples=2000,
        method="percentile",
    ).confidence_interval  # fmt: skip
    np.testing.assert_allclose(found["interval"], wanted, atol=0.02)


@pytest.mark.road
@pytest.mark.filterwarnings("ignore:Only one class is present")  # in some bootstraps of eight reports
def test_the_whole_story(story, tmp_path, monkeypatch):
    pytest.importorskip("vaderSentiment", reason="the story's baseline: pip install vaderSentiment")
    words = sorted({word for row in EDITORIALS for word in row.text.split()} | {w for t in TURNS for w in t.split()})
    (tmp_path / "model").mkdir()
    checkpoint = tiny.checkpoint(tmp_path / "model", words)
    run = story["run"]
    monkeypatch.setattr(run.samples, "minilm", lambda: checkpoint)
    monkeypatch.setattr(run.samples, "reuters_r8", lambda: WIRE)
    monkeypatch.setattr(run.samples, "nyt_editorials", lambda: EDITORIALS)
    settings = replace(run.Settings(), topic_tokens=16, sentiment_tokens=16, window=5)
    results = json.loads(json.dumps(run.run(tmp_path, settings, verbose=0)))
    assert results["data"]["articles"] == {"learned": 28, "tested": 20}
    assert results["sentiment"]["reports"] == 8
    found = results["over_time"]
    assert np.sum([found["shares"]["found"][label] for label in WIRE.labels], axis=0) == pytest.approx(np.ones(4))
    assert found["shares"]["reuters"]["acq"] == [1.0, 1.0, 0.0, 0.0]
    assert sum(one["articles"] for one in found["of_topics"].values()) == 20
    page = story["page"].section(results)
    assert "VADER" in page and "ridge" in page
    monkeypatch.setattr(story["page"], "DRAWN", ("acq", "earn"))
    assert len(story["page"].drawn(found).axes) == 2
