"""applications/customer_service: its split, counted words and replies, and the whole story on a few questions."""

import json
import math
from collections import Counter
from dataclasses import replace

import litert_files
import numpy as np
import pytest
import story_modules
import tiny

from tfxformer.samples import FaqEntry

ROWS = [
    FaqEntry(kind, f"{first} {second} {kind}", f"the {second} of {first} is {kind} {kind}")
    for kind in ("cat", "film", "code")
    for first in ("london", "paris", "alan", "ada")
    for second in ("engine", "plot", "mat")
]


@pytest.fixture(scope="module")
def story():
    pytest.importorskip("sklearn", reason="the story's baselines: pip install scikit-learn")
    with story_modules.imported("customer_service", "faq", "replies", "page", "run") as modules:
        yield modules


def test_so_many_of_each_category_are_held_out(story):
    learned, held_out = story["faq"].split(ROWS, 0.25)
    assert sorted(learned + held_out) == list(range(36))
    assert Counter(ROWS[place].category for place in held_out) == {"cat": 3, "film": 3, "code": 3}
    twice = [*ROWS, ROWS[3]._replace(question=ROWS[3].question.upper(), answer="another")]
    assert story["faq"].asked_once(twice) == ROWS


def test_bm25_is_the_sum_over_words(story):
    answers = ["red cats sleep", "red red dogs run fast", "blue fish", "dogs and cats"]
    found = story["faq"].bm25(["red dogs", "fish fish", "unknown"], answers, k1=1.2, b=0.6)
    words = [[word for word in answer.split() if word != "and"] for answer in answers]  # a stop word
    mean = sum(map(len, words)) / len(words)

    def weight(word, own):
        holding = sum(word in one for one in words)
        idf = math.log(1 + (len(words) - holding + 0.5) / (holding + 0.5))
        count = own.count(word)
        return idf * count * 2.2 / (count + 1.2 * (0.4 + 0.6 * len(own) / mean))

    wanted = [
        [weight("red", own) + weight("dogs", own) for own in words],
        [2 * weight("fish", own) for own in words],
        [0.0] * 4,
    ]
    np.testing.assert_allclose(found, wanted, atol=1e-9)


def test_ranks_are_places_in_the_sorted_list(story):
    scores = np.random.default_rng(0).integers(0, 4, (20, 9)).astype("float32")
    own = np.random.default_rng(1).integers(0, 9, 20)
    for row, (place, answer) in enumerate(zip(story["faq"].ranks(scores, own), own, strict=True)):
        order = sorted(range(9), key=lambda one: (-scores[row, one], one == answer))
        assert order.index(answer) == place


def test_replies_are_held_against_answers(story):
    grounded = story["replies"].grounded
    assert grounded("The permit costs 500 kronor.", "A permit of 500 kronor") == pytest.approx(3 / 4)
    assert grounded("It is the", "anything") == 0.0
    found = story["replies"].measured(["a cat", "dog"], ["the cat", "fish"], ["cat", "fish"])
    assert found["f1"]["mean"] == 0.5 and found["each_f1"] == [1.0, 0.0]
    assert found["words"]["mean"] == 1.5
    asked = story["replies"].messages("why?", "because")[0]["content"]
    assert "because" in asked and asked.endswith("why?")
    assert story["replies"].messages("why?", None) == [{"role": "user", "content": "why?"}]


@pytest.mark.road
def test_the_whole_story(story, tmp_path, monkeypatch):
    words = sorted({word for row in ROWS for text in row[1:] for word in text.split()})
    (tmp_path / "model").mkdir()
    checkpoint = tiny.checkpoint(tmp_path / "model", words)
    run = story["run"]
    monkeypatch.setattr(run.samples, "minilm", lambda: checkpoint)
    monkeypatch.setattr(run.samples, "construction_faq", lambda: ROWS)
    monkeypatch.setattr(run, "QUESTION_TOKENS", 8)
    monkeypatch.setattr(run, "ANSWER_TOKENS", 16)
    monkeypatch.setattr(run, "CACHE_LENGTH", 64)
    monkeypatch.setattr(run, "PREFILL_LENGTHS", (16,))
    monkeypatch.setattr(story["replies"], "GROUNDS", "{question}")
    settings = replace(run.QUICK, rows=None, category_tokens=16, answer_tokens=16, reply_tokens=4)
    monkeypatch.setattr(run.tasks.CausalLM, "from_pretrained", lambda path: litert_files.language_model())
    monkeypatch.setattr(run.samples, "smollm2", lambda: None)
    results = run.run(tmp_path, settings, verbose=0)
    page = story["page"].section(json.loads(json.dumps(results)))
    assert "BM25" in page and "SmolLM2 alone" in page
    assert results["data"] == {"questions": 36, "learned": 21, "held_out": 15, "categories": 3}
    assert results["answers"]["same_first"] > 0.8
    assert results["replies"]["variants"]["answer"]["grounded"]["mean"] == 1.0
    said = run.reply(tmp_path, "ada plot film")
    assert said.startswith("category  ") and "answer    the " in said
