"""A block whose attention and feed-forward halves stand in a narrower stream than that between blocks.

Shape letters: B batch, S query length, D width of the stream between blocks, E that inside of the block.
"""

from __future__ import annotations

import keras

from tfxformer.layers.adapters.base import adapter_seed
from tfxformer.layers.attention.block_call import arguments_of
from tfxformer.layers.blocks.block import TransformerBlock
from tfxformer.layers.dense import Dense
from tfxformer.layers.feed_forward import FeedForward
from tfxformer.layers.quantization.equalization import equalized
from tfxformer.layers.quantization.graph_form import call_written


@keras.saving.register_keras_serializable("tfxformer")
class BottleneckBlock(TransformerBlock):
    """`TransformerBlock` between two projections, D -> E and E -> D, with several feed-forward halves one by one.

    Args:
        attention, feed_forward: dicts of arguments, as `TransformerBlock` has them.
        bottleneck_size: int E.
        feed_forwards: int, the feed-forward halves, each with its residual sum and norm.
        own_queries: bool, whether queries and keys are made from a projection D -> E of their own, and values from the
            whole stream; else all three from the one that the residual sum starts with.
        others: see `TransformerBlock`; the norm's placement is "post", and dropout is on the block's output.

    Call: as `TransformerBlock`, without a cache, a source and tokens attended to in place of the inputs.

    Source: Sun et al., 2020 (arXiv:2004.02984).
    """

    def __init__(self, attention, feed_forward, bottleneck_size=128, feed_forwards=1, own_queries=True, **kwargs):
        super().__init__(attention, feed_forward, **kwargs)
        if self.norm_placement != "post" or self.has_cross_attention:
            raise ValueError('A block with a bottleneck has norm_placement="post" and no cross-attention.')
        self.bottleneck_size = bottleneck_size
        self.feed_forwards = feed_forwards
        self.own_queries = own_queries

    def build(self, input_shape):
        width, inner = input_shape[-1], self.bottleneck_size
        names = ["input", "queries"] if self.own_queries else ["input"]
        for name in names:
            self._project(name, width, inner)
        self._project("output", inner, width)
        if self.own_queries:
            self.attention_given = {**self.attention_given, "value_input_size": width}
        for index in range(self.feed_forwards - 1):
            name = f"feed_forward_{index}"
            setattr(self, name, FeedForward(**self.feed_forward_given, dtype=self.dtype_policy, name=name))
            setattr(self, f"{name}_norm", self._norm(f"{name}_norm"))
        super().build((*input_shape[:-1], inner))

    def _project(self, name: str, width: int, units: int) -> None:
        """Makes a projection and its norm, of which the parent would build neither at its width."""
        dense = Dense(
            units,
            kernel_initializer=self.feed_forward_given.get("kernel_initializer", "glorot_uniform"),
            dtype=self.dtype_policy,
            name=f"bottleneck_{name}",
        )
        norm = self._norm(f"bottleneck_{name}_norm")
        dense.build((None, None, width))
        norm.build((None, None, units))
        setattr(self, f"bottleneck_{name}", dense)
        setattr(self, f"bottleneck_{name}_norm", norm)

    def _transform(self, call, x, cache=None, scores=None, attended=None, source=None):
        """([B, S, D], None)."""
        if cache is not None or attended is not None or source is not None:
            raise ValueError("A block with a bottleneck has no cache, and attends to its own inputs alone.")
        form, training = call.graph_form, call.training
        with adapter_seed(call.seeds[-1]):
            own = ("queries",) if self.own_queries else ()
            project = equalized(x, tuple(getattr(self, f"bottleneck_{name}") for name in ("input", *own)), form)
            low = queries = self._normed_projection(project, "input", form)
            if own:
                queries = self._normed_projection(project, "queries", form)
            first = slice(None, 1) if call.first_only else slice(None)
            rotary, _, bias, scores = call.of_first(scores)
            half = self.self_attention(
                queries[:, first], source=queries, values=x if self.own_queries else None, bias=bias, rotary=rotary,
                source_rotary=call.rotary, scores=scores, training=training, seed=call.seeds[0], graph_form=form,
                **arguments_of(call.seen),
            )  # fmt: skip
            low = self._add(call, "attention", low[:, first], half)
            for name in (*(f"feed_forward_{index}" for index in range(self.feed_forwards - 1)), "feed_forward"):
                low = self._add(call, name, low, getattr(self, name)(low, training=training, graph_form=form))
            project = equalized(low, (self.bottleneck_output,), form)
            half = self._regularize(project(self.bottleneck_output), call.seeds[3], call.seeds[4])
            return self._add(call, "bottleneck_output", x[:, first], half), None

    def _normed_projection(self, project, name: str, form):
        return call_written(
            getattr(self, f"bottleneck_{name}_norm"), project(getattr(self, f"bottleneck_{name}")), graph_form=form
        )

    def get_config(self):
        return {
            **super().get_config(),
            "bottleneck_size": self.bottleneck_size,
            "feed_forwards": self.feed_forwards,
            "own_queries": self.own_queries,
        }
