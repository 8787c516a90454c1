"""Rounding to 4 bits: against least squares solved again for each weight, and against every scale tried."""

import numpy as np
import pytest

from tfxformer.export.quantization import rounding

pytest.importorskip("scipy", reason="comes with the extra [int4]")


def products(outputs=5, inputs=24, rows=40, seed=0):
    """(weights [O, K], inputs [R, K] that go together, as activations do)."""
    generator = np.random.default_rng(seed)
    mixed = generator.normal(size=(rows, inputs)) @ generator.normal(size=(inputs, inputs))
    return generator.normal(size=(outputs, inputs)).astype("float32"), mixed


def solved_again(weights, moments, scales, block):
    """The integers, the rest of a row solved for by least squares after each weight."""
    inputs = weights.shape[1]
    damped = moments + rounding.DAMPING * np.diag(moments).mean() * np.eye(inputs)
    found = np.zeros(weights.shape)
    for row, original in enumerate(weights.astype("float64")):
        fixed = np.zeros(0)
        for column in range(inputs):
            known, rest = slice(0, column), slice(column, inputs)
            moved = np.linalg.solve(damped[rest, rest], damped[rest, known] @ (fixed - original[known]))
            scale = scales[row, column // block]
            found[row, column] = np.clip(np.rint((original[column] - moved[0]) / scale), -8, 7)
            fixed = np.append(fixed, found[row, column] * scale)
    return found


@pytest.mark.parametrize("block", [8, None])
def test_each_weight_is_what_least_squares_asks_for_and_then_rounded(block):
    weights, inputs = products()
    moments = inputs.T @ inputs
    found, scales = rounding.compensated(weights, rounding.Known.of(moments), block)
    assert scales.shape == (5, 3 if block else 1)
    wanted = solved_again(weights, moments, scales, block or 24)
    assert (found == wanted).mean() > 0.97  # float32 beside float64: what lies between two integers may go either way


@pytest.mark.parametrize("block", [8, None])
def test_what_the_products_give_is_nearer_than_by_rounding_each_weight_by_itself(block):
    weights, inputs = products(outputs=32)

    def error(integers, scales):
        kernel = integers * np.repeat(scales, weights.shape[1] // scales.shape[1], axis=1)
        return np.linalg.norm(inputs @ (kernel - weights).T) / np.linalg.norm(inputs @ weights.T)

    alone = error(*rounding.rounded(weights, block))
    together = error(*rounding.compensated(weights, rounding.Known.of(inputs.T @ inputs), block))
    assert together < 0.75 * alone


def test_a_scale_is_the_best_of_those_that_bfloat16_has():
    weights = np.random.default_rng(1).normal(size=(50, 32)).astype("float32")
    found = rounding.group_scales(weights)
    bits = found.view(np.uint32)
    assert not (bits & 0xFFFF).any()

    def error(scale):
        return np.square(np.clip(np.rint(weights / scale), -8, 7) * scale - weights).sum(axis=1)

    tried = [error(np.abs(weights).max(axis=1, keepdims=True) / 7 * factor) for factor in np.linspace(0.5, 1.2, 200)]
    assert (error(found) <= np.min(tried, axis=0) * 1.1).all()
    assert error(found).sum() < 0.95 * error(np.abs(weights).max(axis=1, keepdims=True) / 7).sum()


def test_inputs_that_were_never_seen_and_rows_of_zeros_do_no_harm():
    weights, inputs = products()
    inputs[:, 3] = 0
    weights[2] = 0
    found, scales = rounding.compensated(weights, rounding.Known.of(inputs.T @ inputs), 8)
    assert np.isfinite(scales).all() and (scales > 0).all()
    assert not found[2].any()
    found, scales = rounding.compensated(weights, rounding.Known.of(np.zeros((24, 24))), 8)
    alone, alone_scales = rounding.rounded(weights, 8)
    np.testing.assert_array_equal(found, alone)
    assert np.isfinite(scales).all() and (scales == alone_scales).all()
