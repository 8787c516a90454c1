"""applications/chinese: its labels and scores, and the whole story on a few texts."""

import json
import random
from dataclasses import replace

import numpy as np
import pytest
import story_modules

PARAGRAPH = [("江", "nr"), ("泽民", "nr"), ("在", "p"), ("北京", "ns"), ("会见", "v"), ("李", "nr"), ("鹏", "nr")]


@pytest.fixture(scope="module")
def story():
    """The story's modules by name, imported as its command does."""
    pytest.importorskip("pycrfsuite", reason="the story's baseline: pip install python-crfsuite")
    with story_modules.imported("chinese", "words", "baselines", "page", "run") as modules:
        yield modules


def test_labels_say_words_and_names(story):
    words = story["words"]
    labels = words.labels_of(PARAGRAPH)
    assert labels == [
        *("S B-PER", "B I-PER", "E I-PER", "S O", "B B-LOC", "E I-LOC", "B O", "E O"),
        *("S B-PER", "S I-PER"),
    ]
    assert set(labels) <= set(words.LABELS)
    assert len(set(words.LABELS)) == len(words.LABELS) == 18
    text = words.text_of(PARAGRAPH)
    assert [text[begin:end] for begin, end in words.spans(labels)] == [word for word, _ in PARAGRAPH]
    # Two persons side by side: a name that is one word, and an organisation, each begin anew.
    assert words.labels_of([("李", "nr"), ("鹏", "nr"), ("乔", "nr"), ("石", "nr"), ("中共", "nt")]) == [
        *("S B-PER", "S I-PER", "S B-PER", "S I-PER", "B B-ORG", "E I-ORG"),
    ]


def test_parts_are_the_paragraph(story):
    words = story["words"]
    generator = random.Random(0)
    paragraph = [("字" * generator.randint(1, 6), "n") if generator.random() < 0.9 else ("，", "w") for _ in range(400)]
    for longest in (6, 17, 62):
        parts = words.parts(paragraph, longest)
        assert [word for part in parts for word in part] == paragraph
        assert max(len(words.text_of(part)) for part in parts) <= longest


def test_scores_are_seqevals(story):
    """Words are what seqeval finds of their places (IOBES), names what it finds of their parts."""
    from seqeval.metrics import f1_score, precision_score, recall_score
    from seqeval.scheme import IOBES

    words = story["words"]
    generator = np.random.default_rng(0)
    wanted = [words.labels_of(PARAGRAPH * count) for count in (1, 2, 3)]
    found = [[label if generator.random() < 0.8 else generator.choice(words.LABELS) for label in row] for row in wanted]
    texts = [words.text_of(PARAGRAPH * count) for count in (1, 2, 3)]
    scores = words.scores(texts, wanted, found, {"在"})
    names = [[[label[2:] for label in row] for row in rows] for rows in (wanted, found)]
    assert scores["names_f1"] == pytest.approx(f1_score(*names))
    assert scores["names_precision"] == pytest.approx(precision_score(*names))

    def places(labels):  # a word's place, written anew of where words begin and end, so that each is whole
        row = []
        for begin, end in words.spans(labels):
            row += ["S-w"] if end - begin == 1 else ["B-w", *["I-w"] * (end - begin - 2), "E-w"]
        return row

    cut = [[places(row) for row in rows] for rows in (wanted, found)]
    assert scores["words_f1"] == pytest.approx(f1_score(*cut, mode="strict", scheme=IOBES))
    assert scores["words_recall"] == pytest.approx(recall_score(*cut, mode="strict", scheme=IOBES))
    assert words.scores(texts, wanted, wanted, {"在"}) == {
        **dict.fromkeys(["words_f1", "words_precision", "words_recall", "unknown_words_found"], 1.0),
        **dict.fromkeys(["names_f1", "names_precision", "names_recall"], 1.0),
        "unknown_words": pytest.approx(6 / 7),
        "names_by_kind": {"LOC": 1.0, "PER": 1.0},
        "names": 18,
    }


def test_longest_known_words(story):
    found = story["baselines"].longest_words([PARAGRAPH, [("北", "f"), ("京剧", "n")]], ["北京剧在江"])
    words = story["words"]
    assert words.words_and_names("北京剧在江", found[0]) == "北京/LOC 剧 在 江/PER"


@pytest.mark.samples
@pytest.mark.road
def test_the_whole_story_on_a_few_texts(story, tmp_path, capsys):
    run = story["run"]
    settings = run.QUICK
    settings = replace(
        settings,
        pretraining=replace(settings.pretraining, paragraphs=20, reviews=10, width=32, feed_forward=48, heads=2),
        words=replace(settings.words, count=10, test_count=4, epochs=1),
        reviews=replace(settings.reviews, count=32, test_count=12, length=16, epochs=1),
    )
    results = run.run(tmp_path, settings, verbose=0)
    assert list(results["words"]["variants"]) == [
        *("longest known words", "random fields", "random", "pretrained", "litert"),
    ]
    assert results["words"]["same_labels"] > 0.9
    trained = {name: one["seconds"] for name, one in results["training"].items()}
    again = run.run(tmp_path, settings, verbose=0)
    assert {name: one["seconds"] for name, one in again["training"].items()} == trained  # kept, not trained again
    assert again["words"]["variants"]["random fields"]["words_f1"] > 0.3
    json.dumps(again)
    section = story["page"].section(again)
    assert "conditional random fields" in section
    story["run"].save_figure(story["page"].drawn(again), tmp_path / "scores.png")
    assert (tmp_path / "scores.png").stat().st_size > 5_000
    capsys.readouterr()
    said = run.by_files(tmp_path, "江泽民在北京")
    assert said.partition("\t")[0].replace(" ", "").replace("/PER", "").replace("/LOC", "").replace("/ORG", "") == (
        "江泽民在北京"
    )
