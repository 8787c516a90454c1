"""WordNet's data files: its synsets, and which words of a gloss it relates to the word that the gloss explains.

Source: wndb(5) of WordNet 3.0, "Data File Format".
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

PARTS = {"noun": "n", "verb": "v", "adj": "a", "adv": "r"}
POINTERS = {
    "!": "antonym",
    "@": "hypernym",
    "@i": "instance_of",
    "~": "hyponym",
    "~i": "has_instance",
    "#m": "member_of",
    "#s": "substance_of",
    "#p": "part_of",
    "%m": "has_member",
    "%s": "has_substance",
    "%p": "has_part",
    "=": "attribute",
    "*": "entails",
    ">": "causes",
    "^": "also_see",
    "$": "verb_group",
    "&": "similar_to",
    "<": "participle_of",
    "\\": "pertains_to",
    "+": "derived",
    ";c": "domain_topic",
    "-c": "topic_of",
    ";r": "domain_region",
    "-r": "region_of",
    ";u": "domain_usage",
    "-u": "usage_of",
}
_MARK = re.compile(r"\((?:a|p|ip)\)$")  # where an adjective may stand


class Synset(NamedTuple):
    """Words of one meaning: `pointers` are (relation, key of another synset), `gloss` is without its examples."""

    words: list[str]
    pointers: list[tuple[str, tuple[str, int]]]
    gloss: str


class Relation(NamedTuple):
    """A text of a word and its gloss, the (start, end) of that word and of one in the gloss, and their relation."""

    text: str
    head: tuple[int, int]
    tail: tuple[int, int]
    label: str


def read_synsets(folder: Path) -> dict[tuple[str, int], Synset]:
    """All synsets by (part of speech, offset), in the order of data.noun, data.verb, data.adj and data.adv."""
    found = {}
    for name, part in PARTS.items():
        for line in (folder / f"data.{name}").read_text(encoding="utf-8").splitlines():
            if not line.startswith("  "):  # the licence
                offset, synset = _synset(line)
                found[part, offset] = synset
    return found


def _synset(line: str) -> tuple[int, Synset]:
    head, _, gloss = line.partition(" | ")
    fields = head.split()
    count = int(fields[3], 16)
    words = [_MARK.sub("", fields[4 + 2 * index]).replace("_", " ") for index in range(count)]
    first = 5 + 2 * count
    pointers = [
        (POINTERS[symbol], ("a" if part == "s" else part, int(offset)))
        for symbol, offset, part, _ in zip(*[iter(fields[first : first + 4 * int(fields[first - 1])])] * 4, strict=True)
    ]
    return int(fields[0]), Synset(words, pointers, re.split(r";\s*\"", gloss.strip(), maxsplit=1)[0].strip())


def relations(synsets: dict[tuple[str, int], Synset]) -> Iterator[Relation]:
    """Each synset's first word and gloss, for every word that it points to and that stands in the gloss.

    What is found in two relations to a word is left out.
    """
    for synset in synsets.values():
        text = f"{synset.words[0]}: {synset.gloss}"
        begin, found = len(synset.words[0]) + 2, {}
        for label, key in synset.pointers:
            span = _first(text, begin, synsets[key].words)
            if span is not None:
                found.setdefault(span, set()).add(label)
        for span, labels in sorted(found.items()):
            if len(labels) == 1:
                yield Relation(text, (0, len(synset.words[0])), span, *labels)


def synonyms(synsets: dict[tuple[str, int], Synset]) -> dict[str, list[str]]:
    """The single words that stand in a synset with a word: word in lower case -> words, sorted; none that has none."""
    found: dict[str, set[str]] = {}
    for synset in synsets.values():
        words = {word.lower() for word in synset.words if " " not in word}
        for word in words:
            found.setdefault(word, set()).update(words - {word})
    return {word: sorted(others) for word, others in sorted(found.items()) if others}


def _first(text: str, begin: int, words: list[str]) -> tuple[int, int] | None:
    """Where the first of some words stands as a whole word behind `begin`."""
    lowered = text.lower()
    for word in words:
        place = lowered.find(word.lower(), begin)
        while place >= 0:
            end = place + len(word)
            if not (lowered[place - 1].isalnum() or lowered[end : end + 1].isalnum()):
                return place, end
            place = lowered.find(word.lower(), place + 1)
    return None
