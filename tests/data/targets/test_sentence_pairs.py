"""Pairs of segments: what stands in a row is what the documents say, and the labels are true."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfxformer.data.targets.sentence_pairs import sentence_pairs

CLS, SEP, PAD = 1, 2, 0
OPTIONS = {"cls_id": CLS, "sep_id": SEP, "padding_id": PAD}


def documents_of(sizes):
    """Documents whose every token has a number of its own, from 10 on: a token tells where it is from."""
    number, documents = 10, []
    for document in sizes:
        documents.append([])
        for size in document:
            documents[-1].append(list(range(number, number + size)))
            number += size
    return documents


def make(documents, length=24, objective="next", seed=0):
    return sentence_pairs(documents, length, objective, generator=np.random.default_rng(seed), **OPTIONS)


def segments(pairs, row):
    """(A, B) of a row, whose specials, mask and segments are checked."""
    count = pairs.padding_mask[row].sum()
    ids = pairs.token_ids[row][:count].tolist()
    assert not pairs.padding_mask[row][count:].any() and (pairs.token_ids[row][count:] == PAD).all()
    border = ids.index(SEP)
    assert ids[0] == CLS and ids[-1] == SEP and ids.count(SEP) == 2
    assert pairs.segment_ids[row].tolist() == [0] * (border + 1) + [1] * (count - border - 1) + [0] * (24 - count)
    return ids[1:border], ids[border + 1 : -1]


SIZES = st.lists(st.lists(st.integers(0, 14), max_size=9), min_size=2, max_size=5)


@settings(max_examples=150, deadline=None)
@given(SIZES, st.integers(0, 1000), st.sampled_from(["next", "order"]))
def test_rows_are_true(sizes, seed, objective):
    documents = documents_of(sizes)
    whole = [[token for sentence in document for token in sentence] for document in documents]
    home = {token: index for index, document in enumerate(whole) for token in document}
    try:
        pairs = make(documents, objective=objective, seed=seed)
    except ValueError as error:
        few = sum(map(bool, whole)) < 2 if objective == "next" else all(sum(map(bool, d)) < 2 for d in documents)
        assert few, error
        return
    seen = set()
    for row, label in enumerate(pairs.labels):
        first, second = segments(pairs, row)
        assert first and second
        for segment in (first, second):  # one piece of one document
            assert segment == list(range(segment[0], segment[-1] + 1))
            assert len({home[token] for token in segment}) == 1
        same = home[first[0]] == home[second[0]]
        if objective == "next":
            assert same == (label == 0)
            if same:
                assert first[-1] < second[0]
        else:
            assert same and (first[-1] < second[0]) == (label == 0)
        seen.update(first)
    if objective == "next":  # every document has its turn
        assert {home[token] for token in seen} == {index for index, document in enumerate(whole) if document}
    again = make(documents, objective=objective, seed=seed)
    assert all(np.array_equal(a, b) for a, b in zip(pairs, again, strict=True))


@pytest.mark.parametrize("objective", ["next", "order"])
def test_half_are_false_and_most_are_full(objective):
    pairs = make(documents_of([[5, 6, 4, 7, 3] * 40] * 8), objective=objective)
    assert abs(pairs.labels.mean() - 0.5) < 4 * 0.5 / np.sqrt(len(pairs.labels))
    assert pairs.padding_mask.mean() > 0.85


def test_what_cannot_make_pairs():
    with pytest.raises(ValueError, match="other documents, and there are 1"):
        make(documents_of([[3, 4]]))
    with pytest.raises(ValueError, match="no order to learn"):
        make(documents_of([[3], [4]]), objective="order")
    with pytest.raises(ValueError, match="next, order"):
        make(documents_of([[3], [4]]), objective="before")
    with pytest.raises(ValueError, match="at least 8"):
        make(documents_of([[3], [4]]), length=7)
