"""Attention: self, cross, grouped and cached are one layer.

Shape letters: B batch, S query length, T key length, N query heads, G key/value heads, H head width, D model width.
"""

from __future__ import annotations

import keras
from keras import ops

from tfxformer.arguments.keywords import KnownKeywords
from tfxformer.layers.adapters import low_rank
from tfxformer.layers.attention.cache import cache_spec, first_slots, update_cache
from tfxformer.layers.attention.disentangled import CONTENT_TO_POSITION, POSITION_TO_CONTENT, TERMS, distance_scores
from tfxformer.layers.attention.masks import MaskPattern, Seen, cached_visibility, hidden_bias, keras_mask, own_bias
from tfxformer.layers.attention.products import attention_context, attention_scores, merge_heads, split_heads
from tfxformer.layers.attention.relative_terms import RelativeTerms
from tfxformer.layers.attention.rotary import rotate
from tfxformer.layers.dense import child_dense
from tfxformer.layers.kernels import formulas as kernels
from tfxformer.layers.kernels import fused_attention
from tfxformer.layers.normalization import RMS, RMS_NORMS, make_norm
from tfxformer.layers.quantization.equalization import equalized
from tfxformer.layers.quantization.fake_quantization import rounded, rounds
from tfxformer.layers.quantization.graph_form import DEFAULT, GraphForm, WrittenLayer

QUERY_KEY_NORMS = ("head", "whole")


