"""What a model computes on some texts, watched to write it for int8: `fake_quantization`, `outlier_channels`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from keras import ops, tree

from tfxformer.layers.quantization.fake_quantization import FakeQuantization, RangeObserver, rounding
from tfxformer.layers.quantization.graph_form import GraphForm, written
from tfxformer.layers.quantization.outlier_channels import ChannelObserver


def with_outliers_apart(model, batches: Iterable[dict], graph_form: GraphForm) -> GraphForm:
    """The form with the channels that batches ask to be computed apart.

    Args:
        model: a task, a backbone, or a model of anybody's around them.
        batches: what it is called with, such as dicts of int32 [B, S].
    """
    observer = ChannelObserver(_layers(model), graph_form)
    _watch(model, batches, observer)
    return replace(graph_form, channels_apart=observer.channels_apart())


def observe_ranges(model, batches: Iterable[dict], graph_form: GraphForm) -> FakeQuantization:
    """What rounds the model in the ranges that batches have; arguments as `with_outliers_apart` has them."""
    observer = RangeObserver(_layers(model), graph_form)
    _watch(model, batches, observer)
    return observer.fake_quantization()


def _layers(model) -> list:
    return [layer for layer in model._flatten_layers() if layer is not model]


def _watch(model, batches, observer) -> None:
    with rounding(observer), written(observer.graph_form):
        for batch in batches:
            model(tree.map_structure(ops.convert_to_tensor, batch))
