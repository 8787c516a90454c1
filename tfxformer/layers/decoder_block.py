"""One block of a Transformer decoder."""

from __future__ import annotations

import keras

from tfxformer.layers.adapters.base import adapter_seed
from tfxformer.layers.attention.attention import cache_spec
from tfxformer.layers.kernels.recomputing import recomputed
from tfxformer.layers.quantization.graph_form import DEFAULT, GraphForm, chosen
from tfxformer.layers.transformer_block import TransformerBlock


@keras.saving.register_keras_serializable("tfxformer")
class DecoderBlock(TransformerBlock):
    """Self-attention, cross-attention where it is wanted, and feed-forward; see `TransformerBlock`.

    Args:
        cross_attention: bool, whether the block attends to an encoder's output too.
        others: as `TransformerBlock` has them.

    Call:
        inputs: [B, S, D].
        bias: additive bias of self-attention, broadcastable to [B, N, S, T]; it is what makes it causal.
        rotary: None, or (cosine, sine) of the tokens' positions.
        cache: None, or (keys, values) of self-attention, written at `position`.
        position: int32 scalar, the slot of the first token.
        source: [B, T', D], the encoder's output; None once `source_cache` holds its keys and values.
        source_bias: additive bias of cross-attention.
        source_cache: None, or the finished (keys, values) of cross-attention (see `Attention`).

    Returns:
        [B, S, D], or with a cache ([B, S, D], new cache).
    """

    random_draws = 8

    def __init__(self, attention, feed_forward, cross_attention=False, **kwargs):
        super().__init__(attention, feed_forward, **kwargs)
        if cross_attention and self.norm_position == "parallel":
            raise ValueError('A block with cross-attention cannot have norm_position="parallel".')
        self.has_cross_attention = cross_attention

    def build(self, input_shape):
        super().build(input_shape)
        if self.has_cross_attention:
            self.cross_attention = self._attention("cross_attention")
            self.cross_attention_norm = self._norm("cross_attention_norm")
            self.cross_attention.build(input_shape)
            self.cross_attention_norm.build(input_shape)

    def call(
        self,
        inputs,
        bias=None,
        rotary=None,
        cache=None,
        position=None,
        source=None,
        source_bias=None,
        source_cache=None,
        training=None,
        graph_form: GraphForm = DEFAULT,
    ):
        seeds, graph_form = self._seeds(training), chosen(graph_form)

        def attend(x, key_values):
            result = self.self_attention(
                x, bias=bias, rotary=rotary, cache=key_values, position=position, training=training, seed=seeds[0],
                graph_form=graph_form,
            )  # fmt: skip
            x, key_values = (result, None) if key_values is None else result
            return self._regularize(x, seeds[1], seeds[2]), key_values

        def feed_forward(x):
            return self._regularize(self.feed_forward(x, training=training, graph_form=graph_form), seeds[3], seeds[4])

        def attend_to_source(x):
            result = self.cross_attention(
                x, source=source, bias=source_bias, cache=source_cache, training=training, seed=seeds[5],
                graph_form=graph_form,
            )  # fmt: skip
            return self._regularize(result if source_cache is None else result[0], seeds[6], seeds[7])

        def transform(x, key_values=None):
            with adapter_seed(seeds[-1]):
                return self._assemble(x, key_values, attend, attend_to_source, feed_forward, graph_form)

        if training and self.gradient_checkpointing and cache is None:
            return recomputed(self, lambda x: transform(x)[0], inputs)
        outputs, cache = transform(inputs, cache)
        return outputs if cache is None else (outputs, cache)

    def _assemble(self, x, cache, attend, attend_to_source, feed_forward, graph_form):
        """The halves around their norms: ([B, S, D], new cache or None)."""
        if self.norm_position == "post":
            attended, cache = attend(x, cache)
            x = self.attention_norm(x + attended, graph_form=graph_form)
            if self.has_cross_attention:
                x = self.cross_attention_norm(x + attend_to_source(x), graph_form=graph_form)
            return self.feed_forward_norm(x + feed_forward(x), graph_form=graph_form), cache
        attended, cache = attend(self.attention_norm(x, graph_form=graph_form), cache)
        if self.norm_position == "parallel":
            return x + attended + feed_forward(self.feed_forward_norm(x, graph_form=graph_form)), cache
        x = x + attended
        if self.has_cross_attention:
            x = x + attend_to_source(self.cross_attention_norm(x, graph_form=graph_form))
        return x + feed_forward(self.feed_forward_norm(x, graph_form=graph_form)), cache

    def compute_output_spec(self, inputs, *args, cache=None, **kwargs):
        outputs = keras.KerasTensor(inputs.shape, dtype=self.compute_dtype)
        return outputs if cache is None else (outputs, cache_spec(cache))

    def get_config(self):
        return {**super().get_config(), "cross_attention": self.has_cross_attention}
