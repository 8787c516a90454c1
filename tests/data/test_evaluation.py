"""Scores against those of scipy and sklearn, and SQuAD's by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import stats
from sklearn import metrics

from tfxformer.data import evaluation

VALUES = arrays.arrays(np.float64, 12, elements=st.integers(-3, 3).map(float))


@settings(deadline=None)
@given(VALUES, VALUES)
def test_correlations_are_those_of_scipy(first, second):
    if len(set(first)) == 1 or len(set(second)) == 1:
        assert evaluation._correlation(first, second) == 0.0
        return
    ranks = evaluation._correlation(evaluation._ranks(first), evaluation._ranks(second))
    assert evaluation._correlation(first, second) == pytest.approx(stats.pearsonr(first, second)[0], abs=1e-9)
    assert ranks == pytest.approx(stats.spearmanr(first, second)[0], abs=1e-9)


@settings(deadline=None)
@given(arrays.arrays(np.float64, (9, 3), elements=st.floats(0, 1)), st.integers(0, 99))
def test_classes_are_scored_as_by_sklearn(probabilities, seed):
    generator = np.random.default_rng(seed)
    targets = generator.integers(0, 3, 9)
    found = evaluation.class_scores(probabilities, targets, "single_label_classification")
    chosen = probabilities.argmax(-1)
    wanted = metrics.f1_score(targets, chosen, labels=np.unique(targets), average="macro", zero_division=0)
    assert found == pytest.approx({"accuracy": metrics.accuracy_score(targets, chosen), "macro_f1": wanted})
    rows = generator.integers(0, 2, (9, 3)).astype("float32")
    found = evaluation.class_scores(probabilities, rows, "multi_label_classification")
    wanted = metrics.f1_score(rows, probabilities > 0.5, average="micro", zero_division=0)
    assert found["micro_f1"] == pytest.approx(wanted)
    assert found["exact_match"] == pytest.approx(metrics.accuracy_score(rows, probabilities > 0.5))


def test_answers_are_scored_as_squad_does():
    found = evaluation.answer_scores(
        ["The Eiffel Tower!", "in Paris, France", "", "x"], ["eiffel tower", "Paris", "", ""]
    )
    assert found["exact_match"] == 0.5
    assert found["f1"] == pytest.approx((1 + 2 * (1 / 3) / (4 / 3) + 1 + 0) / 4)
