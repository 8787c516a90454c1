"""The gated delta rule: a state of fixed size, which each token fades, corrects and reads (arXiv:2412.06464).

Shape letters: B batch, S query length, N value heads, Hk and Hv widths of keys and values, C tokens of a chunk,
M = B * N, T chunks.
"""

from __future__ import annotations

import keras
import numpy as np
from keras import ops

from tfxformer.backend import on_tensorflow
from tfxformer.backend import tensorflow as tf
from tfxformer.layers.attention.attention import merge_heads, split_heads
from tfxformer.layers.dense import child_dense
from tfxformer.layers.mixers.convolution import CausalConvolution, Mixer, real_tokens
from tfxformer.layers.normalization import RMSNormalization
from tfxformer.layers.quantization.graph_form import DEFAULT, GraphForm, call_written

CHUNK = 64  # tokens that are computed at once, by products of matrices
_MOST_UNROLLED = 8  # chunks that a graph writes one after the other; more are a loop
_EPSILON = 1e-6  # of the norm of queries and keys


def gated_delta_rule(query, key, value, fading, rate, state=None, begins=None):
    """What each token reads of a state, and the state after the last.

    Token by token: S = exp(fading) * S; S = S + key (rate * (value - S' key))'; and S' query is read. Here it is
    computed by chunks (Yang et al., 2024, arXiv:2406.06484), which is the same up to rounding.

    Args:
        query, key: float32 [B, N, S, Hk].
        value: float32 [B, N, S, Hv].
        fading: float32 [B, N, S], logarithms of what is left of the state, at most 0.
        rate: float32 [B, N, S], how far the state is corrected, 0 to 1.
        state: float32 [B, N, Hk, Hv]; None for zeros.
        begins: float32 [B, N, S], 1 where a token begins with a state of zeros; None where none does.

    Returns:
        (float32 [B, N, S, Hv], state [B, N, Hk, Hv]).
    """
    heads, length = query.shape[1], ops.shape(query)[2]
    size = CHUNK
    if query.shape[2] is not None:
        size = min(CHUNK, 1 << (query.shape[2] - 1).bit_length())
    count = (length + size - 1) // size

    def chunked(x):  # [B, N, S, H] -> [M, T, C, H], filled up with zeros, which change no state
        x = ops.pad(x, ((0, 0), (0, 0), (0, size - 1), (0, 0)))[:, :, : count * size]
        return ops.reshape(x, (-1, count, size, x.shape[3]))

    query, key, value = chunked(query), chunked(key), chunked(value)
    fading, rate = (chunked(x[..., None]) for x in (fading, rate))  # [M, T, C, 1]
    parts = _chunks(query, key, value, fading, rate, None if begins is None else chunked(begins[..., None]))
    if state is None:
        state = ops.zeros_like(key[:, 0, 0, :, None] * value[:, 0, 0, None])
    else:
        state = ops.reshape(state, (-1, *state.shape[2:]))  # [B, N, Hk, Hv] -> [M, Hk, Hv]
    written, corrected, query, within, key, kept = parts
    moved = (written, corrected, key, kept)
    if isinstance(count, int) and count <= _MOST_UNROLLED:
        states = [state]
        for at in range(count):
            states.append(_next(states[-1], tuple(part[:, at] for part in moved)))
        state, states = states[-1], ops.stack(states[:-1], axis=1)
    else:
        found = _scan(state, tuple(ops.moveaxis(part, 1, 0) for part in moved))
        states = ops.moveaxis(ops.concatenate([state[None], found[:-1]]), 0, 1)  # [T, M, Hk, Hv] -> [M, T, Hk, Hv]
        state = found[-1]
    read = ops.matmul(query, states) + ops.matmul(within, written - ops.matmul(corrected, states))
    read = ops.reshape(read, (-1, heads, count * size, read.shape[3]))[:, :, :length]
    return read, ops.reshape(state, (-1, heads, *state.shape[1:]))


