"""What a call of a block says beside its streams."""

from __future__ import annotations

from typing import NamedTuple

from keras import ops

from tfxformer.layers.adapters.base import adapted_layers
from tfxformer.layers.attention.masks import Seen
from tfxformer.layers.kernels.dropout import split_seeds
from tfxformer.layers.quantization.graph_form import GraphForm


class BlockCall(NamedTuple):
    """See `TransformerBlock`; `seen` and `source_seen` are what `bias` and `source_bias` say, or None."""

    bias: object
    rotary: object
    position: object
    attended_rotary: object
    source_bias: object
    seen: Seen | None
    source_seen: Seen | None
    source_cache: object
    first_only: bool
    seeds: list
    training: bool | None
    graph_form: GraphForm
    segments: object = None

    def of_first(self, scores) -> tuple:
        """(rotary, attended_rotary, bias, scores) of what is computed, all positions or the first one alone."""
        if not self.first_only:
            return self.rotary, self.attended_rotary, self.bias, scores
        first = None if self.rotary is None else tuple(x[:, :, :1] for x in self.rotary)
        keys = self.rotary if self.attended_rotary is None else self.attended_rotary
        return first, keys, _first_row(self.bias), _first_row(scores)


def _first_row(x):
    if x is not None and len(x.shape) == 2:  # embeddings of distances: from the first query there are later keys only
        return x[ops.shape(x)[0] // 2 :]
    return x if x is None or x.shape[2] == 1 else x[:, :, :1]  # a whole slice is an operator, too


def seeds_of(block, training) -> list:
    """What a call of a block draws; outside of what a checkpointed backward pass runs again.

    Drawn inside, the second run would drop other units than the first and the gradient would be silently wrong.
    """
    count = (8 if block.has_cross_attention else 5) + 1  # the last one is for the adapters
    adapters = any(layer.adapter.rate for layer in adapted_layers(block))
    inner = (block.self_attention or block.mixer).dropout
    if not training or not (block.dropout or block.stochastic_depth or inner or adapters):
        return [None] * count
    return split_seeds(block.seed_generator.next(), count)


def arguments_of(seen: Seen | None) -> dict:
    """As arguments of a call of `Attention`."""
    return {} if seen is None else seen._asdict()
