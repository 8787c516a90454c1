"""Who asks what: the held-out questions, and how counted words find their answers."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence

import numpy as np
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer

from tfxformer.samples import FaqEntry


def split(rows: Sequence[FaqEntry], share: float) -> tuple[list[int], list[int]]:
    """Places of the questions to learn and of the held-out ones: so large a share of each category, by seed 0."""
    order = list(range(len(rows)))
    random.Random(0).shuffle(order)
    sizes, taken, parts = Counter(row.category for row in rows), Counter(), ([], [])
    for place in order:
        category = rows[place].category
        held_out = taken[category] < round(share * sizes[category])
        taken[category] += held_out
        parts[held_out].append(place)
    return parts


def asked_once(rows: Sequence[FaqEntry]) -> list[FaqEntry]:
    """The rows without those whose question was there before, whose right answer would be another one."""
    first = {}
    for row in rows:
        first.setdefault(row.question.casefold(), row)
    return list(first.values())


def tf_idf(questions: Sequence[str], answers: Sequence[str]) -> np.ndarray:
    """Cosines by counted words, rare ones weighing more: [questions, answers]."""
    counts = TfidfVectorizer(sublinear_tf=True, stop_words="english").fit(answers)
    return (counts.transform(questions) @ counts.transform(answers).T).toarray()


def bm25(questions: Sequence[str], answers: Sequence[str], k1: float = 1.5, b: float = 0.75) -> np.ndarray:
    """BM25 (Robertson and Zaragoza, 2009) with Lucene's idf, which is never negative: [questions, answers]."""
    counting = CountVectorizer(stop_words="english")
    counts = counting.fit_transform(answers).toarray().astype("float64")
    lengths = counts.sum(1, keepdims=True)
    found_in = (counts > 0).sum(0)
    idf = np.log(1 + (len(answers) - found_in + 0.5) / (found_in + 0.5))
    weights = idf * counts * (k1 + 1) / (counts + k1 * (1 - b + b * lengths / lengths.mean()))
    return counting.transform(questions).toarray() @ weights.T


def ranks(scores: np.ndarray, own: Sequence[int]) -> np.ndarray:
    """How many answers stand before the own one: int [questions]. Of equal scores the own one comes last."""
    of_own = scores[np.arange(len(own)), own]
    return (scores >= of_own[:, None]).sum(1) - 1
