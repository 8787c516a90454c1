"""Perplexity against its definition and against KerasHub's."""

import keras
import numpy as np

from tfxformer.training import Perplexity


def batches(generator):
    for rows in (3, 5):
        logits = generator.normal(0, 2, (rows, 4, 7)).astype("float32")
        yield generator.integers(0, 7, (rows, 4)), logits, generator.integers(0, 2, (rows, 4)).astype("float32")


def test_is_the_exponential_of_the_mean_over_all_tokens():
    metric, plain, losses, weights = Perplexity(), Perplexity(), [], []
    for ids, logits, weight in batches(np.random.default_rng(0)):
        metric.update_state(ids, logits, weight)
        plain.update_state(ids, logits)
        wide = logits.astype("float64")
        chosen = np.take_along_axis(wide, ids[..., None], -1)[..., 0]
        losses.append((np.log(np.exp(wide).sum(-1)) - chosen).ravel())
        weights.append(weight.ravel())
    losses, weights = np.concatenate(losses), np.concatenate(weights)
    np.testing.assert_allclose(metric.result(), np.exp((losses * weights).sum() / weights.sum()), rtol=1e-5)
    np.testing.assert_allclose(plain.result(), np.exp(losses.mean()), rtol=1e-5)
    metric.reset_state()
    assert float(metric.result()) == 1.0


def test_agrees_with_keras_hub():
    import keras_hub

    ours, theirs = Perplexity(), keras_hub.metrics.Perplexity(from_logits=True)
    for ids, logits, weight in batches(np.random.default_rng(1)):
        for metric in (ours, theirs):
            metric.update_state(ids, logits, weight)
    np.testing.assert_allclose(ours.result(), theirs.result(), rtol=1e-5)


def test_serializes():
    metric = keras.metrics.deserialize(keras.metrics.serialize(Perplexity(name="p")))
    assert type(metric) is Perplexity and metric.name == "p"
