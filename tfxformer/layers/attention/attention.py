"""Attention: self, cross, grouped and cached are one layer.

Shape letters: B batch, S query length, T key length, N query heads, G key/value heads, H head width, D model width.
"""

from __future__ import annotations

import keras
from keras import ops

from tfxformer.keywords import KnownKeywords
from tfxformer.layers.adapters import low_rank
from tfxformer.layers.attention.rotary import rotate
from tfxformer.layers.dense import child_dense
from tfxformer.layers.kernels import formulas as kernels
from tfxformer.layers.quantization.equalization import equalized
from tfxformer.layers.quantization.fake_quantization import rounded, rounds
from tfxformer.layers.quantization.graph_form import DEFAULT, GraphForm


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


def update_cache(cache, key, value, position):
    """Writes new keys and values into a cache at `position`.

    Args:
        cache: (keys [B, G, T, H], values [B, G, H, T]), LiteRT-LM's layout.
        key, value: [B, G, S, H].
        position: int32 scalar; the caller keeps position + S within T (the write is clamped, not refused).

    Returns:
        the new (keys, values).
    """
    keys, values = cache
    keys = ops.slice_update(keys, (0, 0, position, 0), ops.cast(key, keys.dtype))
    value = ops.transpose(value, (0, 1, 3, 2))  # [B, G, S, H] -> [B, G, H, S]
    return keys, ops.slice_update(values, (0, 0, 0, position), ops.cast(value, values.dtype))


def first_slots(cache, bias):
    """The (keys, values) of a cache that a bias [..., T'] is for: all, or the first T'."""
    keys, values = cache
    count = None if bias is None else bias.shape[-1]
    if count in (None, 1, keys.shape[2]):
        return cache
    return keys[:, :, :count], values[..., :count]


def cache_spec(cache) -> tuple:
    """What a layer gives back for a symbolic cache: new tensors of its shapes, or the graph would end at its input."""
    return tuple(keras.KerasTensor(x.shape, dtype=x.dtype) for x in cache)


