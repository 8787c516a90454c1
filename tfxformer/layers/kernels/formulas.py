"""The parts of a training step that a CPU runs fastest when written apart from the stock operations.

On a CPU matrix products belong to oneDNN, which TensorFlow's graph calls; the elementwise chains between
them (GELU, softmax, dropout, norms) are passes over memory there, one kernel an operation, slow ones in
bfloat16. Here each chain is a small cluster compiled by XLA, in float32 inside, with its own gradient.
XLA's own random numbers cost more than all of it: masks are hashed instead (`random_bits`).

Elsewhere (GPU, TPU: compile the whole step; other Keras backends) the same formulas run as plain `keras.ops`.
Whole-step XLA, `tf.distribute` replicas and recomputation (`keras.remat`) take either way.
"""

from __future__ import annotations

import math

import keras
from keras import ops

from tfxformer.layers.kernels import clusters
from tfxformer.layers.kernels.random_bits import keep_scale


def _wide(x):
    """At least float32."""
    return x if keras.backend.standardize_dtype(x.dtype) == "float64" else ops.cast(x, "float32")


def _sum_rows(x, like):
    """[..., F] -> [F] in the dtype of `like`; None for None.

    A product with ones, of float32. TensorFlow's own gradient of a bias, BiasAddGrad, sums bfloat16 in bfloat16 on a
    CPU: over 4096 rows that loses 40 % of the gradient; a product of bfloat16 sums in float32 only on processors that
    have such products (an AMD EPYC without lost 0.7 %). And it is not inside a cluster, because XLA would compute all
    of `x` once more for it.
    """
    return None if like is None else clusters.clustered(_sum, tuple(like.shape), like.dtype, compiled=False)(x)


def _sum(shape, dtype, x):
    import tensorflow as tf

    rows = tf.cast(tf.reshape(x, (-1, x.shape[-1])), "float32")
    ones = tf.ones((1, tf.shape(rows)[0]))
    return tf.cast(tf.reshape(tf.matmul(ones, rows), shape), dtype)


# === Dropout ===


def dropout(x, rate, seed):
    """`x` times `keep_scale` of its shape; the gradient makes the mask again instead of keeping it."""
    if not clusters.use_clusters():
        return _drop(rate, seed, x)
    drop = clusters.clustered(_drop, rate)
    return clusters.with_gradient(
        lambda seed, x: (drop(seed, x), None),
        lambda constants, kept, upstream: [drop(constants[0], upstream)],
        [seed],
        [x],
    )


def _drop(rate, seed, x):
    return ops.cast(_wide(x) * keep_scale(tuple(ops.shape(x)), rate, seed), x.dtype)


# === Bias and GELU ===


def add_bias(x, bias):
    """x + bias, with a gradient of the bias that is right in bfloat16 (see `_sum_rows`).

    Args:
        x: float [..., F].
        bias: [F], or None.
    """
    if bias is None or not clusters.use_clusters():
        return x if bias is None else x + ops.cast(bias, x.dtype)
    return clusters.with_gradient(
        lambda x, bias: (x + ops.cast(bias, x.dtype), bias),
        lambda constants, bias, upstream: (upstream, _sum_rows(upstream, bias)),
        [],
        [x, bias],
    )


def gelu(x, bias=None, approximate=False):
    """GELU(x + bias), erf form or tanh form (Hendrycks and Gimpel, arXiv:1606.08415).

    Args:
        x: float [..., F].
        bias: [F] or None; it and its gradient are free inside the kernel.
        approximate: bool, the tanh form.
    """
    if not clusters.use_clusters():
        return ops.gelu(x if bias is None else x + ops.cast(bias, x.dtype), approximate=approximate)
    forward, derivative = clusters.clustered(_gelu, approximate), clusters.clustered(_gelu_gradient, approximate)

    def backward(constants, kept, upstream):
        gradient = derivative(*kept, upstream)
        return gradient, _sum_rows(gradient, kept[1])

    return clusters.with_gradient(lambda x, bias: (forward(x, bias), (x, bias)), backward, [], [x, bias])


def _gate(x, approximate):
    """The factor of x in GELU, and its derivative."""
    if approximate:
        scale = math.sqrt(2.0 / math.pi)
        tanh = ops.tanh(scale * (x + 0.044715 * x * x * x))
        return 0.5 * (1.0 + tanh), 0.5 * (1.0 - tanh * tanh) * scale * (1.0 + 3 * 0.044715 * x * x)
    return 0.5 * (1.0 + ops.erf(x * math.sqrt(0.5))), ops.exp(-0.5 * x * x) * (1.0 / math.sqrt(2.0 * math.pi))


