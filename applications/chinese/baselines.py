"""What the models are measured against: the longest known words, conditional random fields, counts of characters."""

from __future__ import annotations

import tempfile
import unicodedata
from collections import Counter
from pathlib import Path

import pycrfsuite
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from words import Word, labels_of, text_of

ROUNDS = 60  # of L-BFGS
PENALTY = 0.1  # of squared weights


def longest_words(learned: list[list[Word]], texts: list[str]) -> list[list[str]]:
    """Labels of cutting texts from the left into the longest words that were learned, each with its commonest tag."""
    tags: dict[str, Counter] = {}
    for word, tag in (word for part in learned for word in part):
        tags.setdefault(word, Counter())[tag] += 1
    longest = max(map(len, tags))
    found = []
    for text in texts:
        words, at = [], 0
        while at < len(text):
            ends = range(min(len(text), at + longest), at, -1)
            end = next((end for end in ends if text[at:end] in tags), at + 1)
            word = text[at:end]
            words.append((word, tags[word].most_common(1)[0][0] if word in tags else ""))
            at = end
        found.append(labels_of(words))
    return found


def features(text: str) -> list[list[str]]:
    """Of each character: itself and its neighbours up to two away, pairs of these, and their kinds."""
    letters = ["", "", *text, "", ""]
    kinds = ["-" if not letter else unicodedata.category(letter) for letter in letters]
    found = []
    for at in range(2, len(letters) - 2):
        near = letters[at - 2 : at + 3]
        found.append(
            [
                *(f"{place}:{letter}" for place, letter in enumerate(near)),
                *(f"{place}+:{near[place]}{near[place + 1]}" for place in range(4)),
                f"13:{near[1]}{near[3]}",
                f"kinds:{''.join(kinds[at - 1 : at + 2])}",
            ]
        )
    return found


def random_fields(learned: list[list[Word]], texts: list[str]) -> list[list[str]]:
    """Labels by two conditional random fields (Lafferty et al., 2001), one of words and one of names."""
    halves = []
    for begin, end in ((0, 1), (2, None)):
        trainer = pycrfsuite.Trainer(algorithm="lbfgs", verbose=False)
        trainer.set_params({"c1": 0.0, "c2": PENALTY, "max_iterations": ROUNDS})
        for part in learned:
            trainer.append(features(text_of(part)), [label[begin:end] for label in labels_of(part)])
        with tempfile.TemporaryDirectory() as folder:
            path = str(Path(folder) / "field")
            trainer.train(path)
            tagger = pycrfsuite.Tagger()
            tagger.open(path)
            halves.append([tagger.tag(features(text)) for text in texts])
            tagger.close()
    return [[f"{place} {name}" for place, name in zip(*both, strict=True)] for both in zip(*halves, strict=True)]


def counted_characters(texts: list[str], labels: list[str], test_texts: list[str]) -> list[str]:
    """Labels of whole texts by logistic regression on their characters and pairs of them (TF-IDF)."""
    counts = TfidfVectorizer(analyzer="char", ngram_range=(1, 2), min_df=2, sublinear_tf=True)
    return list(make_pipeline(counts, LogisticRegression(max_iter=1000)).fit(texts, labels).predict(test_texts))
