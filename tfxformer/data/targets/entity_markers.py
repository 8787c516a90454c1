"""Marks around the two entities of a text, between which a classifier names the relation."""

from __future__ import annotations

from tfxformer.text.inputs import as_texts

# Around the first entity, and around the second (Baldini Soares et al., 2019, arXiv:1906.03158, section 3.2).
ENTITY_MARKERS = ("[E1]", "[/E1]", "[E2]", "[/E2]")


def mark_entities(text: str, first, second) -> str:
    """A text with marks around two entities: "[E1] Ada [/E1] lived in [E2] London [/E2]."

    The marks must be tokens of the model, `compression.add_tokens(classifier, data.ENTITY_MARKERS)`.

    Args:
        text: the text.
        first, second: where they stand, (start, end) in characters, or what has `start` and `end`, as the entities that
            `TokenClassifier.entities` finds. The second may stand before the first; the relation is that of the first
            to the second.

    Returns:
        The marked text.

    Raises:
        ValueError: for spans that are empty, overlap or lie outside of the text, and a text that has marks already.
    """
    (text,) = as_texts([text])
    if found := [marker for marker in ENTITY_MARKERS if marker in text]:
        raise ValueError(f"The text {text!r:.80} has the marks {', '.join(found)} already: give it without them.")
    spans = [_span(one, name, text) for one, name in ((first, "first"), (second, "second"))]
    marked = [(*span, *ENTITY_MARKERS[2 * index : 2 * index + 2]) for index, span in enumerate(spans)]
    (start, end, opening, closing), (next_start, next_end, next_opening, next_closing) = sorted(marked)
    if next_start < end:
        raise ValueError(f"The entities {text[start:end]!r} and {text[next_start:next_end]!r} overlap in {text!r:.80}.")
    between, behind = text[end:next_start], text[next_end:]
    return (
        f"{text[:start]}{opening} {text[start:end]} {closing}{between}"
        f"{next_opening} {text[next_start:next_end]} {next_closing}{behind}"
    )


def _span(entity, name: str, text: str) -> tuple[int, int]:
    start, end = (entity.start, entity.end) if hasattr(entity, "start") else entity
    if not 0 <= start < end <= len(text):
        raise ValueError(
            f"The {name} entity is characters {start} to {end}: wanted a part of the text's {len(text)}, {text!r:.80}."
        )
    return int(start), int(end)
