"""applications/search: its ranks and counted words, and the whole story on a few packages."""

import json
from dataclasses import replace

import numpy as np
import pytest
import story_modules

TEXTS = ["a cat sat", "dogs dig holes", "a cat and dogs", "fish"]


@pytest.fixture(scope="module")
def story():
    with story_modules.imported("search", "ranking", "run") as modules:
        yield modules


def test_ranks_are_places_in_the_sorted_list(story):
    scores = np.random.default_rng(0).integers(0, 5, (30, 30)).astype("float32")
    found = story["ranking"].ranks(scores)
    for row, place in enumerate(found):
        order = sorted(range(30), key=lambda text: (-scores[row, text], text == row))
        assert order.index(row) == place


def test_measures_are_those_of_scikit_learn(story):
    from sklearn.metrics import label_ranking_average_precision_score, top_k_accuracy_score

    scores = np.random.default_rng(1).random((40, 40))
    found = story["ranking"].measured(story["ranking"].ranks(scores))
    assert found["mrr"] == pytest.approx(label_ranking_average_precision_score(np.eye(40), scores))
    for count in (1, 10):
        assert found[f"recall@{count}"] == pytest.approx(top_k_accuracy_score(np.arange(40), scores, k=count))


def test_counted_words_find_rare_ones(story):
    cosines = story["ranking"].tf_idf(["cat", "fish dogs", "nothing known"], TEXTS)
    assert cosines.shape == (3, 4)
    assert cosines[0].argmax() == 0 and cosines[1].argmax() == 3
    assert not cosines[2].any()
    own = story["ranking"].tf_idf(TEXTS, TEXTS)
    np.testing.assert_allclose(np.diag(own), 1, atol=1e-6)


@pytest.mark.samples
@pytest.mark.road
def test_the_whole_story_on_a_few_packages(story, tmp_path):
    run = story["run"]
    settings = replace(run.QUICK, train_rows=32, held_out_rows=20, batch_size=16, text_tokens=32, line_tokens=16)
    rows, held_out = run.split(settings)
    for column in range(3):
        assert not {row[column] for row in rows} & {row[column] for row in held_out}
    results = run.run(tmp_path, settings, verbose=0)
    json.dumps(results)
    keras, file = (results["variants"][f"fine-tuned, {name}"] for name in ("Keras", "LiteRT int8"))
    assert abs(keras["mrr"] - file["mrr"]) < 0.05
    assert keras["mrr"] > 0.5
    again = run.run(tmp_path, settings, verbose=0)
    assert again["training"] == results["training"]  # kept, not trained again
    assert "TF-IDF of words" in run.section(again)
    said = run.by_file(tmp_path, held_out[3][1], count=2).splitlines()
    assert len(said) == 2 and held_out[3][2] in said[0]