@keras.saving.register_keras_serializable("tfxformer")
class Attention(KnownKeywords, keras.layers.Layer):
    """Multi-head attention from plain Dense layers (Vaswani et al., 2017, arXiv:1706.03762).

    Dense kernels stay two-dimensional, so that pruning, adapters and LiteRT's FULLY_CONNECTED see them.

    Args:
        num_heads: int N, query heads.
        head_size: int H, width of a head.
        num_key_value_heads: int G or None (N): grouped heads (Ainslie et al., 2023, arXiv:2305.13245).
        use_bias: bool, biases on the projections of query, key and value.
        output_bias: bool or None (`use_bias`), bias on the output projection.
        scale: float, what queries are multiplied by; None for H ** -0.5.
        dropout: float, dropout rate of the attention probabilities.
        kernel_initializer: initializer of the four kernels.

    Call:
        inputs: [B, S, D].
        source: [B, T, D], what is attended to; None for self-attention.
        bias: additive, broadcastable to [B, N, S, T]. One for fewer keys than a cache has slots has only the first
            ones read, as many as it is for.
        rotary: None, or the (cosine, sine) by which queries and keys are turned (`layers.rotary`).
        cache: None, or (keys [B, G, T, H], values [B, G, H, T]) to read, after writing at `position` unless
            `position` is None (a finished cache, as cross-attention has it; `source` is then not read).
        seed: uint32 [2], the dropout seed; needed when training with dropout.

    Returns:
        [B, S, D], or with a cache ([B, S, D], new cache).

    Attributes:
        adapter: `prefix.Prefix`, or None. With one every query sees its keys first; no cache holds them.
    """

    def __init__(
        self,
        num_heads,
        head_size,
        num_key_value_heads=None,
        use_bias=True,
        output_bias=None,
        scale=None,
        dropout=0.0,
        kernel_initializer="glorot_uniform",
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.num_heads = num_heads
        self.head_size = head_size
        self.num_key_value_heads = num_key_value_heads or num_heads
        if num_heads % self.num_key_value_heads:
            raise ValueError(
                f"num_heads ({num_heads}) must be a multiple of num_key_value_heads ({num_key_value_heads})."
            )
        self.use_bias = use_bias
        self.output_bias = use_bias if output_bias is None else output_bias
        self.scale = head_size**-0.5 if scale is None else scale
        self.dropout = dropout
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.adapter = None

    @property
    def adapted_shape(self) -> tuple[int, int]:
        """The (D, G * H) that an adapter of this layer is built for, the shape of the keys' kernel."""
        return self.key.adapted_shape

    def build(self, input_shape):
        # The same path whoever builds it: projections are children, built with the input's width.
        width = input_shape[-1]
        self.query = child_dense(self, "query", self.num_heads * self.head_size, width)
        self.key = child_dense(self, "key", self.num_key_value_heads * self.head_size, width)
        self.value = child_dense(self, "value", self.num_key_value_heads * self.head_size, width)
        self.output_projection = child_dense(self, "output", width, self.num_heads * self.head_size, self.output_bias)

    def call(
        self,
        inputs,
        source=None,
        bias=None,
        rotary=None,
        cache=None,
        position=None,
        training=None,
        seed=None,
        graph_form: GraphForm = DEFAULT,
    ):
        if training and cache is None and not rounds(self):
            return self.output_projection(self.training_context(inputs, source, bias, seed, rotary))
        readers = (self.key, self.value)
        project = equalized(inputs, (self.query, *readers) if source is None else (self.query,), graph_form)
        query = split_heads(project(self.query) * self.scale, self.num_heads)
        query = query if rotary is None else rotate(query, *rotary)
        if cache is None or position is not None:
            if source is not None:
                project = equalized(source, readers, graph_form)
            key, value = self._key_value(source, project)
            key = key if rotary is None else rotate(key, *rotary)
        if cache is not None:
            if position is not None:
                cache = update_cache(cache, key, value, position)
            key, value = first_slots(cache, bias)
            value = ops.transpose(value, (0, 1, 3, 2))  # [B, G, H, T] -> [B, G, T, H]
        if self.adapter is not None:
            key, value, bias = self.adapter.prefixed(key, value, bias)
        scores = rounded(attention_scores(query, key), self, "scores")
        if bias is not None:
            scores = rounded(scores + ops.cast(bias, scores.dtype), self, "biased_scores")
        probabilities = rounded(ops.softmax(scores, axis=-1), self, "probabilities")
        context = rounded(attention_context(probabilities, value), self, "context")
        outputs = self.output_projection(merge_heads(context))
        return outputs if cache is None else (outputs, cache)

    def training_context(self, inputs, source, bias, seed, rotary=None):
        """What the output projection reads, by the kernels that train fastest: [B, S, D] -> [B, S, N*H].

        Arguments as in `call`; the bias gets no gradient.
        """
        if source is None:
            query, key, value = self._fused_projection(inputs)
        else:
            # Said aloud: a backward pass that computes this again stands in no call of a layer that would say so.
            query = split_heads(self.query(inputs, training=True) * self.scale, self.num_heads)
            key, value = self._key_value(source)
        if rotary is not None:
            query, key = rotate(query, *rotary), rotate(key, *rotary)
        if self.adapter is not None:
            key, value, bias = self.adapter.prefixed(key, value, bias)
        if self.num_key_value_heads != self.num_heads:
            value = ops.repeat(value, self.num_heads // self.num_key_value_heads, axis=1)
        return merge_heads(kernels.attend(attention_scores(query, key), bias, value, self.dropout, seed))

    def _key_value(self, source, project=None):
        project = project or (lambda layer: layer(source, training=True))
        return tuple(split_heads(project(layer), self.num_key_value_heads) for layer in (self.key, self.value))

    def _fused_projection(self, inputs):
        # One product in place of three reads the input once, and its gradient needs no sum of three.
        layers = (self.query, self.key, self.value)
        bias = ops.concatenate([layer.bias for layer in layers]) if self.use_bias else None
        heads = (self.num_heads, self.num_key_value_heads, self.num_key_value_heads)
        return kernels.split_heads(low_rank.product(inputs, layers), bias, heads, self.head_size, self.scale)

    def compute_output_spec(self, inputs, *args, cache=None, **kwargs):
        outputs = keras.KerasTensor(inputs.shape, dtype=self.compute_dtype)
        return outputs if cache is None else (outputs, cache_spec(cache))

    def get_config(self):
        return {
            **super().get_config(),
            "num_heads": self.num_heads,
            "head_size": self.head_size,
            "num_key_value_heads": self.num_key_value_heads,
            "use_bias": self.use_bias,
            "output_bias": self.output_bias,
            "scale": self.scale,
            "dropout": self.dropout,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
        }
