"""applications/entities: its marks, baselines and scores, and the whole story on a few tweets."""

import json
from dataclasses import replace

import numpy as np
import pytest
import story_modules
import tiny

from tfxformer.samples import Split

NAMES = {"Ada": "person", "Alan": "person", "London": "geo-loc", "Paris": "geo-loc"}
TWEETS = [
    f"{name} {said} {place}".split()
    for name in ("Ada", "Alan")
    for place in ("London", "Paris")
    for said in ("lives in", "sat in", "ran fast in", "is not in", "wrote code in")
]
TAGS = [[f"B-{NAMES[word]}" if word in NAMES else "O" for word in tweet] for tweet in TWEETS]
SPLIT = Split(TWEETS[:16], TAGS[:16], TWEETS[16:], TAGS[16:], ["B-geo-loc", "B-person", "O"])


@pytest.fixture(scope="module")
def story():
    """The story's modules by name, imported as its command does."""
    pytest.importorskip("pycrfsuite", reason="the story's baseline: pip install python-crfsuite")
    with story_modules.imported("entities", "baselines", "run", "tried") as modules:
        yield modules


def test_capitals_are_told_by_a_mark(story, tmp_path):
    (tmp_path / "vocab.txt").write_text("".join(f"{token}\n" for token in [*tiny.VOCABULARY, "^", "@", "http"]))
    tokenizer = story["run"].with_marks(tiny.Tokenizer.from_vocabulary(tmp_path / "vocab.txt"))
    vocabulary = tokenizer.vocabulary()

    def tokens(text):
        return [vocabulary[index] for index in tokenizer.ids([text], special_tokens=False)[0]]

    assert tokens("Ada sat in Paris") == ["^", "ada", "sat", "in", "^", "paris"]
    assert tokens("@Ada CAT catDog http://t.co/Ab1?x=Y") == ["@", "^", "ada", "^", "cat", *tokens("catdog"), "http"]
    words = ["Ada", "sat", "Paris"]  # the mark is the first piece of its word, which carries the label
    found = tokenizer.encode([words], sequence_length=8, is_split_into_words=True, return_offsets=True)
    assert found.word_ids[0].tolist() == [-1, 0, 0, 1, 2, 2, -1, -1]


def test_shapes_and_features(story):
    shape = story["baselines"].shape
    assert [shape(word) for word in ("iPhone4", "LOL", "#Obama", "2010", "9/20")] == ["aAa0", "A", "#Aa", "0", "0/0"]
    first, _, last = story["baselines"].features(["Ada", "in", "London"])
    assert {"0 ada", "1 in", "2 london", "-1 ", "0 shape Aa", "ends da", "ada in", "first True"} <= set(first)
    assert {"-1 in", "-2 ada", "1 ", "begins lond", "first False"} <= set(last)


def test_baselines_learn_tags(story):
    for name, way in story["baselines"].WAYS.items():
        found = way(SPLIT.train_texts, SPLIT.train_labels, SPLIT.test_texts)
        assert [list(row) for row in found] == SPLIT.test_labels, name
    assert story["baselines"].commonest_tags(TWEETS, TAGS, [["Kim", "in", "Paris"]]) == [["O", "O", "B-geo-loc"]]


def test_scores_are_seqevals_and_intervals_those_of_scipy(story):
    from scipy.stats import bootstrap
    from seqeval.metrics import f1_score

    generator = np.random.default_rng(0)
    choices = ["O", "B-person", "I-person", "B-geo-loc"]
    wanted = [list(generator.choice(choices, 6)) for _ in range(40)]
    found = [[tag if generator.random() < 0.7 else str(generator.choice(choices)) for tag in row] for row in wanted]
    run = story["run"]
    counts = run.counts(wanted, found)
    assert run.f1(counts.sum(0)) == pytest.approx(f1_score(wanted, found))
    scores = run.measured(wanted, found)
    assert scores["f1"] == pytest.approx(f1_score(wanted, found))
    theirs = bootstrap(
        (np.arange(40),),
        lambda rows, axis: run.f1(counts[rows].sum(axis if rows.ndim == 1 else 1)),
        n_resamples=4000,
        method="percentile",
        vectorized=True,
        random_state=0,
    ).confidence_interval
    assert scores["interval"] == pytest.approx([theirs.low, theirs.high], abs=0.02)


def test_several_trainings_are_averaged(story, tmp_path, monkeypatch):
    checkpoint = tiny.checkpoint(tmp_path, ["^", *tiny.WORDS], num_layers=1)
    monkeypatch.setattr(story["run"].samples, "minilm", lambda: checkpoint)
    settings = replace(story["run"].QUICK, sequence_length=16, epochs=1)
    models = [
        story["run"].trained(*SPLIT[:2], SPLIT.labels, replace(settings, seeds=seeds), 0).get_weights()
        for seeds in ((1,), (2,), (1, 2))
    ]
    assert any(np.abs(one - other).max() > 1e-4 for one, other in zip(models[0], models[1], strict=True))
    for first, second, mean in zip(*models, strict=True):
        if mean.dtype.kind == "f":
            np.testing.assert_allclose(mean, (first + second) / 2, atol=1e-6)


@pytest.mark.road
def test_the_whole_story(story, tmp_path, monkeypatch):
    (tmp_path / "model").mkdir()
    checkpoint = tiny.checkpoint(tmp_path / "model", ["^", *tiny.WORDS])
    monkeypatch.setattr(story["run"].samples, "minilm", lambda: checkpoint)
    for name in ("run", "tried"):
        monkeypatch.setattr(story[name].samples, "tweet_entities", lambda: SPLIT)
    settings = replace(story["run"].QUICK, sequence_length=16, epochs=20, learning_rate=3e-3, layer_decay=1.0)
    results = json.loads(json.dumps(story["run"].run(tmp_path, settings, verbose=0)))
    assert results["same_tags"] == 1.0 and results["variants"]["MiniLM"]["f1"] > 0.8
    page = story["run"].section(results)
    assert all(name in page for name in results["variants"]) and "Alan" in page
    assert "Ada" in story["run"].by_file(tmp_path, "Ada lives in London")
    tried = {"one": replace(settings, epochs=1), "two": replace(settings, epochs=1, marks=False)}
    found = story["tried"].run(tmp_path / "tried.json", tried)
    again = story["tried"].run(tmp_path / "tried.json", tried)  # kept, not measured again
    assert found == again and list(found) == [*story["baselines"].WAYS, "one", "two"]
    assert "| two |" in story["tried"].section(found)