def _gelu(approximate, x, bias):
    wide = _wide(x) if bias is None else _wide(x) + _wide(bias)
    return ops.cast(wide * _gate(wide, approximate)[0], x.dtype)


def _gelu_gradient(approximate, x, bias, upstream):
    wide = _wide(x) if bias is None else _wide(x) + _wide(bias)
    gate, slope = _gate(wide, approximate)
    return ops.cast(_wide(upstream) * (gate + wide * slope), x.dtype)


# === Attention ===


def split_heads(x, bias, heads, head_size, query_scale):
    """The biased products of a fused projection as heads.

    Args:
        x: [B, S, (N + 2 * G) * H], the products of query, key and value, side by side.
        bias: [(N + 2 * G) * H], or None.
        heads: (N, G, G), their numbers.
        head_size: int H.
        query_scale: float, the factor of the query.

    Returns:
        query [B, N, S, H], key [B, G, S, H], value [B, G, S, H].
    """
    if not clusters.use_clusters():
        return _split_heads(heads, head_size, query_scale, x, bias)
    import tensorflow as tf

    forward = clusters.clustered(_split_heads, heads, head_size, query_scale)

    def backward(constants, bias, query, *others):
        parts = [tf.transpose(part, (0, 2, 1, 3)) for part in (query * query_scale, *others)]
        shapes = [(-1, tf.shape(part)[1], count * head_size) for part, count in zip(parts, heads, strict=True)]
        parts = [tf.reshape(part, shape) for part, shape in zip(parts, shapes, strict=True)]
        gradient = tf.concat(parts, axis=-1)  # [B, S, (N + 2 * G) * H]
        return gradient, _sum_rows(gradient, bias)

    return clusters.with_gradient(lambda x, bias: (forward(x, bias), bias), backward, [], [x, bias])


def _split_heads(heads, head_size, query_scale, x, bias):
    length, start, parts = ops.shape(x)[1], 0, []
    for count, scale in zip(heads, (query_scale, 1.0, 1.0), strict=True):
        end = start + count * head_size
        part = _wide(x[:, :, start:end])
        part = (part if bias is None else part + _wide(bias[start:end])) * scale
        part = ops.reshape(ops.cast(part, x.dtype), (-1, length, count, head_size))
        parts.append(ops.transpose(part, (0, 2, 1, 3)))  # [B, S, n, H] -> [B, n, S, H]
        start = end
    return tuple(parts)


def attend(scores, bias, value, rate=0.0, seed=None):
    """dropout(softmax(scores + bias)) @ value.

    Args:
        scores: [B, N, S, T].
        bias: broadcastable to `scores`, or None; no gradient flows to it (add a learned one to the scores).
        value: [B, N, T, H].
        rate: float, dropout of the probabilities.
        seed: integer tensor [2]; not read where rate is 0.

    Returns:
        [B, N, S, H].
    """
    seed = seed if rate else None
    if not clusters.use_clusters():
        probability = _softmax(scores, bias)
        return ops.matmul(_drop(rate, seed, probability) if rate else probability, value)
    import tensorflow as tf

    drop, score_gradient = clusters.clustered(_drop, rate), clusters.clustered(_score_gradient)

    def forward(seed, bias, scores, value):
        # oneDNN's softmax is faster than XLA's.
        probability = _softmax(scores, bias)
        dropped = drop(seed, probability) if rate else probability
        context = tf.matmul(dropped, value)
        return context, (probability, dropped, value, context)

    def backward(constants, kept, upstream):
        probability, dropped, value, context = kept
        dropped_gradient = tf.matmul(upstream, value, transpose_b=True)
        value_gradient = tf.matmul(dropped, upstream, transpose_a=True)
        return score_gradient(probability, dropped, dropped_gradient, context, upstream), value_gradient

    return clusters.with_gradient(forward, backward, [seed, bias], [scores, value])


def _softmax(scores, bias):
    return ops.softmax(scores if bias is None else scores + ops.cast(bias, scores.dtype), axis=-1)


def _score_gradient(probability, dropped, dropped_gradient, context, upstream):
    # The softmax's sum over T, of P * dP, equals the sum over H of context * upstream, through dropout too
    # (Dao et al., 2022, arXiv:2205.14135): less to read. And mask * P is what dropout left: it needs no mask.
    share = ops.sum(_wide(context) * _wide(upstream), axis=-1, keepdims=True)
    gradient = _wide(dropped) * _wide(dropped_gradient) - _wide(probability) * share
    return ops.cast(gradient, probability.dtype)


# === Residual sum and norm ===


