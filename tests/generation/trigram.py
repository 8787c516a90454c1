"""A language model that can be computed by hand: the next token depends on the last two, one of them in the cache."""

import numpy as np
import tensorflow as tf
import tiny
from keras import ops

from tfxformer.layers import Cache, empty_cache

VOCABULARY_SIZE, CONTEXT = 7, 64


class Trigram:
    """Logits `table[before, last]`; `before` is 0 at the beginning of a text, padding before it or not."""

    def __init__(self, seed=0, scale=2.0):
        self.table = np.random.default_rng(seed).normal(0, scale, (VOCABULARY_SIZE,) * 3).astype("float32")
        self.config = tiny.config("gpt2", vocabulary_size=VOCABULARY_SIZE, decoder__max_positions=CONTEXT)
        self.variables = [tf.Variable(self.table)]
        self.traced = 0

    def new_cache(self, batch_size, length):
        return empty_cache(batch_size, length, 1, 1, 1)

    def step(self, inputs, cache, logits="last"):
        self.traced += logits is not None
        ids, slots = inputs["token_ids"], inputs["cache_positions"]
        keys, values = cache.self_attention[0]
        written = ops.cast(ids, "float32")[:, None, :, None]  # [B, S] -> [B, 1, S, 1]
        keys = ops.slice_update(keys, (0, 0, slots[0], 0), written)
        earlier = ops.maximum(slots - 1, 0)
        real = ops.logical_and(slots > 0, ops.take(inputs["cache_mask"], earlier, axis=1) > 0)
        before = ops.where(real, ops.cast(ops.take(keys[:, 0, :, 0], earlier, axis=1), "int32"), 0)
        cache = Cache(((keys, values),))
        if logits is None:
            return None, cache
        rows = ops.reshape(self.variables[0], (-1, VOCABULARY_SIZE))  # [V, V, V] -> [V * V, V]
        found = ops.take(rows, before * VOCABULARY_SIZE + ids, axis=0)  # [B, S, V]
        return (found[:, -1:] if logits == "last" else found), cache

    def logits(self, ids):
        """float32 [V] after a text."""
        return self.table[ids[-2] if len(ids) > 1 else 0, ids[-1]]

    def greedy(self, prompt, count, stop_ids=()):
        """The most probable continuation, token by token."""
        ids = list(prompt)
        while len(ids) < len(prompt) + count and not (len(ids) > len(prompt) and ids[-1] in stop_ids):
            ids.append(int(np.argmax(self.logits(ids))))
        return ids[len(prompt) :]

    def score(self, prompt, new):
        """The sum of log probabilities of a continuation."""
        ids, total = list(prompt), 0.0
        for token in new:
            logits = self.logits(ids).astype("float64")
            total += logits[token] - np.log(np.exp(logits).sum())
            ids.append(token)
        return total
