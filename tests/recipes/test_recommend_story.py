"""applications/recommend: its baskets, baselines and ranks, and the whole story on a few sources."""

import json
from dataclasses import replace

import numpy as np
import pytest
import story_modules

BASKETS = {
    "ant": ["a", "b", "c"],
    "bee": ["a", "b", "d"],
    "cow": ["a", "b", "c", "e"],
    "dog": ["d", "e"],  # loses d and e with them, and then itself
    "elk": ["a", "c", "b"],
}


@pytest.fixture(scope="module")
def story():
    with story_modules.imported("recommend", "baskets", "baselines", "run") as modules:
        yield modules


@pytest.fixture(scope="module")
def left():
    """Baskets of 30 sources: [30, 8] of zeros and ones, each item in some."""
    matrix = (np.random.default_rng(0).random((30, 8)) < 0.4).astype("float32")
    assert matrix.sum(0).all()
    return matrix


def test_common_baskets_hold_common_items(story):
    assert story["baskets"].common(BASKETS, least=3) == {
        "ant": ["a", "b", "c"],
        "cow": ["a", "b", "c"],
        "elk": ["a", "c", "b"],
    }
    assert story["baskets"].common(BASKETS, least=1) == BASKETS
    assert story["baskets"].common(BASKETS, least=6) == {}


def test_one_item_is_taken_out_of_some_baskets(story):
    found = story["baskets"].split(BASKETS, 3, seed=1)
    assert (found.names, found.items) == (sorted(BASKETS), ["a", "b", "c", "d", "e"])
    assert len(found.held_out) == 3
    for place, name in enumerate(found.names):
        gone = [found.held_out[place]] if place in found.held_out else []
        assert sorted(found.rows[place] + gone) == sorted(BASKETS[name])
    matrix = found.matrix()
    assert [{item for item, there in zip(found.items, row, strict=True) if there} for row in matrix] == [
        set(row) for row in found.rows
    ]
    assert [found.items[place] for place in found.wanted()] == list(found.held_out.values())
    assert found == story["baskets"].split(BASKETS, 3, seed=1)
    assert found != story["baskets"].split(BASKETS, 3, seed=2)


def test_ranks_are_places_in_the_sorted_list(story, left):
    generator = np.random.default_rng(1)
    scores = generator.integers(0, 4, left.shape).astype("float32")  # many equal ones
    wanted = np.array([generator.choice(np.flatnonzero(row == 0)) for row in left])
    found = story["baskets"].ranks(scores, left, wanted)
    for row, place in enumerate(wanted):
        order = sorted(np.flatnonzero(left[row] == 0), key=lambda item: (-scores[row, item], item == place))
        assert order.index(place) == found[row]
    assert story["baskets"].measured(np.array([0, 9, 10, 99])) == {
        "recall": 0.5,
        "mrr": pytest.approx((1 + 1 / 10 + 1 / 11 + 1 / 100) / 4),
    }


def test_near_items_are_those_of_scikit_learn(story, left):
    from sklearn.metrics.pairwise import cosine_similarity

    cosines = cosine_similarity(left.T) - np.eye(left.shape[1])
    rows = np.array([3, 0, 7])
    np.testing.assert_allclose(story["baselines"].nearest_items(left, rows), left[rows] @ cosines, atol=1e-5)
    np.testing.assert_array_equal(story["baselines"].commonest(left, rows)[1], left.sum(0))


def test_the_linear_model_is_a_ridge_regression_of_each_item_from_the_others(story, left):
    from sklearn.linear_model import Ridge

    rows = np.array([5, 2])
    found = story["baselines"].linear(left, rows, penalty=2.0)
    for item in range(left.shape[1]):
        others = np.delete(left, item, axis=1)
        regression = Ridge(2.0, fit_intercept=False).fit(others, left[:, item])
        np.testing.assert_allclose(found[:, item], regression.predict(others[rows]), atol=1e-4)


def test_items_are_tokens(story):
    tokenizer = story["run"].tokenizer_of(["libc6", "python3-yaml"])
    assert tokenizer.vocabulary() == [*story["run"].SPECIAL, "libc6", "python3-yaml"]
    text = story["run"].asked(["python3-yaml", "libc6", "libc6"], 5)
    assert text == "python3-yaml libc6 [MASK]"
    assert tokenizer.ids([text]) == [[2, 6, 5, 4, 3]]


@pytest.mark.samples
@pytest.mark.road
def test_the_whole_story_on_a_few_sources(story, tmp_path):
    run = story["run"]
    results = run.run(tmp_path, replace(run.QUICK, sources=600, held_out=40, width=32), verbose=0)
    json.dumps(results)
    assert results["data"]["held_out"] == 40
    keras, file = (results["variants"][f"transformer, {name}"] for name in ("Keras", "LiteRT int8"))
    assert abs(keras["recall"] - file["recall"]) <= 0.1
    assert results["variants"]["item-kNN"]["recall"] > results["variants"]["commonest items"]["recall"] > 0
    assert "item-kNN" in run.section(results)
    said = run.by_file(tmp_path, ["libc6"], count=3)
    assert len(said.splitlines()) == 3 and "libc6 " not in said
    assert "leave that out" in run.by_file(tmp_path, ["no-such-package"])
