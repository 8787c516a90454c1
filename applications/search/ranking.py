"""Where the text that a line belongs to stands among all texts, and what counted words make of it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer


def ranks(scores: np.ndarray) -> np.ndarray:
    """[lines, texts], line i belonging to text i -> how many texts stand before it: int [lines].

    Of equal scores the own text's comes last.
    """
    own = np.diag(scores)[:, None]
    return (scores >= own).sum(1) - 1


def measured(places: np.ndarray) -> dict[str, float]:
    """Of ranks: the mean reciprocal rank, and how often the text is the first, and among the first 10."""
    return {
        "mrr": float((1 / (places + 1)).mean()),
        "recall@1": float((places < 1).mean()),
        "recall@10": float((places < 10).mean()),
    }


def tf_idf(lines: Sequence[str], texts: Sequence[str], **options) -> np.ndarray:
    """Cosines by counted words or letters, rare ones weighing more: [lines, texts].

    The counts are those of the texts; `options` are of scikit-learn's TfidfVectorizer.
    """
    counts = TfidfVectorizer(sublinear_tf=True, **options).fit(texts)
    return (counts.transform(lines) @ counts.transform(texts).T).toarray()


COUNTED = {
    "TF-IDF of words": {"stop_words": "english"},
    "TF-IDF of 2 to 5 letters": {"analyzer": "char_wb", "ngram_range": (2, 5)},
}
