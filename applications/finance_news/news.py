"""The texts of the story, what counting makes of them, and what earnings reports say of themselves."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import RidgeCV
from sklearn.pipeline import make_pipeline
from sklearn.svm import LinearSVC

from tfxformer.samples import ScoredText, Split

# "oper shr loss two cts vs profit seven cts": in the wire's own words, for the better or for the worse.
_TURN = re.compile(r"\b(profit|loss)\b(?:(?!\b(?:profit|loss)\b).){0,40}?\bvs\b\W+(?:\w+\W+){0,2}?(profit|loss)\b")


def by_article(rows: Sequence[ScoredText], share: float) -> tuple[list[ScoredText], list[ScoredText]]:
    """Sentences to learn and held-out ones, those of an article all in one part, by seed 0."""
    articles = sorted({row.article for row in rows})
    random.Random(0).shuffle(articles)
    held_out = set(articles[: round(share * len(articles))])
    return [row for row in rows if row.article not in held_out], [row for row in rows if row.article in held_out]


def first_of_each(texts: Sequence[str], labels: Sequence[str], without: Sequence[str]) -> tuple[list[str], list[str]]:
    """Texts and labels once each, without those that are to be tested on."""
    tested, unique = set(without), {}
    for text, label in zip(texts, labels, strict=True):
        if text not in tested:
            unique.setdefault(text, label)
    return list(unique), list(unique.values())


def svm_topics(wire: Split) -> list[str]:
    """The topics of the test articles by TF-IDF and a linear SVM, which learned of all training articles."""
    model = make_pipeline(TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2), min_df=2), LinearSVC())
    return list(model.fit(wire.train_texts, wire.train_labels).predict(wire.test_texts))


def ridge(learned: Sequence[ScoredText]):
    """A regression of the score on counted words; its penalty is chosen by leaving out one sentence at a time."""
    counts = TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2), min_df=2)
    model = make_pipeline(counts, RidgeCV(np.logspace(-1, 1.5, 6)))
    return model.fit([row.text for row in learned], [row.score for row in learned])


def vader(texts: Sequence[str]) -> np.ndarray:
    """VADER's compound score, -1 to 1: a lexicon and rules (Hutto and Gilbert, 2014)."""
    from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

    analyzer = SentimentIntensityAnalyzer()
    return np.array([analyzer.polarity_scores(text)["compound"] for text in texts])


def turn(text: str) -> int:
    """What an earnings report says of itself first: 1 for "profit vs loss", -1 for "loss vs profit", 0 for neither."""
    found = _TURN.search(text)
    if found is None or found[1] == found[2]:
        return 0
    return 1 if found[1] == "profit" else -1


def windows(values: np.ndarray, size: int) -> list[np.ndarray]:
    """Values in the order of the wire, so many at a time; what is left over goes to the last window."""
    return np.array_split(values, max(1, len(values) // size))


def correlation(found: np.ndarray, wanted: np.ndarray) -> float:
    """Pearson's."""
    return float(np.corrcoef(found, wanted)[0, 1])


def bootstrapped(statistic, *columns: np.ndarray, rounds: int = 1000) -> dict:
    """A figure of columns of one length with its 95 % interval, by bootstraps of their rows, seed 0."""
    generator, size = np.random.default_rng(0), len(columns[0])
    drawn = [statistic(*(column[rows] for column in columns)) for rows in generator.integers(0, size, (rounds, size))]
    return {"mean": float(statistic(*columns)), "interval": np.percentile(drawn, [2.5, 97.5]).tolist()}
