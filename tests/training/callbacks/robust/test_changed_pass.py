"""One step of adversarial training and of R-Drop, against tapes over the formulas of their papers; 15 s."""

import numpy as np
import pytest
import replicas
import robust_cases

from tfxformer import training

KINDS = ("adversarial", "r_drop")


def same(found, wanted, tolerance=1e-5):
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_allclose(one, other, atol=tolerance)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "compiled",
    [{}, {"jit_compile": True}, {"run_eagerly": True}, {"steps": 2}],
    ids=lambda one: next(iter(one), "graph"),
)
def test_one_step(kind, compiled):
    model = robust_cases.make(drops=kind == "r_drop", **compiled)
    before = model.get_weights()
    batch_size = robust_cases.ROWS // compiled.get("steps", 1)
    loss, after = robust_cases.fit(model, robust_cases.callback(kind), robust_cases.WEIGHTS, batch_size)
    wanted, weights = robust_cases.BY_HAND[kind](before, robust_cases.WEIGHTS)
    same(after, weights)
    assert loss == pytest.approx(wanted, abs=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_replicas_and_accumulation(kind):
    after, wanted = replicas.run(robust_cases.of_replicas, kind)
    same(after, wanted)


def test_both_together_and_an_end():
    model = robust_cases.make(drops=True)
    robust_cases.fit(model, training.RDrop(1.0))
    both = [training.RDrop(1.0), training.AdversarialTraining(1.0)]
    model.fit(robust_cases.IDS, robust_cases.LABELS, verbose=0, callbacks=both, epochs=2)
    kernel = model.get_layer("head").kernel
    before = np.array(kernel)
    model.fit(robust_cases.IDS, robust_cases.LABELS, verbose=0)
    model.fit(robust_cases.IDS, robust_cases.LABELS, verbose=0)
    assert np.isfinite(before).all() and not np.array_equal(before, np.array(kernel))