def _chunks(query, key, value, fading, rate, begins) -> tuple:
    """What `_next` needs of each chunk beside the state, [M, T, ...]: all of it at once for all chunks."""
    size = query.shape[2]
    faded = ops.cumsum(fading, axis=2)  # since the chunk's begin
    lower = np.tril(np.ones((size, size), "float32"))
    # Between two tokens; above the diagonal it would grow without bound.
    between = ops.exp(ops.minimum(faded - ops.swapaxes(faded, 2, 3), 0.0)) * lower
    since, until, kept = ops.exp(faded), ops.exp(faded[:, :, -1:] - faded), ops.exp(faded[:, :, -1:])
    if begins is not None:  # nothing crosses the begin of a document
        document = ops.cumsum(begins, axis=2)
        last = document[:, :, -1:]
        between = between * ops.cast(ops.equal(document, ops.swapaxes(document, 2, 3)), between.dtype)
        since, until, kept = (
            x * ops.cast(ops.equal(one, other), x.dtype)
            for x, one, other in ((since, document, 0.0), (until, document, last), (kept, last, 0.0))
        )
    turned = ops.swapaxes(key, 2, 3)
    weighed = key * rate
    # What the tokens of a chunk write hangs on what earlier ones of it have written: a triangular system.
    system = ops.matmul(weighed, turned) * between
    inverse = ops.reshape(unit_lower_inverse(ops.reshape(system, (-1, size, size))), ops.shape(system))
    written, corrected = ops.matmul(inverse, value * rate), ops.matmul(inverse, weighed * since)
    within = ops.matmul(query, turned) * between
    return written, corrected, query * since, within, ops.swapaxes(key * until, 2, 3), kept


def _next(state, parts):
    """The state after a chunk: [M, Hk, Hv]."""
    written, corrected, key, kept = parts
    return state * kept + ops.matmul(key, written - ops.matmul(corrected, state))


def _scan(state, parts):
    """The states after each of some chunks, whose parts are [T, M, ...]: [T, M, Hk, Hv]."""
    if on_tensorflow():  # where `keras.ops.scan` wants to know their number when the graph is made
        return tf.scan(_next, parts, state)

    def step(state, parts):
        state = _next(state, parts)
        return state, state

    return ops.scan(step, state, parts)[1]


def unit_lower_inverse(lower):
    """The inverse of I + L, L the part of a matrix below its diagonal: [M, C, C], C a power of two.

    By blocks of twice the size each time: the inverse of [[P, 0], [Q, R]] has -R^-1 Q P^-1 in its corner. As exact as
    substitution row by row, and nothing but products, which every backend and LiteRT have.
    """
    size, width = lower.shape[-1], 1
    inverse = ops.ones_like(lower[:, :, :1, None])  # [M, C, 1, 1], of blocks of one
    while width < size:
        blocks = size // (2 * width)
        diagonal = np.eye(blocks, dtype="float32")[:, None, :, None]
        squares = ops.reshape(lower, (-1, blocks, 2 * width, blocks, 2 * width)) * diagonal
        corner = ops.sum(squares, axis=3)[:, :, width:, :width]  # [M, blocks, width, width]
        first, second = inverse[:, 0::2], inverse[:, 1::2]
        corner = -ops.matmul(ops.matmul(second, corner), first)
        above = ops.concatenate([first, ops.zeros_like(first)], axis=-1)
        inverse = ops.concatenate([above, ops.concatenate([corner, second], axis=-1)], axis=-2)
        width *= 2
    return inverse[:, 0]


def _unit(x):
    """Vectors of length 1, all but that of zeros."""
    return x * ops.rsqrt(ops.sum(x * x, axis=-1, keepdims=True) + _EPSILON)


