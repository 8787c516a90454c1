"""One block of a Transformer encoder."""

from __future__ import annotations

import keras

from tfxformer.layers import kernels
from tfxformer.layers.adapters import adapter_seed
from tfxformer.layers.checkpointing import recomputed
from tfxformer.layers.numerics import DEFAULT, Numerics
from tfxformer.layers.transformer_block import TransformerBlock


@keras.saving.register_keras_serializable("tfxformer")
class EncoderBlock(TransformerBlock):
    """Self-attention and feed-forward, each with dropout, a residual sum and a norm; see `TransformerBlock`.

    Call:
        inputs: [B, S, D].
        bias: additive attention bias, broadcastable to [B, N, S, S].
        first_only: bool, compute the first position alone (it still attends to all): what a classifier reads of the
            last block, at a fraction of its cost.
        source: [B, T, D], what is attended to in place of `inputs` (two-stream attention); the bias is then
            [B, N, S, T].

    Returns:
        [B, S, D], or [B, 1, D] with `first_only`.
    """

    norm_positions = ("post", "pre")

    def call(self, inputs, bias=None, first_only=False, source=None, training=None, numerics: Numerics = DEFAULT):
        seeds = self._seeds(training)
        if training and self.gradient_checkpointing:
            streams = (inputs,) if source is None else (inputs, source)

            def transform(x, source=None):
                return self._transform(x, source, bias, first_only, seeds, training, numerics)

            return recomputed(self, transform, *streams)
        return self._transform(inputs, source, bias, first_only, seeds, training, numerics)

    def _transform(self, x, source, bias, first_only, seeds, training, numerics):
        with adapter_seed(seeds[-1]):
            return self._halves(x, source, bias, first_only, seeds, training, numerics)

    def _halves(self, x, source, bias, first_only, seeds, training, numerics):
        stream = x[:, :1] if first_only else x
        if training and (self.norm_position, self.norm) == ("post", "layer") and not self.stochastic_depth:
            return self._train_post(stream, x if first_only else source, bias, seeds)

        def attend(norm):
            query, attended = norm(x), None if source is None else norm(source)
            if first_only:
                query, attended = query[:, :1], query
            y = self.self_attention(
                query, source=attended, bias=bias, training=training, seed=seeds[0], numerics=numerics
            )
            return self._regularize(y, seeds[1], seeds[2])

        def feed_forward(y):
            return self._regularize(self.feed_forward(y, training=training, numerics=numerics), seeds[3], seeds[4])

        if self.norm_position == "pre":
            stream = stream + attend(lambda y: self.attention_norm(y, numerics=numerics))
            return stream + feed_forward(self.feed_forward_norm(stream, numerics=numerics))
        stream = self.attention_norm(stream + attend(lambda y: y), numerics=numerics)
        return self.feed_forward_norm(stream + feed_forward(stream), numerics=numerics)

    def _train_post(self, x, source, bias, seeds):
        """The same block, its bias, dropout, sum and norm in one kernel each."""
        context = self.self_attention.training_context(x, source, bias, seeds[0])
        x = self._add_norm(context, self.self_attention.output_projection, x, self.attention_norm, seeds[1])
        inner = self.feed_forward.inner(x, training=True)
        return self._add_norm(inner, self.feed_forward.output_projection, x, self.feed_forward_norm, seeds[3])

    def _add_norm(self, inputs, projection, residual, norm, seed):
        product, bias = projection.product_and_bias(inputs)
        return kernels.add_norm(product, residual, norm.gamma, norm.beta, norm.epsilon, bias, self.dropout, seed)

    def compute_output_spec(self, inputs, *args, first_only=False, **kwargs):
        length = 1 if first_only else inputs.shape[1]
        return keras.KerasTensor((inputs.shape[0], length, inputs.shape[2]), dtype=self.compute_dtype)
