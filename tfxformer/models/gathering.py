"""Some positions of a sequence, as a batch names them: what an objective predicts.

Shape letters: P named positions of a row.
"""

from __future__ import annotations

from keras import ops


def gather_positions(x, positions):
    """The rows of some positions: [B, S, D] and int32 [B, P] -> [B, P, D], zeros where a position is -1.

    A product with a one-hot matrix, exact in every dtype: its gradient is a product too, where that of a gather
    would be a scatter, which is slow on TPUs.
    """
    return ops.matmul(ops.one_hot(positions, ops.shape(x)[1], dtype=x.dtype), x)  # [B, P, S] @ [B, S, D]


def scatter_positions(values, positions, length):
    """Values at their positions: [B, P] and int32 [B, P] -> [B, length], 0 where no value is put.

    No position may come twice in a row; values at -1 go nowhere.
    """
    places = ops.one_hot(positions, length, dtype=values.dtype)  # [B, P, length]
    return ops.sum(ops.expand_dims(values, -1) * places, axis=1)
