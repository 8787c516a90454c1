"""Marked texts: what is shown is the text, whole and escaped."""

import re
from html.parser import HTMLParser
from types import SimpleNamespace

import pytest

from tfxformer import data

TEXT = "Ada <b> & Alan met in London."


def mark(piece, **attributes):
    start = TEXT.index(piece)
    return SimpleNamespace(start=start, end=start + len(piece), **attributes)


class Reader(HTMLParser):
    """What a browser would show, and the colours of the marks."""

    def __init__(self, page):
        super().__init__()
        self.shown, self.colours = "", []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        assert tag in ("mark", "small")
        self.colours += [value for _, value in attributes]

    def handle_data(self, part):
        self.shown += part


def test_html_shows_the_text_with_its_labels():
    page = Reader(data.highlight(TEXT, [mark("London", label="<LOC>"), mark("Ada", label="PER")], "html"))
    assert page.shown == "Ada PER <b> & Alan met in London <LOC>."
    assert len(set(page.colours)) == 2


def test_terminal_shows_the_text():
    shown = data.highlight(TEXT, [mark("Alan"), mark("London")])
    assert re.sub(r"\x1b\[[\d;]*m", "", shown) == TEXT
    assert shown.count("\x1b[0m") == 2


def test_weights_are_colours_from_white_to_blue_or_vermilion():
    marks = [mark("Ada", weight=2.0), mark("Alan", weight=-1.0), mark("met", weight=0.0)]
    assert [
        re.search(r"rgb\((.*?)\)", colour)[1] for colour in Reader(data.highlight(TEXT, marks, "html")).colours
    ] == [
        "0, 114, 178",
        "234, 174, 128",
        "255, 255, 255",
    ]


def test_what_cannot_be_shown_is_refused():
    with pytest.raises(ValueError, match="do not overlap"):
        data.highlight(TEXT, [mark("Alan met"), mark("met")])
    with pytest.raises(ValueError, match="29 characters"):
        data.highlight(TEXT, [SimpleNamespace(start=3, end=99)])
    with pytest.raises(ValueError, match="terminal, html"):
        data.highlight(TEXT, [], "markdown")
