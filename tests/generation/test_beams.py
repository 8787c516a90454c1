"""Beam search against all texts there are, and against transformers' sequences and scores."""

import itertools

import numpy as np
import pytest
from test_generate import padded
from trigram import VOCABULARY_SIZE, Trigram

from tfxformer.generation import Beams, RepetitionPenalty, beam_search, generate

PROMPTS = [[5, 6, 7, 8, 9], [11, 12], [20]]
SETTINGS = [
    ({}, (), False),
    ({"length_penalty": 0.5, "early_stopping": True}, (1,), True),
    ({"length_penalty": 2.0, "early_stopping": "never"}, (2,), False),
    ({"length_penalty": -1.0}, (2,), False),
    ({"length_penalty": 1.0, "early_stopping": "never"}, (1, 3), False),
]


@pytest.mark.parametrize("penalty", [1.0, 0.3])
def test_enough_beams_find_the_best_of_all(penalty):
    """As many beams as texts of two tokens: every text of three is a candidate."""
    model = Trigram(seed=3)
    beams = Beams(VOCABULARY_SIZE**2, length_penalty=penalty)
    found = beam_search(model, [[1], [2, 3]], 3, beams=beams, num_return_sequences=3, jit_compile=False)
    for prompt, best in (([1], found[:3]), ([2, 3], found[3:])):
        texts = itertools.product(range(VOCABULARY_SIZE), repeat=3)
        scores = {text: model.score(prompt, text) / 3**penalty for text in texts}
        for beam, text in zip(best, sorted(scores, key=scores.get, reverse=True), strict=False):
            assert tuple(beam.ids) == text
            assert beam.score == pytest.approx(scores[text], abs=1e-5)


def test_one_beam_is_greedy():
    model = Trigram(seed=5)
    wanted = [model.greedy([1], 9), model.greedy([2, 3], 9)]
    assert generate(model, [[1], [2, 3]], 9, sampler=Beams(1), jit_compile=False) == wanted


def test_scores_are_those_of_their_texts():
    """With stops: each text ends at its first one, and its score is by its own length."""
    model, prompts = Trigram(seed=8, scale=1.0), [[1], [2, 3]]
    found = beam_search(
        model, prompts, 12, beams=Beams(3, length_penalty=0.7), num_return_sequences=3, stop_ids=[4], jit_compile=False
    )
    assert any(beam.ids[-1] == 4 for beam in found)
    for index, beam in enumerate(found):
        assert 4 not in beam.ids[:-1]
        score = model.score(prompts[index // 3], beam.ids) / len(beam.ids) ** 0.7
        assert beam.score == pytest.approx(score, abs=1e-4)


def theirs(model, stops, beams, **arguments):
    found = model.generate(
        **padded(PROMPTS),
        max_new_tokens=10,
        num_beams=beams.num_beams,
        num_return_sequences=2,
        length_penalty=beams.length_penalty,
        early_stopping=beams.early_stopping,
        eos_token_id=list(stops) or None,
        pad_token_id=0,
        do_sample=False,
        return_dict_in_generate=True,
        output_scores=True,
        **arguments,
    )
    texts = []
    for row in found.sequences[:, 5:].tolist():
        end = next((at + 1 for at, token in enumerate(row) if token in stops), len(row))
        texts.append(row[:end])
    return texts, found.sequences_scores.numpy()


@pytest.mark.reference
@pytest.mark.parametrize(("settings", "stops", "jit"), SETTINGS)
@pytest.mark.parametrize("name", ["gpt2-lm", pytest.param("llama-lm", marks=pytest.mark.slow)])
def test_equals_transformers(name, settings, stops, jit, decoder, reference):
    """Unequal prompts; the stop ids are tokens that greedy texts really have."""
    model, beams = decoder(name), Beams(3, **settings)
    usual = generate(model, PROMPTS[:1], 12, jit_compile=False)[0]
    stops = [usual[at] for at in stops]
    found = beam_search(
        model, PROMPTS, 10, beams=beams, num_return_sequences=2, stop_ids=stops, jit_compile=jit and name == "gpt2-lm"
    )
    texts, scores = theirs(reference(name), stops, beams)
    assert [beam.ids for beam in found] == texts
    np.testing.assert_allclose([beam.score for beam in found], scores, rtol=1e-5, atol=1e-5)


@pytest.mark.reference
def test_penalty_equals_transformers(decoder, reference, monkeypatch):
    """Processors change log probabilities; one row, since transformers counts padding as a token."""
    monkeypatch.setattr(f"{__name__}.PROMPTS", PROMPTS[:1])
    texts, scores = theirs(reference("gpt2-lm"), (), Beams(3), repetition_penalty=1.4)
    processors = [RepetitionPenalty(1.4)]
    found = beam_search(
        decoder("gpt2-lm"),
        PROMPTS[:1],
        10,
        beams=Beams(3),
        num_return_sequences=2,
        processors=processors,
        jit_compile=False,
    )
    assert [beam.ids for beam in found] == texts
    np.testing.assert_allclose([beam.score for beam in found], scores, rtol=1e-5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Beams(0), "num_beams must be a whole number of at least 1"),
        (lambda: Beams(early_stopping="always"), 'True, False or "never"'),
        (lambda: Beams(length_penalty=float("inf")), "finite"),
        (lambda: beam_search(Trigram(), [[1]], 3, beams=Beams(9), stop_ids=range(7)), "72 candidates"),
    ],
)
def test_impossible_values_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
