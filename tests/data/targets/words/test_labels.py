"""Word labels on pieces and back, against plain loops; entities against seqeval."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from seqeval.metrics import accuracy_score, classification_report
from seqeval.metrics.sequence_labeling import get_entities

from tfxformer.data.targets.words.labels import entities, entity_scores, first_pieces, piece_targets
from tfxformer.text import Tokenizer

FIXTURES = Path(__file__).parents[3] / "text" / "fixtures"
TOKENIZERS = [Tokenizer.from_pretrained(FIXTURES / name) for name in ("bert-uncased", "roberta", "albert")]
WORD = st.one_of(st.text("abcdeüñ中-'", min_size=1, max_size=8), st.sampled_from(["\u200b", "unbelievable"]))


@given(st.sampled_from(TOKENIZERS), st.lists(st.lists(WORD, max_size=7), min_size=1, max_size=4), st.data())
@settings(deadline=None, max_examples=80)
def test_first_pieces_carry_the_labels(tokenizer, texts, data):
    labels = [data.draw(st.lists(st.integers(0, 8), min_size=len(w), max_size=len(w))) for w in texts]
    length = data.draw(st.sampled_from([6, 12, 80]))
    encoding = tokenizer.encode(texts, is_split_into_words=True, sequence_length=length, return_offsets=True)
    targets = piece_targets(encoding.word_ids, labels)
    assert (targets.labels.dtype, targets.weights.dtype) == (np.int32, np.float32)
    for row, words in enumerate(texts):
        seen = set()
        for column, word in enumerate(encoding.word_ids[row].tolist()):
            first = word >= 0 and word not in seen
            seen.add(word)
            assert targets.weights[row, column] == first
            assert targets.labels[row, column] == (labels[row][word] if first else 0)
        assert targets.lost_words[row] == len(words) - len(seen - {-1})


def test_first_pieces_are_where_words_begin():
    word_ids = np.array([[-1, 0, 0, 1, -1], [-1, 0, 2, -1, -1]], np.int32)
    assert first_pieces(word_ids).tolist() == [
        [False, True, False, True, False],
        [False, True, True, False, False],
    ]


def test_labels_that_do_not_fit_the_words_are_told():
    word_ids = np.array([[-1, 0, 1, 2, -1]])
    with pytest.raises(ValueError, match=r"labels\[0\] has 2 labels for at least 3 words"):
        piece_targets(word_ids, [[0, 1]])
    with pytest.raises(ValueError, match="1 encoded texts but labels of 2"):
        piece_targets(word_ids, [[0], [1]])


@pytest.mark.parametrize(
    ("labels", "wanted"),
    [
        (["B-PER", "I-PER", "O", "B-LOC"], [("PER", 0, 2), ("LOC", 3, 4)]),
        (["I-PER", "I-PER", "I-LOC", "O"], [("PER", 0, 2), ("LOC", 2, 3)]),  # IOB1
        (["B-PER", "B-PER", "I-PER"], [("PER", 0, 1), ("PER", 1, 3)]),
        (["S-LOC", "B-PER", "I-PER", "E-PER"], [("LOC", 0, 1), ("PER", 1, 4)]),
        (["Street", "Street", "Zip", "O", "Zip"], [("Street", 0, 2), ("Zip", 2, 3), ("Zip", 4, 5)]),
        (["O", "O"], []),
        ([], []),
    ],
)
def test_entities(labels, wanted):
    assert entities(labels) == wanted


TAG = st.sampled_from(["O", *(f"{prefix}-{kind}" for prefix in "BIES" for kind in "XY")])
TAGGED = st.lists(st.lists(st.tuples(TAG, TAG), min_size=1, max_size=9), min_size=1, max_size=5)


@given(TAGGED)
@settings(deadline=None, max_examples=200)
def test_entities_and_scores_are_seqevals_to_the_bit(texts):
    true, predicted = ([[pair[side] for pair in text] for text in texts] for side in (0, 1))
    for labels in (*true, *predicted):
        assert entities(labels) == [(kind, start, last + 1) for kind, start, last in get_entities(labels)]
    scores = entity_scores(true, predicted)
    assert scores["accuracy"] == accuracy_score(true, predicted)
    if not any(map(entities, (*true, *predicted))):  # seqeval has no report then
        assert (scores["f1"], scores["by_type"]) == (0.0, {})
        return
    report = classification_report(true, predicted, output_dict=True, zero_division=0)
    names = {"precision": "precision", "recall": "recall", "f1": "f1-score"}
    assert {key: scores[key] for key in names} == {key: report["micro avg"][name] for key, name in names.items()}
    names["support"] = "support"
    wanted = {kind: row for kind, row in report.items() if not kind.endswith(" avg")}
    assert scores["by_type"] == {kind: {key: row[name] for key, name in names.items()} for kind, row in wanted.items()}


@given(TAGGED)
@settings(deadline=None, max_examples=50)
def test_bilou_is_iobes_by_other_letters(texts):
    for text in texts:
        labels = [label for label, _ in text]
        bilou = [label.replace("E-", "L-").replace("S-", "U-") for label in labels]
        assert entities(bilou) == entities(labels)


def test_scores_by_type_and_of_plain_labels():
    scores = entity_scores([["Street", "Street", "Zip"]], [["Street", "Zip", "Zip"]])
    assert scores["f1"] == 0.0  # no run is exact
    scores = entity_scores([["Street", "Street", "Zip"]], [["Street", "Street", "Street"]])
    assert scores["accuracy"] == pytest.approx(2 / 3)
    assert scores["by_type"] == {
        "Street": {"precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 1},
        "Zip": {"precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 1},
    }
    assert entity_scores([["O", "O"]], [["O", "O"]])["f1"] == 0.0
    with pytest.raises(ValueError, match="Text 0 has 2 labels but 1"):
        entity_scores([["O", "O"]], [["O"]])
