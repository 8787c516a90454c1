"""Elastic weight consolidation against the closed form of softmax regression; 8 s."""

import keras
import numpy as np
import pytest
import replicas
import robust_cases

from tfxformer import training


def same(found, wanted):
    for one, other in zip(found, wanted, strict=True):
        for part, expected in zip(one, other, strict=True):
            np.testing.assert_allclose(part, expected, rtol=1e-5, atol=1e-6)


def test_fisher_and_a_step():
    same(*robust_cases.elastic())


@pytest.mark.road
def test_replicas_and_accumulation():
    same(*replicas.run(robust_cases.elastic_of_replicas))


def test_weights_of_another_model():
    one, other = robust_cases.make(), robust_cases.make()
    keep = training.ElasticWeightConsolidation(one, robust_cases.IDS)
    with pytest.raises(ValueError, match="trains none of them"):
        robust_cases.fit(other, keep)


def test_what_has_no_fisher_information():
    inputs = keras.Input((3,))
    model = training.DistributedModel(inputs, keras.layers.Dense(2)(inputs))
    with pytest.raises(ValueError, match="one label a text"):
        training.ElasticWeightConsolidation(model, np.ones((2, 3)))
    with pytest.raises(ValueError, match="got none"):
        training.ElasticWeightConsolidation(robust_cases.make(), robust_cases.IDS[:0])
    with pytest.raises(ValueError, match="strength=0"):
        training.ElasticWeightConsolidation(robust_cases.make(), robust_cases.IDS, strength=0)
