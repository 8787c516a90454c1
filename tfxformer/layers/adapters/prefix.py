"""Learned keys and values in front of those of a text: prefix tuning.

Source: Li and Liang, 2021 (arXiv:2101.00190).
"""

from __future__ import annotations

import keras
from keras import ops

from tfxformer.layers.adapters.base import LayerAdapter


class Prefix(LayerAdapter):
    """Keys and values that every query of an `Attention` sees before all others; see `attach`.

    The positions of the texts begin behind it, which its model has to see to (`PositionEmbedding.shift`).

    Args:
        length: int P.
        heads: int G, heads of keys and values.

    Built with the shape of the keys' kernel (D, G * H): keys and values [G, P, H], random.
    """

    kind = "prefix"
    merges = False

    def __init__(self, length, heads, **kwargs):
        super().__init__(**kwargs)
        self.length = length
        self.heads = heads

    def build(self, input_shape):
        super().build(input_shape)
        for name in ("keys", "values"):
            variable = self.add_weight(
                name=f"prefix_{name}",
                shape=(self.heads, self.length, input_shape[1] // self.heads),
                initializer=keras.initializers.RandomNormal(stddev=0.02),
                autocast=False,
            )
            setattr(self, name, variable)

    def arguments(self) -> dict:
        return {**super().arguments(), "length": self.length, "heads": self.heads}

    def prefixed(self, key, value, bias):
        """Keys and values [B, G, T, H] and an additive bias [..., T] with the prefix in front: P + T of each."""

        def longer(own, x):
            own = ops.expand_dims(ops.cast(own, x.dtype), 0)  # [G, P, H] -> [1, G, P, H]
            return ops.concatenate([ops.repeat(own, ops.shape(x)[0], axis=0), x], axis=2)

        seen = None if bias is None else ops.pad(bias, ((0, 0), (0, 0), (0, 0), (self.length, 0)))
        return longer(self.keys, key), longer(self.values, value), seen
