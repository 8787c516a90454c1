"""Choosing the next token from logits, in numpy: what running a file needs without Keras."""

from __future__ import annotations

import numpy as np

from tfxformer.numpy_ops import NUMPY
from tfxformer.text.generation.sampling import limited, read_drawing


class Sampler:
    """Draws tokens; the most probable one each time where nothing is given.

    Args:
        temperature, top_k, top_p, min_p: see `text.generation.sampling.read_drawing`.
        seed: int, or None for another text each time.

    Raises:
        ValueError: for a value out of its range.
    """

    def __init__(self, temperature=None, top_k=None, top_p=None, min_p=None, seed: int | None = None):
        self._drawing = read_drawing(temperature, top_k=top_k, top_p=top_p, min_p=min_p)
        self._generator = np.random.default_rng(seed)

    def __call__(self, logits) -> int:
        """The next token of logits [V]."""
        if self._drawing is None:
            return int(np.argmax(logits))
        scores = np.asarray(logits, np.float32) / np.float32(self._drawing["temperature"])
        scores = limited(scores[None], self._drawing, NUMPY)[0]
        kept = np.flatnonzero(scores > -np.inf)
        kept = kept[np.argsort(-scores[kept], kind="stable")]
        chances = np.exp(scores[kept].astype(np.float64) - scores[kept[0]])
        return int(kept[self._generator.choice(len(kept), p=chances / chances.sum())])
