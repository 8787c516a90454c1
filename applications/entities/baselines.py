"""What the tagger is measured against: each word's commonest tag, and two linear models of words in their window."""

from __future__ import annotations

import re
import tempfile
from collections import Counter
from pathlib import Path

import pycrfsuite
from sklearn.feature_extraction import DictVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

ROUNDS = 100  # of L-BFGS
LASSO, RIDGE = 0.05, 0.05  # penalties of the random fields' weights
WINDOW = 2  # words on either side


def commonest_tags(texts: list[list[str]], tags: list[list[str]], test_texts: list[list[str]]) -> list[list[str]]:
    """The tag that each word has most often; "O" for words that were never seen."""
    counts: dict[str, Counter] = {}
    for words, row in zip(texts, tags, strict=True):
        for word, tag in zip(words, row, strict=True):
            counts.setdefault(word, Counter())[tag] += 1
    return [[counts[word].most_common(1)[0][0] if word in counts else "O" for word in words] for words in test_texts]


def shape(word: str) -> str:
    """The kinds of a word's characters, runs as one: "iPhone4" is "aAad"."""
    kinds = re.sub(r"[^\W\d_]", lambda letter: "A" if letter.group().isupper() else "a", re.sub(r"\d", "0", word))
    return re.sub(r"(.)\1+", r"\1", kinds)


def features(words: list[str]) -> list[dict[str, float]]:
    """Of each word: letters, shape, beginning and end, and the words and shapes beside it."""
    padded = [*[""] * WINDOW, *words, *[""] * WINDOW]
    rows = []
    for at in range(WINDOW, len(padded) - WINDOW):
        word, before, after = padded[at], padded[at - 1].lower(), padded[at + 1].lower()
        names = [f"begins {word[:size].lower()}" for size in (2, 3, 4)]
        names += [f"ends {word[-size:].lower()}" for size in (2, 3, 4)]
        names += [f"{before} {word.lower()}", f"{word.lower()} {after}", f"first {at == WINDOW}"]
        for place in range(-WINDOW, WINDOW + 1):
            names += [f"{place} {padded[at + place].lower()}", f"{place} shape {shape(padded[at + place])}"]
        names.append(f"shapes {shape(padded[at - 1])} {shape(word)} {shape(padded[at + 1])}")
        rows.append(dict.fromkeys(names, 1.0))
    return rows


def logistic_regression(texts: list[list[str]], tags: list[list[str]], test_texts: list[list[str]]) -> list[list[str]]:
    """A tag for each word by itself."""
    model = make_pipeline(DictVectorizer(), LogisticRegression(C=10.0, tol=1e-3, max_iter=100))
    model.fit([row for words in texts for row in features(words)], [tag for row in tags for tag in row])
    return [list(model.predict(features(words))) for words in test_texts]


def random_fields(texts: list[list[str]], tags: list[list[str]], test_texts: list[list[str]]) -> list[list[str]]:
    """The likeliest tags of a whole tweet by a conditional random field (Lafferty et al., 2001)."""
    trainer = pycrfsuite.Trainer(algorithm="lbfgs", verbose=False)
    trainer.set_params({"c1": LASSO, "c2": RIDGE, "max_iterations": ROUNDS, "feature.possible_transitions": True})
    for words, row in zip(texts, tags, strict=True):
        trainer.append(features(words), row)
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "field")
        trainer.train(path)
        tagger = pycrfsuite.Tagger()
        tagger.open(path)
        found = [tagger.tag(features(words)) for words in test_texts]
        tagger.close()
    return found


WAYS = {
    "each word's commonest tag": commonest_tags,
    "windowed logistic regression": logistic_regression,
    "conditional random field": random_fields,
}
