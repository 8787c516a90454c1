"""Labels that a classifier gives to texts without, where it is sure of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class PseudoLabels(NamedTuple):
    """Texts that a classifier has labelled.

    Attributes:
        texts: list of str, those it was sure of, in their order.
        labels: list of str, a label each.
        weights: list of float, the probability of each label, for `sample_weight`.
        indices: list of int, where the texts stood.
    """

    texts: list
    labels: list[str]
    weights: list[float]
    indices: list[int]


def pseudo_labels(classifier, texts: Sequence[str], *, threshold: float = 0.9, batch_size: int = 32) -> PseudoLabels:
    """What a classifier says of texts without labels, where its probability is at least `threshold`.

    Args:
        classifier: `tasks.TextClassifier` with one label a text, trained on the labels there are.
        texts: list of str, or of pairs.
        threshold: float, above 0 and at most 1.
        batch_size: int, texts at a time.

    Raises:
        ValueError: for a threshold that cannot be, and a classifier of several labels or scores.

    Source: Lee, 2013, "Pseudo-Label"; the threshold as in Sohn et al., 2020 (arXiv:2001.07685).

    Example:
        found = data.pseudo_labels(classifier, unlabelled, threshold=0.95)
        weights = [1.0] * len(texts) + found.weights
        classifier.fit(texts + found.texts, labels + found.labels, sample_weight=weights)
    """
    if not 0.0 < threshold <= 1.0:
        raise ValueError(f"threshold={threshold!r}: wanted a probability above 0, at most 1.")
    names = getattr(classifier, "class_names", None)
    if names is None or getattr(classifier, "problem_type", None) is None:
        raise ValueError(
            f"pseudo_labels asks a TextClassifier with one label a text, and this {type(classifier).__name__} has "
            "several labels, scores, or labels of tokens."
        )
    texts = list(texts)
    if not texts:
        return PseudoLabels([], [], [], [])
    probabilities = np.asarray(classifier.predict(texts, batch_size=batch_size, verbose=0))  # [B, C]
    best = probabilities.argmax(axis=1)
    sure = probabilities.max(axis=1)
    kept = np.flatnonzero(sure >= threshold).tolist()
    return PseudoLabels(
        [texts[index] for index in kept],
        [names[best[index]] for index in kept],
        [float(sure[index]) for index in kept],
        kept,
    )
