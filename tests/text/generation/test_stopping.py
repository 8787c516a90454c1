"""Stop strings: however the text is cut into pieces, it ends where one is whole for the first time."""

from hypothesis import given, settings
from hypothesis import strategies as st

from tfxformer.text import StopStrings

LETTERS = st.text("ab", max_size=30)
STOPS = st.lists(st.text("ab", min_size=1, max_size=4), max_size=3)


def expected(text, stops):
    for end in range(len(text) + 1):  # character by character
        ending = [stop for stop in stops if text[:end].endswith(stop)]
        if ending:
            return text[: end - max(map(len, ending))], True
    return text, False


@settings(max_examples=300, deadline=None)
@given(LETTERS, STOPS, st.lists(st.integers(1, 5)))
def test_pieces_do_not_matter(text, stops, sizes):
    stream, shown, rest = StopStrings(stops), "", text
    for size in [*sizes, len(text)]:
        shown += stream.feed(rest[:size])
        rest = rest[size:]
        assert expected(text, stops)[0].startswith(shown)
        if not stream.stopped:
            held = len(text) - len(rest) - len(shown)
            assert held < max(map(len, stops), default=1)  # no more than may become a stop
    shown += stream.end()
    assert (shown, stream.stopped) == expected(text, stops)


def test_nothing_comes_after_a_stop():
    stream = StopStrings(["\n\n", "User:"])
    assert [stream.feed(piece) for piece in ("Hello.\n", "Us", "er", ": more", "\n\n")] == ["Hello.", "\n", "", "", ""]
    assert stream.stopped and stream.end() == ""
