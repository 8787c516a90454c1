"""What samplers keep, against numpy and transformers, and what they draw, against probabilities."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tfxformer.generation import Greedy, MinP, Random, TopK, TopP, Typical
from tfxformer.ranking import keep_best

GENERATOR = np.random.default_rng(0)
LOGITS = GENERATOR.normal(0, 3, (4, 50)).astype("float32")
SAMPLERS = [
    Random(temperature=0.6),
    TopK(7, temperature=1.5),
    TopK(1000),
    TopP(0.8, temperature=0.7),
    TopP(1.0),
    MinP(0.05, temperature=2.0),
    Typical(0.6),
    Typical(0.95, temperature=0.5),
]


def softmax(logits):
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


def wanted(sampler, logits):
    """The probabilities by each sampler's definition: sorts and loops, float64."""
    result = np.zeros(logits.shape)
    for row, scores in enumerate(logits.astype("float64") / sampler.temperature):
        p = softmax(scores)
        if isinstance(sampler, TopK):
            kept = np.argsort(-p)[: sampler.k]
        elif isinstance(sampler, MinP):
            kept = np.flatnonzero(p >= sampler.p * p.max())
        elif isinstance(sampler, (TopP, Typical)):
            information = -np.log(p)
            entropy = (p * information).sum()
            order = np.argsort(-p if isinstance(sampler, TopP) else np.abs(information - entropy))
            kept = order[: np.searchsorted(np.cumsum(p[order]), sampler.p - 1e-12) + 1]
        else:
            kept = np.arange(len(p))
        result[row, kept] = p[kept] / p[kept].sum()
    return result


def probabilities(sampler, logits):
    return softmax(np.asarray(sampler.distribution(tf.constant(logits), sampler.values())))


@pytest.mark.parametrize("sampler", SAMPLERS, ids=str)
def test_distribution_is_the_definition(sampler):
    np.testing.assert_allclose(probabilities(sampler, LOGITS), wanted(sampler, LOGITS), atol=1e-6)


@pytest.mark.reference
@pytest.mark.parametrize("sampler", SAMPLERS, ids=str)
def test_distribution_equals_transformers(sampler):
    import torch
    from transformers.generation import logits_process

    warpers = [logits_process.TemperatureLogitsWarper(sampler.temperature)]
    if isinstance(sampler, TopK):
        warpers.append(logits_process.TopKLogitsWarper(sampler.k))
    elif isinstance(sampler, TopP):
        warpers.append(logits_process.TopPLogitsWarper(sampler.p))
    elif isinstance(sampler, MinP):
        warpers.append(logits_process.MinPLogitsWarper(sampler.p))
    elif isinstance(sampler, Typical):
        warpers.append(logits_process.TypicalLogitsWarper(sampler.p))
    scores = torch.tensor(LOGITS)
    for warper in warpers:
        scores = warper(None, scores)
    np.testing.assert_allclose(probabilities(sampler, LOGITS), softmax(scores.numpy()), atol=1e-6)


finite = st.floats(-1e6, 1e6, width=32)
kept_of = tf.function(lambda scores, weights, target: keep_best(scores, weights, target, keras.ops))


@settings(max_examples=60, deadline=None)
@given(st.lists(finite, min_size=9, max_size=9), st.integers(1, 12))
def test_keep_best_counts(scores, k):
    """With weights of one: the k best, and what ties with the last; zeros of both signs are equal."""
    row = np.array([scores], "float32") + np.float32(0.0)
    kept = np.asarray(kept_of(row, np.ones_like(row), np.float32(k)))
    least = np.sort(row[0])[::-1][min(k, 9) - 1]
    np.testing.assert_array_equal(kept[0], row[0] >= least)


@settings(max_examples=60, deadline=None)
@given(st.lists(finite, min_size=9, max_size=9, unique=True), st.lists(st.integers(0, 9), min_size=9, max_size=9))
def test_keep_best_weighs(scores, weights):
    """The fewest best whose weights reach the target (whole numbers, so that sums are exact)."""
    row, weight = np.array([scores], "float32"), np.array([weights], "float32")
    if len(set(row[0].tolist())) < 9:
        return
    target = max(1.0, float(weight.sum() // 2))
    kept = np.asarray(kept_of(row, weight, np.float32(target)))[0]
    order = np.argsort(-row[0])
    reach = np.flatnonzero(np.cumsum(weight[0][order]) >= target)
    count = reach[0] + 1 if len(reach) else 9
    assert set(np.flatnonzero(kept)) == set(order[:count])


@pytest.mark.parametrize("sampler", [Random(temperature=0.8), TopP(0.7), Typical(0.7)], ids=str)
def test_frequencies_are_probabilities(sampler):
    """Twenty thousand seeded draws: chi-square within four standard deviations, and nothing outside."""
    logits = np.tile(LOGITS[:1, :12], (500, 1))
    choose = tf.function(lambda seed: sampler.choose(tf.constant(logits), sampler.values(), seed))
    drawn = np.concatenate([choose(tf.constant([9, step], tf.uint32)).numpy() for step in range(40)])
    expected = wanted(sampler, logits[:1])[0] * len(drawn)
    counts = np.bincount(drawn, minlength=12)
    assert not counts[expected == 0].any()
    used = expected > 0
    statistic = ((counts - expected)[used] ** 2 / expected[used]).sum()
    freedom = used.sum() - 1
    assert abs(statistic - freedom) < 4 * np.sqrt(2 * freedom) + 1


def test_draws_of_a_row_do_not_depend_on_the_others():
    seed = tf.constant([3, 5], tf.uint32)
    sampler = Random()
    alone = sampler.choose(tf.constant(LOGITS[:1]), sampler.values(), seed).numpy()
    together = sampler.choose(tf.constant(LOGITS), sampler.values(), seed).numpy()
    assert alone[0] == together[0]
    other = [sampler.choose(tf.constant(LOGITS), sampler.values(), tf.constant([s, 5], tf.uint32)) for s in range(8)]
    assert len({tuple(x.numpy()) for x in other}) > 1


def test_one_certain_token_is_always_drawn():
    """Logits of minus infinity, as a hook writes them, are never drawn."""
    logits = np.full((200, 5), -np.inf, "float32")
    logits[:, 3] = -7.0
    for sampler in (Random(), TopK(2), TopP(0.9), MinP(0.5), Typical(0.5)):
        chosen = sampler.choose(tf.constant(logits), sampler.values(), tf.constant([1, 2], tf.uint32)).numpy()
        assert (chosen == 3).all(), sampler


def test_greedy_takes_the_first_of_equals():
    logits = tf.constant([[0.0, 2.0, 2.0], [1.0, -1.0, 0.5]])
    assert Greedy().choose(logits, {}, None).numpy().tolist() == [1, 0]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Random(temperature=0), "temperature must be above 0 .*, not 0"),
        (lambda: TopP(0.9, temperature=float("nan")), "temperature must be above 0"),
        (lambda: TopK(0), "k of TopK must be a whole number of at least 1, not 0"),
        (lambda: TopK(2.5), "k of TopK must be a whole number"),
        (lambda: TopP(0.0), "p of TopP must be above 0 and at most 1"),
        (lambda: TopP(1.1), r"p of TopP .* not 1\.1"),
        (lambda: MinP(-0.1), "p of MinP"),
        (lambda: Typical(2), "p of Typical"),
    ],
)
def test_impossible_values_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