@keras.saving.register_keras_serializable("tfxformer")
class Attention(WrittenLayer, KnownKeywords, keras.layers.Layer):
    """Multi-head attention from plain Dense layers (Vaswani et al., 2017, arXiv:1706.03762).

    Dense kernels stay two-dimensional, so that pruning, adapters and LiteRT's FULLY_CONNECTED see them.

    Args:
        num_heads: int N, query heads.
        head_size: int H, width of a head.
        num_key_value_heads: int G or None (N): grouped heads (Ainslie et al., 2023, arXiv:2305.13245).
        use_bias: bool, biases on the projections of query, key and value.
        output_bias: bool or None (`use_bias`), bias on the output projection.
        key_bias: bool or None (`use_bias`), bias on the keys' projection.
        scale: float, what queries are multiplied by; None for H ** -0.5.
        dropout: float, dropout rate of the attention probabilities.
        kernel_initializer: initializer of the four kernels.
        query_initializer: initializer of the query's; None for that of the others.
        query_key_norm: None; "head", RMS norms of each head's queries and keys; or "whole", of all heads' together.
        norm_epsilon: float, epsilon of these norms.
        norm: kind of these norms, "rms" or "zero_centred_rms".
        position_terms: what embeddings of distances are compared with, of `disentangled.TERMS`: queries
            ("content_to_position"), keys ("position_to_content").
        position_projections: bool, whether distances have projections of their own; else those of keys and queries.
        relative_terms: None; or "distances", contents and distances are compared with queries that have a bias of their
            own for each, or "segments", and so are segments (`relative_terms.RelativeTerms`).
        value_input_size: int, width of what values are made of, where a call gives `values`; None for that of keys.
        clip: None, or float c: queries, keys and values are kept within -c and c, before they are normed and turned.
        soft_cap: None, or float c: scores become c * tanh(scores / c) before the bias is added.
        gated: bool, whether the heads' outputs are multiplied by the sigmoid of a Dense of the inputs (Qwen3.5).

    Call:
        inputs: [B, S, D].
        source: [B, T, D], what is attended to; None for self-attention.
        segments: int [B, T], those of the keys, of which the first are the queries', too; see `relative_terms`.
        values: [B, T, width], what values are made of, beside a source; None for the source.
        bias: additive, broadcastable to [B, N, S, T]; it gets no gradient. One for fewer keys than a cache has slots
            has only the first ones read, as many as it is for. None for that of the masks and of `causal`.
        mask, source_mask: bool [B, S] and [B, T], True at real tokens; None for the masks of Keras layers such as
            `Embedding(mask_zero=True)`. Not read where a bias is given.
        rotary: None, or the (cosine, sine) by which queries and keys are turned (`layers.rotary`).
        source_rotary: the same for the keys of a source.
        scores: additive, broadcastable to [B, N, S, T]; gradients flow to it (`layers.position_scores`). With
            `position_terms` the embeddings of all distances, [S + T - 1, D] (`layers.disentangled`).
        cache: None, or (keys [B, G, T, H], values [B, G, H, T]) to read, after writing at `position` unless
            `position` is None (a finished cache, as cross-attention has it; `source` is then not read).
        causal: bool, whether tokens see themselves and earlier ones only. Not read where a bias is given.
        padding_mask, pattern: what a given bias says, if it says nothing else: int [B, T] or None, and the
            `masks.MaskPattern` of it; None for a bias that says more. With it kernels that take no bias train.
        seed: uint32 [2], the dropout seed; None for the next of the layer's own generator.

    Returns:
        [B, S, D], or with a cache ([B, S, D], new cache).

    Attributes:
        adapter: `prefix.Prefix`, or None. With one every query sees its keys first; no cache holds them.
        own_seeds: bool, True; set to False before it is built by a layer that gives the seeds.

    Raises ValueError for heads that make no whole groups, and for an unknown norm of queries and keys.
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
        query_key_norm=None,
        norm_epsilon=1e-6,
        soft_cap=None,
        query_initializer=None,
        norm=RMS,
        position_terms=(),
        position_projections=False,
        key_bias=None,
        value_input_size=None,
        relative_terms=None,
        clip=None,
        gated=False,
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
        if query_key_norm not in (None, *QUERY_KEY_NORMS):
            raise ValueError(f"Unknown query_key_norm {query_key_norm!r}; known: None, {', '.join(QUERY_KEY_NORMS)}.")
        if norm not in RMS_NORMS:
            raise ValueError(f"Unknown norm of queries and keys {norm!r}; known: {', '.join(RMS_NORMS)}.")
        self.use_bias = use_bias
        self.output_bias = use_bias if output_bias is None else output_bias
        self.key_bias = use_bias if key_bias is None else key_bias
        self.scale = head_size**-0.5 if scale is None else scale
        self.dropout = dropout
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.query_initializer = keras.initializers.get(query_initializer)
        self.query_key_norm = query_key_norm
        self.norm_epsilon = norm_epsilon
        self.norm = norm
        self.soft_cap = soft_cap
        self.clip = clip
        self.position_terms = tuple(position_terms)
        self.position_projections = position_projections
        self.value_input_size = value_input_size
        self.relative_terms = relative_terms
        self.gated = gated
        self.adapter = None
        self.own_seeds = True
        self.supports_masking = True

    @property
    def adapted_shape(self) -> tuple[int, int]:
        """The (D, G * H) that an adapter of this layer is built for, the shape of the keys' kernel."""
        return self.key.adapted_shape

    def build(self, input_shape):
        # The same path whoever builds it: projections are children, built with the input's width.
        width = input_shape[-1]
        self.query = child_dense(
            self, "query", self.num_heads * self.head_size, width, kernel_initializer=self.query_initializer
        )
        self.gate = child_dense(self, "gate", self.num_heads * self.head_size, width) if self.gated else None
        self.key = child_dense(self, "key", self.num_key_value_heads * self.head_size, width, self.key_bias)
        values = self.value_input_size or width
        self.value = child_dense(self, "value", self.num_key_value_heads * self.head_size, values)
        self.output_projection = child_dense(self, "output", width, self.num_heads * self.head_size, self.output_bias)
        self.position_key, self.position_query = self.key, self.query
        own = (("position_key", self.key_bias), ("position_query", self.use_bias))
        for term, (name, bias) in zip(TERMS, own, strict=True):
            if self.position_projections and term in self.position_terms:
                setattr(self, name, child_dense(self, name, self.num_heads * self.head_size, width, bias))
        self.relative = None
        if self.relative_terms is not None:
            sizes, segments = (self.num_heads, self.head_size), self.relative_terms == "segments"
            arguments = {"initializer": self.kernel_initializer, "dtype": self.dtype_policy, "name": "relative"}
            self.relative = RelativeTerms(*sizes, segments, **arguments)
            self.relative.build()
        self.query_norm = self._head_norm("query_norm", self.num_heads)
        self.key_norm = self._head_norm("key_norm", self.num_key_value_heads)
        self.seed_generator = keras.random.SeedGenerator() if self.dropout and self.own_seeds else None

    def _head_norm(self, name, heads):
        if self.query_key_norm is None:
            return None
        norm = make_norm(self.norm, self.norm_epsilon, self.dtype_policy, name)
        norm.build((None, self.head_size * (heads if self.query_key_norm == "whole" else 1)))
        return norm

    def call(
        self,
        inputs,
        source=None,
        bias=None,
        rotary=None,
        cache=None,
        position=None,
        mask=None,
        source_mask=None,
        source_rotary=None,
        scores=None,
        causal=False,
        padding_mask=None,
        pattern: MaskPattern | None = None,
        values=None,
        segments=None,
        training=None,
        seed=None,
        graph_form: GraphForm = DEFAULT,
    ):
        seen = None if pattern is None else Seen(padding_mask, pattern)
        if bias is None:
            bias, seen = self.bias_of(inputs, source, cache, position, mask, source_mask, causal, graph_form)
        source_rotary = rotary if source is None else source_rotary
        if training and cache is None and not rounds(self):
            context = self.training_context(
                inputs, source, bias, seed, rotary, source_rotary, scores, seen, values, segments
            )
            return self.output_projection(context)
        readers = (self.key, self.value) if values is None else (self.key,)
        # What a finished cache was made of is not read here: the query alone reads the inputs, as beside a source.
        alone = source is not None or (cache is not None and position is None)
        own = (self.query, self.gate) if self.gated else (self.query,)
        project = equalized(inputs, own if alone else (*own, *readers), graph_form)
        gate = project(self.gate) if self.gated else None
        query = self._turned(self._query(project), rotary, "query")
        if cache is None or position is not None:
            if source is not None:
                project = equalized(source, readers, graph_form)
            of_values = project if values is None else equalized(values, (self.value,), graph_form)
            key, value = self._key_value(project, of_values)
            key = self._turned(key, source_rotary, "key")
        if cache is not None:
            if position is not None:
                cache = update_cache(cache, key, value, position)
            key, value = first_slots(cache, bias)
            value = ops.transpose(value, (0, 1, 3, 2))  # [B, G, H, T] -> [B, G, T, H]
        if self.adapter is not None:
            key, value, bias = self.adapter.prefixed(key, value, bias)
        probabilities = self.probabilities(query, key, scores, bias, training, segments)
        context = rounded(attention_context(probabilities, value), self, "context")
        outputs = self.output_projection(self._passed(merge_heads(context), gate))
        return outputs if cache is None else (outputs, cache)

    def probabilities(self, query, key, scores=None, bias=None, training=None, segments=None):
        """What queries [B, N, S, H] read of keys [B, G, T, H], the softmax of their scores: [B, N, S, T]."""
        products = self._scores(query, key, scores, training, segments)
        if bias is not None:
            products = rounded(products + ops.cast(bias, products.dtype), self, "biased_scores")
        return rounded(ops.softmax(products, axis=-1), self, "probabilities")

    def finished_cache(self, source, graph_form: GraphForm = DEFAULT):
        """The cache of cross-attention: (keys [B, G, T, H], values [B, G, H, T]) of a source [B, T, D]."""
        project = equalized(source, (self.key, self.value), graph_form)
        key, value = self._key_value(project, project)
        return key, ops.transpose(value, (0, 1, 3, 2))

    def bias_of(self, inputs, source, cache, position, mask, source_mask, causal, graph_form):
        """The bias of a call that was given none, and what it says (`Seen`; None on a cache); arguments as `call`'s."""
        if cache is None:
            attended, mask = (inputs, mask) if source is None else (source, source_mask)
            mask = keras_mask(attended, mask)
            seen = Seen(None if mask is None else ops.cast(mask, "int32"), MaskPattern(causal, packed=causal))
            return own_bias(attended, mask, causal, graph_form, self.compute_dtype), seen
        if not causal or position is None:
            return None, None
        slots = position + ops.arange(ops.shape(inputs)[1])
        visible = cached_visibility(slots, cache[0].shape[2])
        return hidden_bias(visible, graph_form.mask_value, self.compute_dtype), None

    def projected(self, name: str, x, rotary=None):
        """Queries ("query"), keys or values as the scores have them, but for the scale: [B, S, D] -> [B, S, n * H]."""
        x = self._clipped(getattr(self, name)(x))
        if name == "value":
            return x
        norm, heads = (
            (self.query_norm, self.num_heads) if name == "query" else (self.key_norm, self.num_key_value_heads)
        )
        return merge_heads(self._turned(self._normed(norm, x, heads), rotary, name))

    def _query(self, project):
        query = self._clipped(project(self.query))
        if self.query_norm is None:
            return split_heads(query * self.scale, self.num_heads)
        return self._normed(self.query_norm, query, self.num_heads) * self.scale

    def _clipped(self, x):
        return x if self.clip is None else ops.clip(x, -self.clip, self.clip)

    def _normed(self, norm, x, heads, training=None):
        """The heads [B, n, S, H] of queries or keys [B, S, n * H], normed; None for no norm."""
        if norm is None:
            return split_heads(x, heads)
        if self.query_key_norm == "whole":
            return split_heads(norm(x, training=training), heads)
        return norm(split_heads(x, heads), training=training)

    def _passed(self, context, gate):
        """The heads' outputs [B, S, N * H] that a gate lets through; all without one."""
        return context if gate is None else rounded(context * ops.sigmoid(gate), self, "gated_context")

    def _turned(self, x, rotary, name):
        return x if rotary is None else rounded(rotate(x, *rotary), self, f"turned_{name}")

    def _scores(self, query, key, scores, training=None, segments=None):
        if self.relative is not None:
            of_distances = split_heads(self.position_key(scores[None], training=training), self.num_heads)
            return self.relative(query, key, of_distances, scale=self.scale, segments=segments)
        products = rounded(attention_scores(query, key), self, "scores")
        if self.soft_cap is not None:
            products = rounded(self.soft_cap * ops.tanh(products / self.soft_cap), self, "capped_scores")
        if scores is None:
            return products
        if self.position_terms:
            scores = self._of_distances(query, key, scores, training)
        return rounded(products + ops.cast(scores, products.dtype), self, "positioned_scores")

    def _of_distances(self, query, key, embeddings, training):
        projections = ((CONTENT_TO_POSITION, self.position_key), (POSITION_TO_CONTENT, self.position_query))
        of_keys, of_queries = (
            split_heads(layer(embeddings[None], training=training), self.num_heads)
            if term in self.position_terms
            else None
            for term, layer in projections
        )
        return distance_scores(query, key, of_keys, of_queries, self.scale, lambda x, name: rounded(x, self, name))

    def training_context(
        self, inputs, source, bias, seed, rotary=None, source_rotary=None, scores=None, seen=None, values=None,
        segments=None,
    ):  # fmt: skip
        """What the output projection reads, by the kernels that train fastest: [B, S, D] -> [B, S, N*H].

        Arguments as in `call`, and what the bias says, `Seen` or None; the bias gets no gradient.
        """
        if seed is None and self.seed_generator is not None:
            seed = self.seed_generator.next()
        if source is None and self.query_norm is self.clip is None:
            query, key, value = self._fused_projection(inputs)
        else:
            # Said aloud: a backward pass that computes this again stands in no call of a layer that would say so.
            query = self._clipped(self.query(inputs, training=True))
            query = self._normed(self.query_norm, query, self.num_heads, True) * self.scale
            source = inputs if source is None else source
            values = source if values is None else values
            key, value = self._key_value(*(lambda layer, x=x: layer(x, training=True) for x in (source, values)), True)
        if rotary is not None:
            query = rotate(query, *rotary)
        if source_rotary is not None:
            key = rotate(key, *source_rotary)
        if self.adapter is not None:
            key, value, bias = self.adapter.prefixed(key, value, bias)
            seen = None  # a pattern knows no prefix
        context = fused_attention.attend(query, key, value, seen, scores, self.soft_cap, self.dropout)
        if context is None:
            if self.num_key_value_heads != self.num_heads:
                value = ops.repeat(value, self.num_heads // self.num_key_value_heads, axis=1)
            products = self._scores(query, key, scores, True, segments)
            context = kernels.attend(products, bias, value, self.dropout, seed)
        return self._passed(merge_heads(context), self.gate(inputs, training=True) if self.gated else None)

    def _key_value(self, project, of_values, training=None):
        key = self._normed(self.key_norm, self._clipped(project(self.key)), self.num_key_value_heads, training)
        return key, split_heads(self._clipped(of_values(self.value)), self.num_key_value_heads)

    def _fused_projection(self, inputs):
        # One product in place of three reads the input once, and its gradient needs no sum of three.
        layers = (self.query, self.key, self.value)
        biases = [ops.zeros(layer.units) if layer.bias is None else layer.bias for layer in layers]
        bias = ops.concatenate(biases) if self.use_bias or self.key_bias else None
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
            "query_key_norm": self.query_key_norm,
            "norm_epsilon": self.norm_epsilon,
            "norm": self.norm,
            "soft_cap": self.soft_cap,
            "clip": self.clip,
            "key_bias": self.key_bias,
            "position_terms": list(self.position_terms),
            "position_projections": self.position_projections,
            "value_input_size": self.value_input_size,
            "relative_terms": self.relative_terms,
            "gated": self.gated,
            "query_initializer": keras.initializers.serialize(self.query_initializer),
        }
