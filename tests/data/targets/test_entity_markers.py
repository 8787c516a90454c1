"""Marks of entities: where they stand, and what is refused."""

from types import SimpleNamespace

import pytest

from tfxformer import data

TEXT = "Ada lived in London."


def test_marks_stand_around_both_entities():
    assert data.mark_entities(TEXT, (0, 3), (13, 19)) == "[E1] Ada [/E1] lived in [E2] London [/E2]."
    assert data.mark_entities(TEXT, (13, 19), (0, 3)) == "[E2] Ada [/E2] lived in [E1] London [/E1]."
    assert data.mark_entities("ab", (0, 1), (1, 2)) == "[E1] a [/E1][E2] b [/E2]"


def test_entities_of_a_tagger_are_marked():
    ada, london = (SimpleNamespace(start=start, end=end) for start, end in ((0, 3), (13, 19)))
    assert data.mark_entities(TEXT, ada, london) == data.mark_entities(TEXT, (0, 3), (13, 19))


def test_what_cannot_be_marked_is_refused():
    with pytest.raises(ValueError, match="'Ada lived' and 'lived in' overlap"):
        data.mark_entities(TEXT, (0, 9), (4, 12))
    with pytest.raises(ValueError, match="second entity is characters 13 to 21: wanted a part of the text's 20"):
        data.mark_entities(TEXT, (0, 3), (13, 21))
    with pytest.raises(ValueError, match="first entity is characters 3 to 3"):
        data.mark_entities(TEXT, (3, 3), (13, 19))
    with pytest.raises(ValueError, match=r"has the marks \[E1\], \[/E1\] already"):
        data.mark_entities("[E1] Ada [/E1] lived", (5, 8), (15, 20))
