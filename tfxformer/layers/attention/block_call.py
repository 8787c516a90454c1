"""What a call of a block says beside its streams."""

from __future__ import annotations

from typing import NamedTuple

from keras import ops

from tfxformer.layers.attention.masks import Seen
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


def arguments_of(seen: Seen | None) -> dict:
    """As arguments of a call of `Attention`."""
    return {} if seen is None else seen._asdict()
