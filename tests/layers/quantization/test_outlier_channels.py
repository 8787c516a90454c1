"""Outlier channels computed apart: the function stays, and nothing shares a scale with them."""

import dataclasses

import numpy as np
import pytest
import tiny

from tfxformer.layers.quantization import observing
from tfxformer.layers.quantization.graph_form import STATIC_INT8
from tfxformer.layers.quantization.outlier_channels import choose_channels


def planted(**changes):
    """An encoder whose first feed-forward half makes one channel far larger than the others."""
    model = tiny.backbone("bert", **changes)
    for weight in model.weights:
        if weight.path.endswith("encoder_block_0/feed_forward/output/kernel"):
            values = np.array(weight)
            values[:, 7] *= 60
            weight.assign(values)
    return model


def largest(quantization, model, name, suffix):
    """The largest magnitude of what the layer at a path rounds under a name."""
    (layer,) = [layer for layer in model._flatten_layers() if (layer.path or "").endswith(suffix)]
    return max(map(abs, quantization.ranges[id(layer), name]))


def test_the_function_stays_and_the_others_have_a_scale_of_their_own():
    model, batch = planted(), tiny.batch()
    written = observing.with_outliers_apart(model, [batch], STATIC_INT8)
    assert written.channels_apart == (("encoder_block_0/feed_forward_norm", (7,)),)
    wanted = model.forward(batch, dataclasses.replace(STATIC_INT8, layer_norm="fused"))["sequence_output"]
    found = model.forward(batch, written)["sequence_output"]
    np.testing.assert_allclose(found, wanted, atol=2e-5)
    norm = "encoder_block_0/feed_forward_norm"
    ranges = {
        name: observing.observe_ranges(model, [batch], graph_form)
        for name, graph_form in (("together", STATIC_INT8), ("apart", written))
    }
    together = largest(ranges["together"], model, "inputs", norm)
    assert largest(ranges["apart"], model, "inputs", norm) < together / 5
    assert largest(ranges["apart"], model, "outliers", norm) == pytest.approx(together, rel=1e-4)


def test_a_model_without_outliers_is_written_as_before():
    assert observing.with_outliers_apart(tiny.backbone("bert"), [tiny.batch()], STATIC_INT8) == STATIC_INT8


def test_channels_are_chosen_by_the_median_and_are_few():
    assert choose_channels(np.ones(32)) == ()
    assert choose_channels(np.zeros(32)) == ()
    some = np.ones(32)
    some[[3, 30]] = 5.1, 40.0
    some[4] = 4.9
    assert choose_channels(some) == (3, 30)
    many = np.concatenate([np.ones(32), np.full(20, 90.0)])
    assert len(choose_channels(many)) == 8
