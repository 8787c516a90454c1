"""Scores of written texts, against sacrebleu and rouge-score called directly, and by hand."""

import sys

import pytest
import sacrebleu
from hypothesis import given, settings
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer

from tfxformer.data.text_scores import TEXT_SCORES, text_scores

VOCABULARY = ("the", "a", "cat", "cats", "sat,", "on", "mat.", "running", "Ran", "Zürich")
WORDS = st.lists(st.sampled_from(VOCABULARY), max_size=7).map(" ".join)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(WORDS, WORDS), min_size=1, max_size=5))
def test_scores_are_those_of_the_libraries(pairs):
    written, wanted = map(list, zip(*pairs, strict=True))
    found = text_scores(written, wanted)
    assert tuple(found) == TEXT_SCORES
    assert found["bleu"] == sacrebleu.corpus_bleu(written, [wanted]).score
    assert found["chrf"] == sacrebleu.corpus_chrf(written, [wanted]).score
    scorer = RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=True)
    rows = [scorer.score(target, text) for text, target in pairs]
    for name in ("rouge1", "rouge2", "rougeL"):
        assert found[name] == pytest.approx(sum(row[name].fmeasure for row in rows) / len(rows), abs=1e-12)


def test_scores_by_hand():
    wanted = ["the cat sat on the mat", "a dog ran"]
    assert text_scores(wanted, wanted, ("bleu", "rouge2")) == pytest.approx({"bleu": 100, "rouge2": 1})
    # 3 of 4 words found, 3 of 6 wanted: precision 3/4, recall 1/2; the second text shares nothing.
    found = text_scores(["the cats sat up", "x"], wanted, ["rougeL", "rouge1"])
    assert found == pytest.approx({"rougeL": 0.3, "rouge1": 0.3})
    assert list(found) == ["rougeL", "rouge1"]


def test_what_it_refuses(monkeypatch):
    with pytest.raises(ValueError, match="no score 'meteor' of written texts; there are bleu, chrf, rouge1"):
        text_scores(["a"], ["a"], ["bleu", "meteor"])
    with pytest.raises(ValueError, match="1 written texts but 2 wanted"):
        text_scores(["a"], ["a", "b"])
    with pytest.raises(ValueError, match="0 written texts but 0 wanted"):
        text_scores([], [])
    monkeypatch.setitem(sys.modules, "sacrebleu", None)
    with pytest.raises(ModuleNotFoundError, match=r"The score 'chrf' needs sacrebleu.*tfxformer\[metrics\]"):
        text_scores(["a"], ["a"], "chrf")
    assert text_scores(["a"], ["a"], "rouge1") == {"rouge1": 1.0}
