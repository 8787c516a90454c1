"""Entities of texts: which words they are, where they stand and how sure the model is.

Shape letters: B texts, W windows, S tokens of a window, C labels.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from tfxformer.data.targets.words.labels import entities
from tfxformer.data.targets.words.windows import OUTSIDE, WordWindows, named_labels, word_values
from tfxformer.text.inputs import as_list, as_words

AGGREGATIONS = ("first", "mean", "max")
# Words of a text, as the corpora that taggers learn from have them: runs of letters and digits; every other sign, and
# every Chinese or Japanese character, by itself.
UNSPACED = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003134f"
_WORD = re.compile(rf"[{UNSPACED}]|[^\W{UNSPACED}]+|[^\w\s]")


@dataclass(frozen=True)
class Entity:
    """A piece of a text: `text` is the whole text's [start:end], in characters.

    `score` is the mean of its words' probabilities of the labels they got.
    """

    text: str
    label: str
    score: float
    start: int
    end: int


@dataclass(frozen=True)
class SplitTexts:
    """Texts as words, and where in the texts the words stand: `spans` holds B lists of (start, end) characters."""

    texts: list[str]
    words: list[list[str]]
    spans: list[list[tuple[int, int]]]


def split_texts(texts: Iterable) -> SplitTexts:
    """Texts (str), split at spaces and signs, or lists of words, whose texts are the words with spaces between them.

    Raises:
        TypeError: for what is neither.
    """
    wholes, words, spans = [], [], []
    for text in as_list(texts, "texts"):
        if isinstance(text, str):
            spans.append([match.span() for match in _WORD.finditer(text)])
            words.append([text[start:end] for start, end in spans[-1]])
        else:
            words += as_words([text])
            ends = np.cumsum([len(word) + 1 for word in words[-1]]).tolist()
            spans.append([(end - 1 - len(word), end - 1) for word, end in zip(words[-1], ends, strict=True)])
            text = " ".join(words[-1])
        wholes.append(text)
    return SplitTexts(wholes, words, spans)


def find_entities(
    split: SplitTexts, windows: WordWindows, probabilities: np.ndarray, labels: Sequence[str], aggregation: str
) -> list[list[Entity]]:
    """The entities of each text, in its order.

    Args:
        split: the texts.
        windows: their words, encoded.
        probabilities: float [W, S, C].
        labels: C names: BIO, IOB, IOBES or BILOU tags, or plain names, of which a run of equal ones is an entity.
        aggregation: whose probabilities a word gets: those of its "first" piece, which alone `fit` teaches a label; the
            "mean" of all; or "max", those of the piece that is surest.

    Raises:
        ValueError: for another aggregation.
    """
    if aggregation not in AGGREGATIONS:
        raise ValueError(f"aggregation={aggregation!r}; wanted one of {', '.join(AGGREGATIONS)}.")
    scores = word_values(windows, _of_words(windows, probabilities, aggregation), missing=np.nan)
    ids = [np.where(np.isnan(rows).any(-1), -1, rows.argmax(-1)) for rows in scores]
    found = []
    for index, names in enumerate(named_labels(ids, labels)):
        tags = [OUTSIDE if name is None else name for name in names]
        best, spans, text = scores[index].max(-1, initial=0), split.spans[index], split.texts[index]
        found.append(
            [
                _entity(text, label, best[first:end], spans[first][0], spans[end - 1][1])
                for label, first, end in entities(tags)
            ]
        )
    return found


def _entity(text: str, label: str, scores: np.ndarray, start: int, end: int) -> Entity:
    # A word without a piece has no score; named as an entity it would be by mistake alone.
    return Entity(text[start:end], label, float(np.nanmean(scores)), start, end)


def _of_words(windows: WordWindows, pieces: np.ndarray, aggregation: str) -> np.ndarray:
    """Probabilities [W, S, C] whose rows at words' first pieces stand for the words."""
    if aggregation == "first":
        return pieces
    result = np.array(pieces)
    for row, (first, word_ids) in enumerate(zip(windows.first, windows.word_ids, strict=True)):
        starts = np.flatnonzero(first)
        # A window may begin inside of a word: its pieces here belong to the neighbouring window's.
        columns = np.flatnonzero((word_ids >= 0) & (np.cumsum(first) > 0))
        groups = np.cumsum(first)[columns] - 1
        for group, start in enumerate(starts):
            word = pieces[row, columns[groups == group]]
            result[row, start] = word.mean(0) if aggregation == "mean" else word[word.max(-1).argmax()]
    return result
