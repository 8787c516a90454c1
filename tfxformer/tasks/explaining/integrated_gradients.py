"""Integrated gradients: what each token's embedding adds to a score, on the way from a text without its words.

Source: Sundararajan et al., 2017 (arXiv:1703.01365). The integral is Gauss and Legendre's sum.

Shape letters: K times that the token table is read, R points of the way, S tokens, D width of the table, C labels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import keras
import numpy as np
from keras import ops

from tfxformer.backend import on_jax
from tfxformer.backend import tensorflow as tf
from tfxformer.tasks.explaining.attention_maps import instead


class Attribution(NamedTuple):
    """What tokens add: float64 [S], and the score at either end of the way."""

    weights: np.ndarray
    score: float
    baseline_score: float


class IntegratedGradients:
    """Attributions of a classifier's scores.

    Args:
        task: the classifier.
        score: (logits [R, C], a row of C numbers that is one at the label) -> the label's scores [R].
        steps: int, points of the way.
        batch_size: int, points at a time.
    """

    def __init__(self, task, score: Callable, steps: int, batch_size: int):
        self._task, self._score, self._batch_size = task, score, batch_size
        places, weights = np.polynomial.legendre.leggauss(steps)
        self._places, self._weights = (places + 1.0) / 2.0, weights / 2.0
        self._gradients = self._jax_gradients() if on_jax() else self._tensorflow_gradients

    def of(self, batch: dict, baseline_ids: np.ndarray | None, replaced: np.ndarray, label: np.ndarray) -> Attribution:
        """What the tokens of one text add to the score of a label.

        Args:
            batch: dict of int32 [1, S].
            baseline_ids: int32 [1, S], the text without its words; None for embeddings of zeros in their place.
            replaced: bool [S], the tokens that are another at the beginning of the way.
            label: float32 [C], one at the label.
        """
        ends, logits = self._lookups(batch)
        if baseline_ids is not None:
            starts, _ = self._lookups({**batch, "token_ids": baseline_ids})
        else:
            starts = [
                np.where(mask[None, :, None], 0.0, end) for mask, end in zip(_shifts(replaced, ends), ends, strict=True)
            ]
        (score,) = np.asarray(self._score(logits, label), "float64")
        (baseline_score,) = np.asarray(self._score(self._given(starts, batch), label), "float64")
        means = [np.zeros(end.shape[1:]) for end in ends]  # of the gradients on the way: [S, D]
        for first in range(0, len(self._places), self._batch_size):
            chunk = slice(first, first + self._batch_size)
            places = self._places[chunk, None, None]
            points = [
                (start + places * (end - start)).astype("float32") for start, end in zip(starts, ends, strict=True)
            ]
            rows = {name: np.repeat(array, len(places), axis=0) for name, array in batch.items()}
            for mean, gradient in zip(means, self._gradients(points, rows, label), strict=True):
                mean += np.tensordot(self._weights[chunk], np.asarray(gradient, "float64"), axes=1)
        added = [((end - start)[0] * mean).sum(-1) for start, end, mean in zip(starts, ends, means, strict=True)]
        return Attribution(_of_tokens(added), float(score), float(baseline_score))

    def _lookups(self, batch: dict):
        """(what the token table gives each time it is read, K arrays [1, S, D]; the logits)."""
        found = []

        def keep(table):
            def call(ids, *args, **kwargs):
                rows = type(table).call(table, ids, *args, **kwargs)
                found.append(np.asarray(ops.cast(rows, "float32"), "float64"))
                return rows

            return call

        with instead([self._task.backbone.token_embedding], "call", keep):
            logits = self._task.forward(batch)
        return found, logits

    def _given(self, rows: list, batch: dict):
        """The logits of a batch whose tokens have these embeddings, K arrays or tensors [R, S, D]."""
        remaining = iter(rows)

        def give(table):
            return lambda ids, *args, **kwargs: ops.cast(next(remaining), table.compute_dtype)

        with instead([self._task.backbone.token_embedding], "call", give):
            return self._task.forward(batch)

    def _tensorflow_gradients(self, points: list, batch: dict, label) -> list:
        points = [ops.convert_to_tensor(one) for one in points]
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(points)
            total = ops.sum(self._score(self._given(points, batch), label))
        return tape.gradient(total, points)

    def _jax_gradients(self) -> Callable:
        """The same on JAX, compiled once for texts of a length."""
        import jax

        def total(points, held, batch, label):
            with keras.StatelessScope(zip(self._task.variables, held, strict=True)):
                return ops.sum(self._score(self._given(points, batch), label))

        compiled = jax.jit(jax.grad(total))

        def gradients(points, batch, label):
            held = [variable.value for variable in self._task.variables]  # Keras' steps give them new arrays
            return compiled(points, held, batch, label)

        return gradients


def _shifts(replaced: np.ndarray, ends: list) -> list[np.ndarray]:
    """The replaced tokens each time that the table is read; a decoder beside an encoder reads them one place later."""
    prompt = ends[0].shape[1] - len(replaced)
    whole = np.concatenate([np.zeros(prompt, bool), replaced])
    return [whole, *(np.concatenate([[False], whole[:-1]]) for _ in ends[1:])]


def _of_tokens(added: list[np.ndarray]) -> np.ndarray:
    """The sums of what tokens add each time they are read, K arrays [S] -> [S]; see `_shifts`."""
    total = added[0].copy()
    for later in added[1:]:
        total[:-1] += later[1:]
    return total
