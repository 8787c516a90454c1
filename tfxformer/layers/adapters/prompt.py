"""Learned embeddings in front of a text: prompt tuning.

The places that they stand at have ids of their own, -1, -2, ...: whatever reads ids (positions, masks, caches) needs to
know nothing of them. Source: Lester et al., 2021 (arXiv:2104.08691).
"""

from __future__ import annotations

import keras
import numpy as np
from keras import ops

from tfxformer.layers.adapters.base import LayerAdapter
from tfxformer.layers.kernels.formulas import embedding_lookup

SEEN_BY_ALL = -1  # the document number of a prompt, in the padding masks of decoders


class Prompt(LayerAdapter):
    """Rows of a `TokenEmbedding` for negative ids; see `attach`.

    Args:
        length: int P.

    Built with the table's shape (V, D): embeddings [P, D]; `begin` gives them those of tokens.
    """

    kind = "prompt"
    merges = False

    def __init__(self, length, **kwargs):
        super().__init__(**kwargs)
        self.length = length

    def build(self, input_shape):
        super().build(input_shape)
        start = keras.initializers.RandomNormal(stddev=0.02)
        self.embeddings = self.add_weight(
            name="prompt", shape=(self.length, input_shape[1]), initializer=start, autocast=False
        )

    def begin(self, layer):
        """Starts at the embeddings of random tokens, which trains better than at random vectors (section 3.2)."""
        rows = keras.random.randint((self.length,), 0, self.shape[0])
        self.embeddings.assign(np.asarray(layer.embeddings)[np.asarray(rows)])

    def arguments(self) -> dict:
        return {**super().arguments(), "length": self.length}

    def placed(self, token_ids, embeddings, kind):
        """Embeddings [B, S, D] with the prompt's own where `token_ids` [B, S] are negative; `kind` of the lookup."""
        own = embedding_lookup(self.embeddings, ops.maximum(-1 - token_ids, 0), kind)
        return ops.where(ops.expand_dims(token_ids < 0, -1), ops.cast(own, embeddings.dtype), embeddings)


def placeholders(length: int) -> np.ndarray:
    """The ids of a prompt: int32 [P]."""
    return -1 - np.arange(length, dtype="int32")


def with_prompt(inputs: dict, length: int, mask: int) -> dict:
    """A batch, dict of int32 [B, S], with a prompt in front: [B, P + S].

    Args:
        length: int P.
        mask: int, what its padding mask is there: 1, or `SEEN_BY_ALL` for a decoder.
    """
    values = {"token_ids": placeholders(length), "padding_mask": np.full(length, mask, "int32")}

    def longer(name, x):
        front = values.get(name, np.zeros(length, "int32"))[None]  # [P] -> [1, P]
        return ops.concatenate([ops.repeat(front, ops.shape(x)[0], axis=0), ops.cast(x, "int32")], axis=1)

    return {name: longer(name, x) for name, x in inputs.items()}
