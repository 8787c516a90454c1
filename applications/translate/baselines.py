"""Three translators that learn no Transformer: what a trained one must beat."""

from __future__ import annotations

import re

import numpy as np

WORDS = re.compile(r"\w+|[^\w\s]")
ROUNDS = 5  # of expectation and maximization
NO_SPACE = re.compile(r" ([,.;:!?)])")


def copied(sources: list[str]) -> list[str]:
    """The source itself."""
    return list(sources)


def nearest(pairs: list, sources: list[str]) -> list[str]:
    """The target of the training pair whose source is nearest by the cosine of its words, rare ones counting more."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    words = TfidfVectorizer()
    learned = words.fit_transform([source for source, _ in pairs])
    return [pairs[index][1] for index in np.asarray((words.transform(sources) @ learned.T).argmax(axis=1)).ravel()]


def word_for_word(pairs: list, sources: list[str]) -> list[str]:
    """Each word by its most probable translation in `dictionary`; words that it has not stay as they are."""
    table = dictionary(pairs)
    return [NO_SPACE.sub(r"\1", " ".join(table.get(word, word) for word in WORDS.findall(text))) for text in sources]


def dictionary(pairs: list) -> dict[str, str]:
    """The most probable target word of each source word, by IBM's model 1 (Brown et al., 1993), without the null word.

    Every token of a target is aligned to the tokens of its source by t(target | source), which expectation and
    maximization find; all cells of all pairs stand in one array.
    """
    numbers = ({}, {})
    rows = [
        [
            np.array([number.setdefault(word, len(number)) for word in WORDS.findall(text)])
            for text, number in zip(pair, numbers, strict=True)
        ]
        for pair in pairs
    ]
    width = len(numbers[1])
    cells = np.concatenate([(source[None, :] * width + target[:, None]).ravel() for source, target in rows])
    # A target token's cells stand together, as many as its source has tokens.
    counts = np.concatenate([np.full(len(target), len(source)) for source, target in rows])
    begins = np.concatenate([[0], np.cumsum(counts)[:-1]])
    keys, cells = np.unique(cells, return_inverse=True)
    from_words = keys // width
    probability = np.full(len(keys), 1.0 / width)
    for _ in range(ROUNDS):
        shares = probability[cells]
        shares /= np.repeat(np.add.reduceat(shares, begins), counts)
        expected = np.bincount(cells, shares, len(keys))
        probability = expected / np.bincount(from_words, expected)[from_words]
    order = np.lexsort((probability, from_words))
    last = order[np.append(from_words[order][1:] != from_words[order][:-1], True)]
    names = [list(number) for number in numbers]
    return {names[0][keys[cell] // width]: names[1][keys[cell] % width] for cell in last}
