"""Words and names as labels of characters, and how well labels that were found say them.

A label says where in its word a character stands (B, M, E, or S where it is a word of its own), and where in a name:
江泽民在北京 is "S B-PER", "B I-PER", "E I-PER", "S O", "B B-LOC", "E I-LOC".
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tfxformer import samples
from tfxformer.data.targets.words.labels import entity_scores

Word = tuple[str, str]  # and its tag
NAMES = {"nr": "PER", "ns": "LOC", "nt": "ORG"}  # tag of a word -> kind of a name
MARKS = "。！？；，："  # behind which a paragraph may be cut
LABELS = [
    *(f"{place} O" for place in "BMES"),
    *(f"{place} {part}-{name}" for name in NAMES.values() for place, part in zip("SBME", "BBII", strict=True)),
    *(f"{place} I-PER" for place in "SB"),  # a given name behind its surname is a word of its own
]


def labels_of(words: Sequence[Word]) -> list[str]:
    """The label of each character. Two words of a person's name that stand together are a surname and a given name."""
    labels, surname = [], False
    for word, tag in words:
        name, count = NAMES.get(tag), len(word)
        places = "S" if count == 1 else f"B{'M' * (count - 2)}E"
        begins = not (name == "PER" and surname)
        surname = name == "PER" and begins
        for index, place in enumerate(places):
            part = "B" if begins and index == 0 else "I"
            labels.append(f"{place} {part}-{name}" if name else f"{place} O")
    return labels


def text_of(words: Sequence[Word]) -> str:
    return "".join(word for word, _ in words)


def parts(paragraph: Sequence[Word], longest: int) -> list[list[Word]]:
    """A paragraph in parts of at most so many characters, cut behind marks where that is possible."""
    clauses, clause = [], []
    for word in paragraph:
        clause.append(word)
        if word[0] in MARKS:
            clauses.append(clause)
            clause = []
    found: list[list[Word]] = [[]]
    for whole in filter(None, [*clauses, clause]):
        if len(text_of(found[-1] + whole)) <= longest:
            found[-1] += whole
            continue
        found.append([])
        for word in whole:
            if len(text_of([*found[-1], word])) > longest:
                found.append([])
            found[-1].append(word)
    return [part for part in found if part]


def by_days(longest: int) -> tuple[list, list]:
    """(paragraphs of the month's first nine tenths, those of its last tenth), each a list of parts."""
    paragraphs = [parts(paragraph, longest) for paragraph in samples.pku_1998()]
    first = len(paragraphs) * 9 // 10
    return paragraphs[:first], paragraphs[first:]


def spans(labels: Sequence[str]) -> list[tuple[int, int]]:
    """Words as (first character, the one behind the last)."""
    begins = [
        index
        for index, (before, label) in enumerate(zip(["S", *labels[:-1]], labels, strict=True))
        if label[0] in "BS" or before[0] in "ES"
    ]
    return list(zip(begins, [*begins[1:], len(labels)], strict=True))


def scores(texts: Sequence[str], wanted: Sequence, found: Sequence, known: set[str]) -> dict:
    """Of labels: F1 of words and of names, and of the words that are not `known` the share that was found."""
    same = given = true = unknown = unknown_found = 0
    for text, labels, guessed in zip(texts, wanted, found, strict=True):
        words, guesses = spans(labels), set(spans(guessed))
        same, given, true = same + len(guesses.intersection(words)), given + len(guesses), true + len(words)
        new = [(begin, end) for begin, end in words if text[begin:end] not in known]
        unknown, unknown_found = unknown + len(new), unknown_found + len(guesses.intersection(new))
    names = entity_scores(*([[label[2:] for label in row] for row in rows] for rows in (wanted, found)))
    return {
        "words_f1": 2 * same / (given + true),
        "words_precision": same / given,
        "words_recall": same / true,
        "unknown_words": unknown / true,
        "unknown_words_found": unknown_found / max(1, unknown),
        "names_f1": names["f1"],
        "names_precision": names["precision"],
        "names_recall": names["recall"],
        "names_by_kind": {kind: one["f1"] for kind, one in names["by_type"].items()},
        "names": sum(one["support"] for one in names["by_type"].values()),
    }


def words_and_names(text: str, labels: list[str]) -> str:
    """A text with spaces between words, and the kind of a name behind the first word of each."""
    words = [(text[begin:end], labels[begin][2:]) for begin, end in spans(labels)]
    return " ".join(f"{word}/{label[2:]}" if label.startswith("B-") else word for word, label in words)


def f1(found: np.ndarray, wanted: np.ndarray) -> float:
    """F1 of one label: bool [B] each."""
    return float(2 * (found & wanted).sum() / max(1, found.sum() + wanted.sum()))
