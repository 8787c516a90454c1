"""Similarities and the nearest documents against plain numpy, one pair after the other."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfxformer.data import retrieval

FORMULAS = {
    "cosine": lambda a, b: a @ b / np.linalg.norm(a) / np.linalg.norm(b),
    "dot": lambda a, b: a @ b,
    "euclidean": lambda a, b: -np.sqrt(((a - b) ** 2).sum()),
    "manhattan": lambda a, b: -np.abs(a - b).sum(),
}


def vectors(rows, seed, width=5):
    return np.random.default_rng(seed).normal(size=(rows, width)).astype("float32")


@pytest.mark.parametrize("kind", retrieval.SIMILARITIES)
def test_similarities_are_their_formulas(kind):
    first, second = vectors(3, 0), vectors(4, 1)
    wanted = [[FORMULAS[kind](a.astype("float64"), b) for b in second] for a in first]
    np.testing.assert_allclose(retrieval.similarities(first, second, kind), wanted, rtol=1e-5, atol=1e-6)
    assert retrieval.similarities(first[:0], second, kind).shape == (0, 4)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(-3, 3), min_size=1, max_size=30), st.integers(1, 40))
def test_the_highest_come_first_and_of_equal_ones_the_earlier(scores, top_k):
    found = retrieval.ranked(np.array(scores, "float32"), top_k)
    wanted = sorted(range(len(scores)), key=lambda index: (-scores[index], index))[:top_k]
    assert [one.index for one in found] == wanted
    assert [one.score for one in found] == [scores[index] for index in wanted]


def test_many_queries_are_compared_part_by_part(monkeypatch):
    queries, documents, texts = vectors(7, 2), vectors(6, 3), list("abcdef")
    whole = retrieval.nearest(queries, documents, 3, "dot", texts)
    monkeypatch.setattr(retrieval, "_CELLS", 12)
    assert retrieval.nearest(queries, documents, 3, "dot", texts) == whole
    assert [one.text for one in whole[0]] == [texts[i] for i in np.argsort(-(documents @ queries[0]))[:3]]


def test_what_is_wrong_is_said():
    with pytest.raises(ValueError, match="Unknown similarity 'cos'; known: cosine, dot"):
        retrieval.similarities(vectors(2, 0), vectors(2, 1), "cos")
    with pytest.raises(ValueError, match=r"shapes \[2, 5\] and \[2, 4\]"):
        retrieval.similarities(vectors(2, 0), vectors(2, 1, 4))
    with pytest.raises(ValueError, match="top_k=0 must be a positive whole number"):
        retrieval.ranked(np.zeros(3), 0)
