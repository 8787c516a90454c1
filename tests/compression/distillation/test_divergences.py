"""The formulas of distillation against numpy in float64, and against torch's own losses."""

import numpy as np
import pytest

from tfxformer.compression.distillation import divergences

RNG = np.random.default_rng(0)
STUDENT, TEACHER = (RNG.normal(0, 3, (4, 5, 7)).astype("float32") for _ in range(2))


def softmax(x, axis=-1):
    exponents = np.exp(x - x.max(axis=axis, keepdims=True))
    return exponents / exponents.sum(axis=axis, keepdims=True)


def kullback_leibler(teacher, student):
    return (teacher * (np.log(teacher) - np.log(student))).sum(-1)


@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_divergence(temperature):
    s, t = STUDENT.astype("float64") / temperature, TEACHER.astype("float64") / temperature
    wanted = temperature**2 * kullback_leibler(softmax(t), softmax(s))
    found = np.asarray(divergences.divergence(STUDENT, TEACHER, temperature))
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)
    assert np.asarray(divergences.divergence(TEACHER, TEACHER, temperature)).max() == 0


@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_binary_divergence(temperature):
    def two(x):  # a sigmoid is the softmax of x and 0
        return softmax(np.stack([x.astype("float64") / temperature, np.zeros_like(x, "float64")], -1))

    wanted = temperature**2 * kullback_leibler(two(TEACHER), two(STUDENT)).mean(-1)
    found = np.asarray(divergences.binary_divergence(STUDENT, TEACHER, temperature))
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)


def test_extreme_logits_stay_finite():
    far = np.array([[1e4, -1e4, 0.0]], "float32")
    for compare in (divergences.divergence, divergences.binary_divergence):
        assert np.isfinite(np.asarray(compare(far, -far))).all()
        assert np.asarray(compare(far, far)).max() == 0


def test_distances():
    s, t = STUDENT.astype("float64"), TEACHER.astype("float64")
    found = np.asarray(divergences.squared_distance(STUDENT, TEACHER))
    np.testing.assert_allclose(found, ((s - t) ** 2).mean(-1), rtol=1e-5)
    cosine = (s * t).sum(-1) / np.sqrt((s * s).sum(-1) * (t * t).sum(-1))
    np.testing.assert_allclose(np.asarray(divergences.cosine_distance(STUDENT, TEACHER)), 1 - cosine, atol=1e-6)


def attention_case(causal):
    """Scores [B, N, S, T], which keys are seen [B, 1, S, T], and the bias that says so."""
    scores = [RNG.normal(size=(2, 3, 6, 6)).astype("float32") for _ in range(2)]
    seen = np.ones((2, 1, 6, 6), bool)
    seen[1, :, :, 4:] = False
    if causal:
        seen &= np.tril(np.ones((6, 6), bool))
    return *scores, seen, np.where(seen, 0.0, -1e9).astype("float32")


@pytest.mark.parametrize("causal", [False, True])
def test_attention_maps_over_the_keys_that_are_seen(causal):
    student, teacher, seen, bias = attention_case(causal)
    squares, divergence = np.zeros((2, 6)), np.zeros((2, 6))
    for row in range(2):
        for query in range(6):
            keys = np.flatnonzero(seen[row, 0, query])
            s, t = (x[row, :, query][:, keys].astype("float64") for x in (student, teacher))
            squares[row, query] = ((s - t) ** 2).mean()
            divergence[row, query] = kullback_leibler(softmax(t), softmax(s)).mean()
    found = np.asarray(divergences.score_distance(student, teacher, bias))
    np.testing.assert_allclose(found, squares, rtol=1e-5)
    found = np.asarray(divergences.probability_divergence(student, teacher, bias))
    np.testing.assert_allclose(found, divergence, rtol=1e-4, atol=1e-6)
    # One bias per head, with the distances of ALiBi, hides the same keys.
    distances = bias - 300 * RNG.random((2, 3, 6, 6)).astype("float32")
    found = np.asarray(divergences.score_distance(student, teacher, distances))
    np.testing.assert_allclose(found, squares, rtol=1e-5)
    hidden = np.asarray(divergences.hiding(distances))
    np.testing.assert_array_equal(hidden == 0, np.broadcast_to(seen, hidden.shape))


def test_attention_maps_without_a_bias():
    student, teacher, _, _ = attention_case(False)
    wanted = ((student.astype("float64") - teacher) ** 2).mean((1, 3))
    np.testing.assert_allclose(np.asarray(divergences.score_distance(student, teacher)), wanted, rtol=1e-5)


def test_relation_scores():
    first, second = (RNG.normal(size=(2, 5, 12)).astype("float32") for _ in range(2))
    wanted = np.zeros((2, 3, 5, 5))
    for head in range(3):
        part = slice(4 * head, 4 * head + 4)
        wanted[:, head] = first[..., part].astype("float64") @ second[..., part].swapaxes(1, 2) / np.sqrt(4)
    np.testing.assert_allclose(np.asarray(divergences.relation_scores(first, second, 3)), wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.reference
@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_agrees_with_torch(temperature):
    """kl_div as DistilBERT's script calls it, and torch's cosine loss and binary cross-entropies."""
    import torch
    from torch.nn import functional

    s, t = torch.tensor(STUDENT), torch.tensor(TEACHER)
    wanted = functional.kl_div(
        functional.log_softmax(s / temperature, -1), functional.softmax(t / temperature, -1), reduction="none"
    ).sum(-1)
    found = np.asarray(divergences.divergence(STUDENT, TEACHER, temperature))
    np.testing.assert_allclose(found, (wanted * temperature**2).numpy(), rtol=1e-4, atol=1e-6)

    targets = torch.sigmoid(t / temperature)
    cross = functional.binary_cross_entropy_with_logits(s / temperature, targets, reduction="none")
    own = functional.binary_cross_entropy_with_logits(t / temperature, targets, reduction="none")
    wanted = (cross - own).mean(-1) * temperature**2
    found = np.asarray(divergences.binary_divergence(STUDENT, TEACHER, temperature))
    np.testing.assert_allclose(found, wanted.numpy(), rtol=1e-4, atol=2e-6)

    rows = STUDENT.reshape(-1, 7), TEACHER.reshape(-1, 7)
    wanted = functional.cosine_embedding_loss(*map(torch.tensor, rows), torch.ones(len(rows[0])), reduction="none")
    np.testing.assert_allclose(np.asarray(divergences.cosine_distance(*rows)), wanted.numpy(), atol=1e-6)
