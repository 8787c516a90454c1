"""One block of a Transformer encoder."""

from __future__ import annotations

import keras
from keras import ops

from tfxformer.layers.adapters.base import adapter_seed
from tfxformer.layers.kernels import formulas as kernels
from tfxformer.layers.kernels.recomputing import recomputed
from tfxformer.layers.normalization import one_hot
from tfxformer.layers.quantization.fake_quantization import in_force, rounded, rounding, rounds
from tfxformer.layers.quantization.graph_form import DEFAULT, GraphForm, chosen
from tfxformer.layers.quantization.outlier_channels import channels_apart
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

    def call(self, inputs, bias=None, first_only=False, source=None, training=None, graph_form: GraphForm = DEFAULT):
        seeds = self._seeds(training)
        if training and self.gradient_checkpointing:
            streams, quantization = (inputs,) if source is None else (inputs, source), in_force()

            def transform(x, source=None):
                with rounding(quantization):  # the second run, in the backward pass, stands in no call of the model
                    return self._transform(x, source, bias, first_only, seeds, training, graph_form)

            return recomputed(self, transform, *streams)
        return self._transform(inputs, source, bias, first_only, seeds, training, graph_form)

    def _transform(self, x, source, bias, first_only, seeds, training, graph_form):
        with adapter_seed(seeds[-1]):
            return self._halves(x, source, bias, first_only, seeds, training, graph_form)

    def _halves(self, x, source, bias, first_only, seeds, training, graph_form):
        graph_form = in_force().graph_form if rounds(self) else chosen(graph_form)
        stream = x[:, :1] if first_only else x
        post = (self.norm_position, self.norm) == ("post", "layer")
        if training and post and not self.stochastic_depth and not rounds(self):
            return self._train_post(stream, x if first_only else source, bias, seeds)

        def attend(norm):
            query, attended = norm(x), None if source is None else norm(source)
            if first_only:
                query, attended = query[:, :1], query
            y = self.self_attention(
                query, source=attended, bias=bias, training=training, seed=seeds[0], graph_form=graph_form
            )
            return self._regularize(y, seeds[1], seeds[2])

        def feed_forward(y):
            return self._regularize(self.feed_forward(y, training=training, graph_form=graph_form), seeds[3], seeds[4])

        if self.norm_position == "pre":
            stream = rounded(
                stream + attend(lambda y: self.attention_norm(y, graph_form=graph_form)), self, "attention_sum"
            )
            half = feed_forward(self.feed_forward_norm(stream, graph_form=graph_form))
            return rounded(stream + half, self, "feed_forward_sum")
        stream = self.attention_norm(stream + attend(lambda y: y), graph_form=graph_form)
        channels = channels_apart(self.feed_forward_norm, graph_form)
        if channels is not None and not self.feed_forward.output_projection.followed:  # an adapter wants them all
            halves = self.feed_forward(stream, graph_form=graph_form, channels=channels)
            halves = (self._regularize(half, seeds[3], seeds[4]) for half in halves)
            return self._norm_apart(stream, channels, *halves)
        return self.feed_forward_norm(stream + feed_forward(stream), graph_form=graph_form)

    def _norm_apart(self, stream, channels, others, outliers):
        """The norm of a sum whose second part comes in two: `channels` alone, and the others."""
        place = one_hot(channels, stream.shape[-1])
        others += rounded(stream * ops.cast(1.0 - place.sum(axis=0), stream.dtype), self, "others")
        outliers += rounded(ops.matmul(stream, ops.cast(place.T, stream.dtype)), self, "outliers")
        return self.feed_forward_norm(others, outliers=outliers, channels=channels)

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
