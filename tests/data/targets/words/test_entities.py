"""Entities: what a word is, whose scores it gets, where it stands."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfxformer.data.targets.words.entities import find_entities, split_texts
from tfxformer.data.targets.words.windows import encode_word_windows

LABELS = ["O", "B-PER", "I-PER", "B-LOC"]


def test_words_of_a_text():
    split = split_texts(["Dr. O'Neil paid 3.5%  (twice)", "我住在北京。", ["New", "York"], ""])
    assert split.words[0] == ["Dr", ".", "O", "'", "Neil", "paid", "3", ".", "5", "%", "(", "twice", ")"]
    assert split.words[1] == list("我住在北京。")
    assert split.words[2:] == [["New", "York"], []]
    assert split.texts[2] == "New York"
    assert split.spans[2] == [(0, 3), (4, 8)]


@given(st.lists(st.text(), max_size=3))
def test_words_are_the_text_without_its_spaces(texts):
    split = split_texts(texts)
    for text, words, spans in zip(texts, split.words, split.spans, strict=True):
        assert [text[start:end] for start, end in spans] == words
        assert "".join(words) == re.sub(r"\s", "", text)


def probabilities(windows, seed=0):
    scores = np.random.default_rng(seed).random((*windows.word_ids.shape, len(LABELS)), np.float32)
    return scores / scores.sum(-1, keepdims=True)


@pytest.mark.parametrize("aggregation", ["first", "mean", "max"])
def test_scores_of_words(aggregation, tiny_tokenizer):
    """Piece by piece by hand, from the windows in which a word has the most context."""
    words = ["alanx", "lives", "in", "parisian", "londonx", "code"] * 4
    windows = encode_word_windows(tiny_tokenizer, [words], sequence_length=12)
    assert len(windows.example_ids) > 3
    scores = probabilities(windows)
    best = [None] * len(words)
    for row in range(len(windows.example_ids)):
        for column in np.flatnonzero(windows.first[row]):
            word, room = windows.word_ids[row, column], windows.room[row, column]
            pieces = scores[row, windows.word_ids[row] == word]
            value = {"first": pieces[0], "mean": pieces.mean(0), "max": max(pieces, key=max)}[aggregation]
            if best[word] is None or room > best[word][0]:
                best[word] = (room, value)
    found = find_entities(split_texts([words]), windows, scores, ["O", *"ABC"], aggregation)[0]
    names = [["O", *"ABC"][int(value.argmax())] for _, value in best]
    text, position, wanted = " ".join(words), 0, []
    for index, name in enumerate(names):
        end = position + len(words[index])
        if name != "O":
            if index and names[index - 1] == name:
                _, start, _, values = wanted.pop()
                wanted.append((name, start, end, [*values, float(best[index][1].max())]))
            else:
                wanted.append((name, position, end, [float(best[index][1].max())]))
        position = end + 1
    assert [(e.label, e.start, e.end, e.text) for e in found] == [(n, s, e, text[s:e]) for n, s, e, _ in wanted]
    np.testing.assert_allclose([e.score for e in found], [np.mean(values) for *_, values in wanted], rtol=1e-5)


def test_another_aggregation_is_refused(tiny_tokenizer):
    windows = encode_word_windows(tiny_tokenizer, [["ada"]], sequence_length=12)
    with pytest.raises(ValueError, match="first, mean, max"):
        find_entities(split_texts([["ada"]]), windows, probabilities(windows), LABELS, "average")
