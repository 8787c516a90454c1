"""The products of attention, as pure functions.

Shape letters: B batch, S query length, T key length, N query heads, G key/value heads, H head width.
"""

from __future__ import annotations

from keras import ops


def split_heads(x, heads: int):
    """[B, S, N*H] -> [B, N, S, H]."""
    length, width = ops.shape(x)[1], x.shape[-1] // heads
    return ops.transpose(ops.reshape(x, (-1, length, heads, width)), (0, 2, 1, 3))


def merge_heads(x):
    """[B, N, S, H] -> [B, S, N*H]."""
    heads, length, width = x.shape[1], ops.shape(x)[2], x.shape[3]
    return ops.reshape(ops.transpose(x, (0, 2, 1, 3)), (-1, length, heads * width))


def attention_scores(query, key):
    """Products of queries and keys.

    Args:
        query: [B, N, S, H], already scaled.
        key: [B, G, T, H], G dividing N; each key head serves N/G neighbouring query heads.

    Returns:
        [B, N, S, T].
    """
    heads, groups, length = query.shape[1], key.shape[1], ops.shape(query)[2]
    key = ops.transpose(key, (0, 1, 3, 2))
    if heads == groups:
        return ops.matmul(query, key)
    query = ops.reshape(query, (-1, groups, heads // groups * length, query.shape[3]))  # [B, G, N/G*S, H]
    return ops.reshape(ops.matmul(query, key), (-1, heads, length, ops.shape(key)[3]))


def attention_context(probabilities, value):
    """Mean of the values by probability: [B, N, S, T] x [B, G, T, H] -> [B, N, S, H]."""
    heads, groups, length = probabilities.shape[1], value.shape[1], ops.shape(probabilities)[2]
    if heads == groups:
        return ops.matmul(probabilities, value)
    grouped = ops.reshape(probabilities, (-1, groups, heads // groups * length, ops.shape(value)[2]))
    return ops.reshape(ops.matmul(grouped, value), (-1, heads, length, value.shape[3]))
