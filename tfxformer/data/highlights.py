"""Texts with pieces of them marked: entities, answers and what an explanation weighs, for terminals and web pages."""

from __future__ import annotations

import html as markup
from collections.abc import Iterable

FORMS = ("terminal", "html")
# Okabe and Ito's colours, which people with any kind of colour vision tell apart (jfly.uni-koeln.de/color).
LABELS = ("#56b4e9", "#e69f00", "#009e73", "#f0e442", "#cc79a7", "#d55e00", "#0072b2")
FOR, AGAINST = (0, 114, 178), (213, 94, 0)  # the ends of the scale of weights: blue and vermilion


def highlight(text: str, marks: Iterable, form: str = "terminal", *, largest: float | None = None) -> str:
    """A text in which pieces are marked.

    Args:
        text: the whole text.
        marks: objects with `start` and `end` in characters: `Entity` (its `label` is shown and gives the colour),
            `Answer`, `WordWeight` (its `weight` gives the strength: blue speaks for, vermilion against).
        form: "terminal" (escape codes) or "html" (a fragment, everything in it escaped).
        largest: float, the weight of the full colour, to compare several texts; None for the largest of the marks.

    Raises:
        ValueError: for another form, and for marks that overlap or lie outside of the text.
    """
    if form not in FORMS:
        raise ValueError(f"form={form!r}; wanted one of {', '.join(FORMS)}.")
    marks = sorted(marks, key=lambda mark: (mark.start, mark.end))
    colours = _colours(marks, largest)
    marked = _terminal if form == "terminal" else _html
    plain = str if form == "terminal" else markup.escape
    parts, done = [], 0
    for mark, colour in zip(marks, colours, strict=True):
        if not done <= mark.start <= mark.end <= len(text):
            raise ValueError(
                f"A mark of characters {mark.start} to {mark.end}: wanted marks that do not overlap, of a text of "
                f"{len(text)} characters."
            )
        parts.append(plain(text[done : mark.start]))
        if mark.end > mark.start:
            parts.append(marked(text[mark.start : mark.end], getattr(mark, "label", None), colour))
        done = mark.end
    return "".join([*parts, plain(text[done:])])


def _colours(marks: list, largest: float | None) -> list[tuple[int, int, int]]:
    if largest is None:
        largest = max((abs(mark.weight) for mark in marks if hasattr(mark, "weight")), default=0.0)
    largest = largest or 1.0
    names = list(dict.fromkeys(getattr(mark, "label", None) for mark in marks))
    return [
        _weighed(mark.weight / largest)
        if hasattr(mark, "weight")
        else _rgb(LABELS[names.index(getattr(mark, "label", None)) % len(LABELS)])
        for mark in marks
    ]


def _weighed(share: float) -> tuple[int, int, int]:
    """White at 0, the full colour from 1 and -1 on."""
    end, share = FOR if share > 0 else AGAINST, min(abs(share), 1.0)
    red, green, blue = (round(255 + (value - 255) * share) for value in end)
    return red, green, blue


def _rgb(colour: str) -> tuple[int, int, int]:
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


def _is_dark(colour: tuple[int, int, int]) -> bool:
    red, green, blue = colour
    return 0.299 * red + 0.587 * green + 0.114 * blue < 140


def _terminal(piece: str, label: str | None, colour: tuple[int, int, int]) -> str:
    shown = piece if label is None else f"{piece} [{label}]"
    front = "97" if _is_dark(colour) else "30"
    return f"\x1b[{front};48;2;{';'.join(map(str, colour))}m{shown}\x1b[0m"


def _html(piece: str, label: str | None, colour: tuple[int, int, int]) -> str:
    front = "#fff" if _is_dark(colour) else "#000"
    name = "" if label is None else f" <small>{markup.escape(label)}</small>"
    return f'<mark style="background:rgb{colour};color:{front}">{markup.escape(piece)}{name}</mark>'
