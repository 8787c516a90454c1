"""Changed texts, pseudo-labels and replay, by what must hold of every one of them; 10 s."""

from collections import Counter

import numpy as np
import pytest
import tiny

from tfxformer import data, tasks
from tfxformer.data.targets.masking import Filling

TEXTS = ["What a very good film, and not slow at all .", "A dog sat on the mat", "one", ""]
SYNONYMS = {"good": ["fine", "great"], "film": ["movie"], "dog": ["hound"]}


class Proposes:
    """Stands for a masked language model, and keeps what it is asked."""

    def __init__(self):
        self.tokenizer = type("T", (), {"mask_id": 0, "vocabulary": lambda self: ["[MASK]"]})()

    def predict(self, texts, top_k, verbose):
        self.asked = texts
        best = [Filling("##ing", 1, 0.6), Filling("blue", 2, 0.4), Filling("red", 3, 0.0)]
        return [[best] * text.count("[MASK]") for text in texts]


def test_a_deletion_leaves_words_out_by_their_share():
    words = [str(number) for number in range(1000)]
    (found,) = data.augment([" ".join(words)], "deletion", share=0.3, seed=1)
    kept = found.split()
    assert kept == [word for word in words if word in set(kept)]  # in their order
    assert 0.65 < len(kept) / len(words) < 0.75
    assert data.augment(["one", ""], "deletion", share=0.99) == ["one", ""]


def test_a_swap_keeps_the_words():
    found = data.augment(TEXTS, "swap", share=0.3, copies=3)
    for text, changed in zip([text for text in TEXTS for _ in range(3)], found, strict=True):
        assert Counter(changed.split()) == Counter(text.split())
    assert found[0] != TEXTS[0]


def test_synonyms_stand_where_the_words_stood():
    found = data.augment(TEXTS, "synonyms", share=0.9, synonyms=SYNONYMS, copies=8)
    assert {text.split()[3] for text in found[:8]} == {"fine", "great"}
    assert {text.split()[4] for text in found[:8]} == {"movie,"}
    assert found[8:16] == ["A hound sat on the mat"] * 8
    assert data.augment(["Good"], "synonyms", synonyms={"good": ["fine"]}) == ["Fine"]


def test_a_masked_model_is_asked_once_and_proposes_whole_words():
    model = Proposes()
    found = data.augment(TEXTS, "masked", model=model, share=0.2, seed=3)
    assert len(model.asked) == 3  # not about the empty text
    for text, hidden, changed in zip(TEXTS, model.asked, found, strict=False):
        for word, asked, other in zip(text.split(), hidden.split(), changed.split(), strict=True):
            assert other == ("blue" if asked == "[MASK]" else word)
    assert [text.count("[MASK]") for text in model.asked] == [2, 1, 1]


def test_a_masked_model_of_ours(tmp_path):
    model = tasks.MaskedLM(tiny.backbone(), tokenizer=tiny.tokenizer(tmp_path), sequence_length=16)
    found = data.augment(tiny.TEXTS[:3], "masked", model=model, share=0.3)
    assert [len(text.split()) for text in found] == [len(text.split()) for text in tiny.TEXTS[:3]]


def test_a_seed_gives_its_texts():
    for kind in ("deletion", "swap", "synonyms"):
        first, again, other = (
            data.augment(TEXTS, kind, share=0.5, copies=12, synonyms=SYNONYMS, seed=seed) for seed in (0, 0, 1)
        )
        assert first == again != other


@pytest.mark.parametrize(
    "arguments, said",
    [
        ({"kind": "insertion"}, "known: deletion"),
        ({"share": 0.0}, "share=0.0"),
        ({"copies": 0}, "copies=0"),
        ({"kind": "synonyms"}, "needs words"),
        ({"kind": "masked"}, "needs a masked language model"),
    ],
)
def test_what_cannot_be(arguments, said):
    with pytest.raises(ValueError, match=said):
        data.augment(TEXTS, **arguments)


def test_one_text_is_no_list():
    with pytest.raises(TypeError, match="one text"):
        data.augment("a film")


def test_pseudo_labels_are_the_sure_ones(tmp_path):
    backbone, tokenizer = tiny.backbone(), tiny.tokenizer(tmp_path)
    classifier = tiny.perturb(tasks.TextClassifier(backbone, ["a", "b"], tokenizer=tokenizer, sequence_length=16))
    texts = [*tiny.TEXTS[:6]]
    chances = classifier.predict(texts)
    threshold = float(np.median(chances.max(1)))
    found = data.pseudo_labels(classifier, texts, threshold=threshold - 1e-4)
    assert 3 <= len(found.texts) < 6
    for text, label, weight, index in zip(*found, strict=True):
        assert text == texts[index] and weight == pytest.approx(chances[index].max(), abs=1e-5)
        assert label == ["a", "b"][int(chances[index].argmax())]
    assert set(range(6)) - set(found.indices) == set(np.flatnonzero(chances.max(1) < threshold - 1e-4).tolist())
    assert data.pseudo_labels(classifier, []) == ([], [], [], [])
    several = tasks.TextClassifier(backbone, ["a", "b"], "multi_label_classification", tokenizer=tokenizer)
    with pytest.raises(ValueError, match="one label a text"):
        data.pseudo_labels(several, texts)
    with pytest.raises(ValueError, match="threshold=0"):
        data.pseudo_labels(classifier, texts, threshold=0)


def test_replay_mixes_a_share_of_the_old():
    new, old = [f"new {i}" for i in range(20)], [f"old {i}" for i in range(30)]
    texts, labels = data.replay(new, ["n"] * 20, old, ["o"] * 30, share=0.5)
    assert len(texts) == 30 and labels.count("o") == 10 and len(set(texts)) == 30
    assert all(text[0] == label for text, label in zip(texts, labels, strict=True))
    assert labels != sorted(labels)
    assert data.replay(new, ["n"] * 20, old, ["o"] * 30, share=0.5) == (texts, labels)
    assert len(data.replay(new, ["n"] * 20, old, ["o"] * 30, share=9.0)[0]) == 50
    with pytest.raises(ValueError, match="share=0"):
        data.replay(new, ["n"] * 20, old, ["o"] * 30, share=0)
