"""Embeddings of distances against plain numpy, pair by pair, and buckets against transformers."""

import batteries
import numpy as np
import pytest
import tiny

from tfxformer.layers import Attention, Scores
from tfxformer.layers.attention.disentangled import TERMS, DistanceEmbeddings, by_distance, distance_bucket

SIZE, HEADS = 12, 3
INPUTS = np.random.default_rng(0).normal(size=(2, 7, SIZE)).astype("float32")


def test_columns_of_distances_become_columns_of_keys():
    products = np.random.default_rng(0).normal(size=(2, 3, 4, 4 + 6 - 1)).astype("float32")
    found = np.asarray(by_distance(products, 6))
    for query in range(4):
        for key in range(6):
            np.testing.assert_array_equal(found[:, :, query, key], products[:, :, query, key - query + 3])


def embeddings_of(buckets, normed=True, length=7):
    layer = DistanceEmbeddings(SIZE, buckets, 5, 1e-3 if normed else None)
    positions = np.arange(length, dtype="int32")[None]
    layer(None, None, positions, positions)
    return tiny.perturb(layer), positions


@pytest.mark.parametrize("buckets", [0, 4])
@pytest.mark.parametrize("normed", [False, True])
def test_rows_are_those_of_the_distances(buckets, normed):
    layer, positions = embeddings_of(buckets, normed)
    table, side = np.asarray(layer.embeddings), buckets or 5
    if normed:
        table = (table - table.mean(-1, keepdims=True)) / np.sqrt(table.var(-1, keepdims=True) + 1e-3)
        table = table * np.asarray(layer.norm.gamma) + np.asarray(layer.norm.beta)
    # Of 4 buckets 2 distances are near; 3 and 4 are far: 2 + ceil(log(d / 2) / log(4 / 2)) = 3.
    bucket = {0: 0, 1: 1, 2: 2, 3: 3, 4: 3, 5: 4, 6: 4} if buckets else {d: d for d in range(7)}
    rows = [np.sign(d) * bucket[abs(d)] + side for d in range(6, -7, -1)]
    wanted = table[np.clip(rows, 0, 2 * side - 1)]
    np.testing.assert_allclose(np.asarray(layer(None, None, positions, positions)), wanted, atol=1e-5)


@pytest.mark.parametrize("terms", [TERMS, TERMS[:1], TERMS[1:]])
@pytest.mark.parametrize("own", [False, True])
def test_attention_equals_the_sum_of_its_terms(terms, own, plain_kernels):
    # With projections of their own the keys' have no bias, as in the first version of DeBERTa.
    arguments = {"position_terms": terms, "position_projections": own, "scale": 0.3, "key_bias": not own}
    layer = Attention(HEADS, SIZE // HEADS, **arguments)
    layer.build(INPUTS.shape)
    tiny.perturb(layer)
    rows = np.random.default_rng(1).normal(size=(13, SIZE)).astype("float32")
    weights = {path.split("/", 1)[1]: value.astype("float64") for path, value in tiny.weights(layer).items()}

    def projected(name, x):
        y = x @ weights[f"{name}/kernel"] + weights.get(f"{name}/bias", 0.0)
        return y.reshape(*y.shape[:-1], HEADS, -1)

    assert not own or not any(path in weights for path in ("key/bias", "position_key/bias"))
    query, key, value = (projected(name, INPUTS) for name in ("query", "key", "value"))
    scores = np.einsum("bqnh,bknh->bnqk", query, key)
    names = ("position_key", "position_query") if own else ("key", "query")
    for q in range(7):
        for k in range(7):
            row = rows[6 - (q - k)]
            if TERMS[0] in terms:
                scores[:, :, q, k] += np.einsum("bnh,nh->bn", query[:, q], projected(names[0], row))
            if TERMS[1] in terms:
                scores[:, :, q, k] += np.einsum("bnh,nh->bn", key[:, k], projected(names[1], row))
    scores = np.exp(scores * 0.3)
    context = np.einsum("bnqk,bknh->bqnh", scores / scores.sum(-1, keepdims=True), value).reshape(2, 7, SIZE)
    wanted = context @ weights["output/kernel"] + weights["output/bias"]
    for training in (False, True):
        np.testing.assert_allclose(np.asarray(layer(INPUTS, scores=rows, training=training)), wanted, atol=2e-5)
    first = layer(INPUTS[:, :1], source=INPUTS, scores=rows[6:])
    np.testing.assert_allclose(np.asarray(first), wanted[:, :1], atol=2e-5)
    assert Attention.from_config(layer.get_config()).get_config() == layer.get_config()


def test_a_model_of_them(tmp_path):
    """Padding, graph forms, XLA, half precision, `.keras` files; with a convolution behind the first block."""
    batteries.check_model(
        lambda dtype=None: tiny.backbone("deberta-v2", dtype=dtype, encoder__embedding_convolution=3), tmp_path
    )


def test_what_they_cannot_be():
    for wrong in ({}, {"terms": ("c2p",)}, {"terms": TERMS, "buckets": 3}, {"terms": TERMS, "shared": False}):
        with pytest.raises(ValueError, match="'disentangled' have"):
            Scores("disentangled", **{"buckets": 4, **wrong})
    with pytest.raises(ValueError, match="of the kind 'disentangled', not of 'relative'"):
        Scores("relative", normed=True)
    good = Scores("disentangled", 4, 9, terms=TERMS)
    with pytest.raises(ValueError, match="as they are: no key_value_heads"):
        tiny.config(encoder__attention__scores=good, encoder__attention__soft_cap=2.0)
    with pytest.raises(ValueError, match="a decoder's cache holds no embeddings"):
        tiny.config("gpt2", decoder__attention__scores=good)


@pytest.mark.reference
@pytest.mark.parametrize(("buckets", "longest"), [(256, 512), (4, 9), (6, 5), (32, 128)])
def test_buckets_are_those_of_transformers(buckets, longest):
    import torch
    from transformers.models.deberta_v2.modeling_deberta_v2 import make_log_bucket_position

    distances = np.arange(-longest, longest + 1)
    wanted = make_log_bucket_position(torch.tensor(distances), buckets, longest).long().numpy()
    np.testing.assert_array_equal(distance_bucket(distances, buckets, longest), wanted)
