"""Entities as spans of characters, as annotation tools write them, and as a tag for each word."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tfxformer.arguments import notices
from tfxformer.data.targets.words.entities import SplitTexts


def are_spans(labels: Sequence[Any]) -> bool:
    """Whether labels are lists of spans: {"start", "end", "label"} (Prodigy's), or [start, end, label] (Doccano's)."""
    first = next((spans[0] for spans in labels if isinstance(spans, list) and spans), None)
    return isinstance(first, (Mapping, list, tuple))


def tags_of_spans(rows, split: SplitTexts) -> list[list[str]]:
    """BIO tags of the words of texts with spans; one that ends inside of a word takes it whole, which a warning says.

    Args:
        rows: `data.files.rows.Rows` whose labels are lists of spans, in characters of `rows.texts`.
        split: the texts' words.

    Raises:
        ValueError: for what is no span, for one outside of its text, and for spans that share a word.
    """
    tags, widened = [], 0
    for row, spans in enumerate(rows.labels):
        words = split.spans[row]
        names = ["O"] * len(words)
        for span in spans if isinstance(spans, list) else [spans]:
            start, end, label = _read(rows, row, span)
            inside = [i for i, (first, last) in enumerate(words) if first < end and last > start]
            if not 0 <= start < end <= len(split.texts[row]) or not inside:
                what = f"the span {start} to {end} holds no word of a text of {len(split.texts[row])} characters"
                raise rows.error(row, "label", what)
            if any(names[i] != "O" for i in inside):
                raise rows.error(row, "label", f"the span {start} to {end} shares a word with another")
            # What stands between the spaces around words belongs to none.
            widened += words[inside[0]][0] < start or words[inside[-1]][1] > end
            for place, i in enumerate(inside):
                names[i] = f"{'I' if place else 'B'}-{label}"
        tags.append(names)
    if widened:
        notices.warn(f"{rows.table.source}: {widened} spans begin or end inside of a word; they take the whole word.")
    return tags


def _read(rows, row: int, span) -> tuple[int, int, str]:
    if isinstance(span, Mapping):
        label = span.get("label", span.get("tag", span.get("entity")))
        span = (span.get("start"), span.get("end"), label)
    if not isinstance(span, (list, tuple)) or len(span) != 3 or not all(isinstance(edge, int) for edge in span[:2]):
        raise rows.error(row, "label", f"wanted spans (start, end, label), got {span!r:.60}")
    return span[0], span[1], str(span[2])
