"""Contents, distances and segments, each by a bias of its own: against plain numpy, pair by pair."""

import batteries
import numpy as np
import pytest
import tiny

from tfxformer.layers import Attention, Scores
from tfxformer.layers.attention.relative_terms import DistanceSinusoids

SIZE, HEADS, LENGTH = 12, 3, 7
INPUTS = np.random.default_rng(0).normal(size=(2, LENGTH, SIZE)).astype("float32")
SEGMENTS = np.array([[0, 0, 0, 1, 1, 1, 2], [0, 0, 0, 0, 0, 0, 0]], "int32")


def sinusoid(distance):
    frequencies = 10000.0 ** (-np.arange(0, SIZE, 2) / SIZE)
    return np.concatenate([np.sin(distance * frequencies), np.cos(distance * frequencies)])


def rows():
    positions = np.arange(LENGTH, dtype="int32")[None]
    return np.asarray(DistanceSinusoids(SIZE)(None, None, positions, positions))


def test_rows_are_sinusoids_of_the_distances():
    np.testing.assert_allclose(rows(), [sinusoid(d) for d in range(LENGTH - 1, -LENGTH, -1)], atol=1e-6)


@pytest.mark.parametrize("terms", ["segments", "distances"])
def test_attention_equals_the_sum_of_its_terms(terms, plain_kernels):
    arguments = {"position_terms": ("content_to_position",), "position_projections": True, "use_bias": False}
    layer = Attention(HEADS, SIZE // HEADS, relative_terms=terms, scale=0.3, **arguments)
    layer.build(INPUTS.shape)
    tiny.perturb(layer)
    weights = {path.split("/", 1)[1]: value.astype("float64") for path, value in tiny.weights(layer).items()}

    def by_heads(x):
        return x.reshape(*x.shape[:-1], HEADS, -1)

    def projected(name, x):
        return by_heads(x @ weights[f"{name}/kernel"])

    query, key, value = (projected(name, INPUTS) for name in ("query", "key", "value"))
    of = {name: by_heads(x) for path, x in weights.items() if (name := path.removeprefix("relative/")) != path}
    scores = np.zeros((2, HEADS, LENGTH, LENGTH))
    for q in range(LENGTH):
        for k in range(LENGTH):
            scores[:, :, q, k] = ((query[:, q] + of["content_bias"]) * key[:, k]).sum(-1)
            distance = projected("position_key", sinusoid(q - k))
            scores[:, :, q, k] += ((query[:, q] + of["position_bias"]) * distance).sum(-1)
            for row in range(2 if terms == "segments" else 0):
                other = int(SEGMENTS[row, q] != SEGMENTS[row, k])
                asking = query[row, q] + of["segment_bias"]
                scores[row, :, q, k] += (asking * of["segment_embeddings"][other]).sum(-1)
    scores = np.exp(scores * 0.3)
    context = np.einsum("bnqk,bknh->bqnh", scores / scores.sum(-1, keepdims=True), value).reshape(INPUTS.shape)
    wanted = context @ weights["output/kernel"]
    segments = SEGMENTS if terms == "segments" else None
    for training in (False, True):
        found = layer(INPUTS, scores=rows(), segments=segments, training=training)
        np.testing.assert_allclose(np.asarray(found), wanted, atol=2e-5)
    first = layer(INPUTS[:, :1], source=INPUTS, scores=rows()[LENGTH - 1 :], segments=segments)
    np.testing.assert_allclose(np.asarray(first), wanted[:, :1], atol=2e-5)
    assert Attention.from_config(layer.get_config()).get_config() == layer.get_config()


def test_a_model_of_them(tmp_path):
    """Padding, graph forms, half precision, `.keras` files, and a token that no output reads."""
    model = batteries.check_model(lambda dtype=None: tiny.backbone("xlnet", dtype=dtype), tmp_path, xla=False)
    assert model.hidden_token.embeddings.shape == (1, 1, 32)
    assert not any("hidden_token" in variable.path for variable in model.trainable_variables)
    with pytest.raises(ValueError, match="Two streams see tokens in an order of their own"):
        model.two_streams(tiny.inputs_for(model), np.zeros((3, 1), "int32"), np.ones((3, 1), "int32"), 4)


def test_what_they_cannot_be():
    with pytest.raises(ValueError, match="segments=True is of the kind 'sinusoidal'"):
        Scores("relative", segments=True)
    with pytest.raises(ValueError, match="Scores of the kind 'sinusoidal' compare distances"):
        tiny.config("xlnet", encoder__attention__key_value_heads=2)
    with pytest.raises(ValueError, match="'sinusoidal' are an encoder's"):
        tiny.config("gpt2", decoder__attention__scores=Scores("sinusoidal"))
