"""Channels of a residual sum that are far larger than the others, computed apart where one scale would cover all.

In a trained encoder one channel of one token, behind a feed-forward half, may be a hundred times larger than anything
else (Sun et al., 2024, arXiv:2402.17762). A file that computes in int8 has one scale for a tensor, and rounds all other
channels to a few levels. Here such channels leave the half by a small product of their own, and come back behind the
norm, where nothing is large any more. The function is the same.

Shape letters: B batch, S sequence length, D model width, F feed-forward width, K channels apart.
"""

from __future__ import annotations

import numpy as np
from keras import ops

from tfxformer.layers.quantization.fake_quantization import RangeObserver
from tfxformer.layers.quantization.graph_form import GraphForm

OUTLIER_RATIO = 5.0  # of a channel's largest magnitude to the median channel's, from which on it is computed apart
MOST_CHANNELS = 8  # of one sum


class ChannelObserver(RangeObserver):
    """Learns in eager calls which channels are to be computed apart.

    Args:
        layers: those that are watched.
        graph_form: GraphForm, how blocks are written.
    """

    def __init__(self, layers, graph_form: GraphForm):
        super().__init__(layers, graph_form)
        self._largest = {}

    def rounded(self, x, layer, name: str):
        if name == "inputs" and layer.path.endswith("feed_forward_norm"):
            largest = np.abs(ops.convert_to_numpy(x)).reshape(-1, x.shape[-1]).max(axis=0, initial=0.0)  # -> [D]
            self._largest[layer.path] = np.maximum(largest, self._largest.get(layer.path, 0.0))
        return x

    def channels_apart(self) -> tuple:
        """What `GraphForm.channels_apart` takes."""
        found = ((path, choose_channels(largest)) for path, largest in self._largest.items())
        return tuple((path, channels) for path, channels in found if channels)


def choose_channels(largest: np.ndarray) -> tuple[int, ...]:
    """The channels, ascending, that are far larger than the others, of the largest magnitude of each [D]."""
    order = np.argsort(-largest, kind="stable")[:MOST_CHANNELS]
    return tuple(sorted(int(i) for i in order if largest[i] > OUTLIER_RATIO * np.median(largest)))


def channels_apart(norm, graph_form: GraphForm):
    """The channels of a norm's input that are computed apart: tuple of int, or None."""
    return dict(graph_form.channels_apart).get(norm.path)
