"""Reasoning told apart from answers, whole and streamed in any pieces."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfxformer.text import split_reasoning
from tfxformer.text.chat.reasoning import answers_only

CASES = {
    "<think>\nIt is 4.\n</think>\n\nFour.": ("It is 4.", "Four."),
    "It is 4.\n</think>\n\nFour.": ("It is 4.", "Four."),  # the template has opened it
    "<think>\n\n</think>\n\nFour.": ("", "Four."),
    "<think>cut": ("cut", ""),
    " Four, <think> is a tag.": (None, " Four, <think> is a tag."),
    "": (None, ""),
    "a </think> b </think> c": ("a", "b </think> c"),
}


@pytest.mark.parametrize("text", CASES)
def test_splitting(text):
    assert split_reasoning(text) == CASES[text]


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(sorted(CASES)), st.lists(st.integers(0, 40), max_size=8))
def test_streamed_answers_are_those_of_the_whole_text(text, cuts):
    places = sorted({0, len(text), *(min(cut, len(text)) for cut in cuts)})
    pieces = [text[a:b] for a, b in itertools.pairwise(places)]
    reasoning, answer = CASES[text]
    opened = reasoning is not None and not text.startswith("<think>")
    assert "".join(answers_only(pieces, opened)) == answer


def test_an_answer_comes_as_soon_as_it_is_one():
    stream = answers_only(iter(["<thi", "nk>x</think>", "\n", "\nFo", "ur", "."]))
    assert list(stream) == ["Fo", "ur", "."]
    assert list(answers_only(iter([" ", "<t", "wo>"]))) == [" <two>"]
