"""The words of a text and what an explanation gives each, from what it gives each token.

Shape letters: S tokens of a text.
"""

from __future__ import annotations

import bisect
import re
from dataclasses import dataclass

import numpy as np

from tfxformer.data.highlights import highlight
from tfxformer.data.targets.words.entities import UNSPACED
from tfxformer.text import Encoding

# Words as people read them: runs of letters and digits with what joins them (don't, well-made), runs of other signs,
# and every Chinese or Japanese character by itself.
_WORD = re.compile(rf"[{UNSPACED}]|[^\W{UNSPACED}]+(?:['’-][^\W{UNSPACED}]+)*|[^\w\s]+")


@dataclass(frozen=True)
class WordWeight:
    """A word, `text` [start:end] in characters, and what it adds to an answer.

    Attributes:
        text, start, end: the word and where it stands.
        weight: float, above 0 for the answer and below 0 against it; see `Explanation`.
        sequence: int, 0 in the first text, 1 in the second one of a pair.
    """

    text: str
    weight: float
    start: int
    end: int
    sequence: int = 0


@dataclass(frozen=True)
class Explanation:
    """Why a classifier answered as it did: what each word adds.

    Printed on a terminal it is the text in colours, blue for the label and vermilion against it; so it is in a
    notebook. `data.highlight(text, explanation.words, "html")` gives the same as a fragment of a page.

    Attributes:
        texts: the text, or both of a pair.
        words: list of `WordWeight`, in the order of the text; words that the model did not read are left out.
        label: str, the label that the weights speak of.
        probability: float, what `predict` says of the label.
        method: str, how the weights were found.
        score: float, what the weights add up to together with `baseline_score`: the label's log-odds against all
            others; with several labels at once its logit; in regression the score. None for "attention_rollout".
        baseline_score: float, the same of the text without its words.
    """

    texts: tuple[str, ...]
    words: list[WordWeight]
    label: str
    probability: float
    method: str
    score: float | None = None
    baseline_score: float | None = None

    def top(self, count: int = 5) -> list[WordWeight]:
        """The words of the largest weights for the label, largest first."""
        return sorted(self.words, key=lambda word: -word.weight)[:count]

    def highlighted(self, form: str = "terminal") -> str:
        """The texts with their words in colours, "terminal" or "html"; a line for each text of a pair."""
        largest = max((abs(word.weight) for word in self.words), default=0.0)
        parts = []
        for sequence, text in enumerate(self.texts):
            words = [word for word in self.words if word.sequence == sequence]
            parts.append(highlight(text, words, form, largest=largest))
        return ("<br>" if form == "html" else "\n").join(parts)

    def __str__(self) -> str:
        return f"{self.label} {self.probability:.3f}: {self.highlighted()}"

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        return f"<p><b>{highlight(self.label, [], 'html')} {self.probability:.3f}</b></p>{self.highlighted('html')}"


def word_weights(texts: tuple[str, ...], encoding: Encoding, row: int, weights: np.ndarray) -> list[WordWeight]:
    """The sums of the weights of each word's tokens.

    A token belongs to the first word that it has a character of, one of spaces to the word behind it; so the sum of all
    words is that of all tokens of the texts.

    Args:
        texts: one or two.
        encoding: of these, with offsets.
        row: int, which of its rows.
        weights: float [S].
    """
    found = []
    for sequence, text in enumerate(texts):
        spans = [match.span() for match in _WORD.finditer(text)]
        ends, sums = [end for _, end in spans], {}
        for token in np.flatnonzero(encoding.sequence_ids[row] == sequence) if spans else ():
            start, end = encoding.offsets[row, token].tolist()
            piece = text[start:end]
            start += len(piece) - len(piece.lstrip())
            word = min(bisect.bisect_right(ends, start), len(ends) - 1)
            sums[word] = sums.get(word, 0.0) + float(weights[token])
        found += [WordWeight(text[slice(*spans[word])], sums[word], *spans[word], sequence) for word in sorted(sums)]
    return found