def add_norm(x, residual, gamma, beta, epsilon, bias=None, rate=0.0, seed=None):
    """Layer normalization of residual + dropout(x + bias); without `beta` RMS normalization, which does not centre.

    Args:
        x: [..., D], a block half's output.
        residual: [..., D], or None.
        gamma, beta: [D]; beta may be None.
        epsilon: float, added to the variance.
        bias: [D] or None, of the product that made `x`.
        rate: float, dropout of x + bias.
        seed: integer tensor [2]; not read where rate is 0.

    Returns:
        [..., D] in the dtype of `x`; statistics and sum are float32 inside.
    """
    seed = seed if rate else None
    if not clusters.use_clusters():
        return _add_norm(rate, epsilon, seed, x, residual, gamma, beta, bias)[0]
    forward = clusters.clustered(_add_norm, rate, epsilon)
    derivative = clusters.clustered(_add_norm_gradient, rate, beta is not None)

    def run(seed, x, residual, gamma, beta, bias):
        result, normalized, scale = forward(seed, x, residual, gamma, beta, bias)
        return result, (normalized, scale, residual, gamma, beta, bias)

    def backward(constants, kept, upstream):
        normalized, scale, residual, gamma, beta, bias = kept
        total, dropped, product = derivative(*constants, normalized, scale, gamma, upstream)
        return (
            dropped,
            None if residual is None else ops.cast(total, residual.dtype),
            _sum_rows(product, gamma),
            _sum_rows(upstream, beta),
            _sum_rows(dropped, bias),
        )

    return clusters.with_gradient(run, backward, [seed], [x, residual, gamma, beta, bias])


def _add_norm(rate, epsilon, seed, x, residual, gamma, beta, bias):
    """The result, the normalized sum in the dtype of `x`, and 1 / standard deviation."""
    total = _wide(x) if bias is None else _wide(x) + _wide(bias)
    if rate:
        total = total * keep_scale(tuple(ops.shape(x)), rate, seed)
    if residual is not None:
        total = total + _wide(residual)
    centred = total if beta is None else total - ops.mean(total, axis=-1, keepdims=True)
    scale = ops.rsqrt(ops.mean(centred * centred, axis=-1, keepdims=True) + epsilon)
    normalized = centred * scale
    result = normalized * _wide(gamma)
    result = result if beta is None else result + _wide(beta)
    return ops.cast(result, x.dtype), ops.cast(normalized, x.dtype), scale


def _add_norm_gradient(rate, centred, seed, normalized, scale, gamma, upstream):
    """Gradients of the sum before dropout and of `x`, and the rows whose sum is that of gamma."""
    normal, wide, gamma = _wide(normalized), _wide(upstream), _wide(gamma)
    product = wide * normal
    inner = wide * gamma - _mean_product(wide, gamma) if centred else wide * gamma
    total = scale * (inner - normal * _mean_product(product, gamma))
    dropped = total * keep_scale(tuple(ops.shape(upstream)), rate, seed) if rate else total
    return ops.cast(total, upstream.dtype), ops.cast(dropped, upstream.dtype), product


def _mean_product(x, weights):
    """[..., D] times [D] -> [..., 1], the mean over D, for clusters: XLA reduces more slowly on CPUs."""
    sums = ops.matmul(ops.reshape(x, (-1, x.shape[-1])), ops.reshape(weights, (-1, 1)))
    return ops.reshape(sums, (*ops.shape(x)[:-1], 1)) / x.shape[-1]


# === Embedding ===


def embedding_lookup(table, ids, lookup="take"):
    """Rows of a table, with a dense gradient.

    Args:
        table: [V, D].
        ids: integers [...].
        lookup: "take", or "gather": TensorFlow's raw operation, for graphs that are exported.

    Returns:
        [..., D] in the dtype of `table`.
    """
    if lookup not in ("take", "gather"):
        raise ValueError(f"Unknown embedding lookup {lookup!r}; known: take, gather.")
    if keras.backend.backend() != "tensorflow":
        return ops.take(table, ids, axis=0)
    import tensorflow as tf

    table = tf.convert_to_tensor(table)  # of a Keras variable, keras.ops gives the variable itself
    if lookup == "gather":
        # By flat ids: what LiteRT's EMBEDDING_LOOKUP takes, and with it 4-bit tables.
        return tf.reshape(tf.gather(table, tf.reshape(ids, (-1,))), (*ops.shape(ids), table.shape[1]))

    # TensorFlow's own gradient is IndexedSlices, one row for each id. Optimizers take their norm without
    # summing the rows of one id, and so clip by a wrong global norm.
    def backward(constants, shape, upstream):
        rows = tf.reshape(upstream, (-1, shape[1]))
        return [tf.math.unsorted_segment_sum(rows, tf.reshape(constants[0], (-1,)), shape[0])]

    return clusters.with_gradient(
        lambda ids, table: (ops.take(table, ids, axis=0), tuple(ops.shape(table))), backward, [ids], [table]
    )