@keras.saving.register_keras_serializable("tfxformer")
class GatedDeltaRule(Mixer):
    """`gated_delta_rule` of short convolutions of the inputs; what is read is normed and gated (Qwen3.5).

    Args:
        key_heads: int, heads of queries and keys.
        value_heads: int N, heads of values, a multiple of them: neighbours share a key.
        key_width, value_width: ints Hk and Hv, widths of a head.
        width: int K, the tokens that queries, keys and values are convolved of.
        norm_epsilon: float, epsilon of the norm of what is read.
        kernel_initializer: initializer of all kernels.

    Call: as `Mixer`; its state is the last K - 1 of what it convolves, and S, float32 [B, N, Hk, Hv]. Documents that
    stand side by side in a row do not see each other, but for a prompt's tokens (-1) in front of more than one.

    Raises ValueError for value heads that are no multiple of the key heads.
    """

    use_bias = False

    def __init__(
        self,
        key_heads,
        value_heads,
        key_width,
        value_width,
        width=4,
        norm_epsilon=1e-6,
        kernel_initializer="glorot_uniform",
        **kwargs,
    ):
        super().__init__(**kwargs)
        if value_heads % key_heads:
            raise ValueError(f"value_heads ({value_heads}) must be a multiple of key_heads ({key_heads}).")
        self.key_heads, self.value_heads = key_heads, value_heads
        self.key_width, self.value_width = key_width, value_width
        self.width = width
        self.norm_epsilon = norm_epsilon
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.supports_masking = True

    @property
    def sizes(self) -> tuple[int, int, int]:
        """Channels of the queries, keys and values."""
        keys = self.key_heads * self.key_width
        return keys, keys, self.value_heads * self.value_width

    def build(self, input_shape):
        size, dtype = input_shape[-1], self.dtype_policy
        self.input_projection = child_dense(self, "input", sum(self.sizes), size)
        self.convolution = CausalConvolution(self.width, self.kernel_initializer, dtype=dtype, name="convolution")
        self.convolution.build((None, None, sum(self.sizes)))
        self.gate = child_dense(self, "gate", self.sizes[2], size)
        self.rate = child_dense(self, "rate", self.value_heads, size)
        self.fading = child_dense(self, "fading", self.value_heads, size)
        self.norm = RMSNormalization(self.norm_epsilon, dtype=dtype, name="norm")
        self.norm.build((None, self.value_width))
        self.output_projection = child_dense(self, "output", size, self.sizes[2])
        # As the reference begins: heads that fade by 0.01 to 16 times what is asked for.
        shape, rates = (self.value_heads,), keras.initializers.RandomUniform(0.01, 16.0)
        self.log_speed = self.add_weight(
            shape=shape, initializer=lambda *given, **also: ops.log(rates(*given, **also)), name="log_speed",
            autocast=False,
        )  # fmt: skip
        self.fading_bias = self.add_weight(shape=shape, initializer="ones", name="fading_bias", autocast=False)

    def state_shapes(self):
        return (self.width - 1, sum(self.sizes)), (self.value_heads, self.key_width, self.value_width)

    def empty_state(self, batch_size: int) -> tuple:
        past, state = self.state_shapes()
        return ops.zeros((batch_size, *past), self.compute_dtype), ops.zeros((batch_size, *state), "float32")

    def call(self, inputs, padding_mask=None, cache=None, training=None, graph_form: GraphForm = DEFAULT):
        x = real_tokens(inputs, padding_mask)
        past, state = (None, None) if cache is None else cache
        mixed, past = self.convolution(self.input_projection(x, training=training), padding_mask, past)
        keys, until, _ = np.cumsum(self.sizes)
        parts = ops.split(ops.cast(ops.silu(mixed), "float32"), [int(keys), int(until)], axis=-1)
        heads = (self.key_heads, self.key_heads, self.value_heads)
        query, key, value = (split_heads(part, count) for part, count in zip(parts, heads, strict=True))
        query, key = _unit(query) * self.key_width**-0.5, _unit(key)
        if self.value_heads > self.key_heads:
            query, key = (ops.repeat(part, self.value_heads // self.key_heads, axis=1) for part in (query, key))
        # [B, S, N] -> [B, N, S]
        rate = ops.swapaxes(ops.sigmoid(ops.cast(self.rate(x, training=training), "float32")), 1, 2)
        asked = ops.softplus(ops.cast(self.fading(x, training=training), "float32") + self.fading_bias)
        fading = ops.swapaxes(-ops.exp(self.log_speed) * asked, 1, 2)
        begins = None
        if padding_mask is not None and cache is None:
            before = ops.pad(padding_mask[:, :-1], ((0, 0), (1, 0)))
            other = ops.logical_and(before > 0, ops.logical_and(padding_mask > 0, ops.not_equal(before, padding_mask)))
            begins = ops.repeat(ops.cast(other, "float32")[:, None], self.value_heads, axis=1)
        read, state = gated_delta_rule(query, key, value, fading, rate, state, begins)
        read = call_written(self.norm, ops.cast(read, self.compute_dtype), graph_form=graph_form, training=training)
        outputs = self.output_projection(
            merge_heads(read) * ops.silu(self.gate(x, training=training)), training=training
        )
        return outputs if cache is None else (outputs, (ops.cast(past, cache[0].dtype), state))

    def get_config(self):
        names = ("key_heads", "value_heads", "key_width", "value_width", "width", "norm_epsilon")
        described = {name: getattr(self, name) for name in names}
        initializer = keras.initializers.serialize(self.kernel_initializer)
        return {**super().get_config(), **described, "kernel_initializer": initializer}
