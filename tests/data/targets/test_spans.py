"""Question answering windows, targets and decoding against plain loops over tokens."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfxformer.data.targets.spans import NULL_TOKEN, Windows, answer_spans, best_answers, encode_windows, span_targets
from tfxformer.text import Tokenizer

FIXTURES = Path(__file__).parents[2] / "text" / "fixtures"
TOKENIZERS = [Tokenizer.from_pretrained(FIXTURES / name) for name in ("bert-uncased", "roberta", "albert")]
WORDS = ["the", "fox", "jumps", "river", "unbelievable", "été", "中文", "a", "b,", "c."]
CONTEXT = st.lists(st.sampled_from(WORDS), max_size=60).map(" ".join)


@st.composite
def questions(draw):
    contexts = draw(st.lists(CONTEXT, min_size=1, max_size=3))
    return ["who is it?"] * len(contexts), contexts


@given(st.sampled_from(TOKENIZERS), questions(), st.data())
@settings(deadline=None, max_examples=80)
def test_targets_are_the_tokens_around_the_answer(tokenizer, texts, data):
    asked, contexts = texts
    answers = []
    for context in contexts:
        cuts = sorted(data.draw(st.lists(st.integers(0, len(context)), min_size=2, max_size=2)))
        answers.append(None if cuts[0] == cuts[1] else (cuts[0], cuts[1]))
    windows = encode_windows(tokenizer, asked, contexts, sequence_length=32)
    starts, stops = span_targets(windows, answer_spans(answers, contexts))
    assert starts.dtype == stops.dtype == np.int32
    for row, example in enumerate(windows.example_ids):
        tokens = np.flatnonzero(windows.in_context[row])
        offsets = windows.offsets[row]
        answer = answers[example]
        inside = answer and len(tokens) and offsets[tokens[0], 0] <= answer[0] and answer[1] <= offsets[tokens[-1], 1]
        if not inside:
            assert (starts[row], stops[row]) == (NULL_TOKEN, NULL_TOKEN)
            continue
        # The loops of the reference scripts (transformers, run_qa.py).
        first, last = tokens[0], tokens[-1]
        while first <= tokens[-1] and offsets[first, 0] <= answer[0]:
            first += 1
        while last >= tokens[0] and offsets[last, 1] >= answer[1]:
            last -= 1
        assert (starts[row], stops[row]) == (first - 1, max(last + 1, first - 1))


@given(st.sampled_from(TOKENIZERS), questions(), st.integers(0, 8))
@settings(deadline=None, max_examples=60)
def test_windows_together_hold_the_whole_context(tokenizer, texts, overlap):
    asked, contexts = texts
    windows = encode_windows(tokenizer, asked, contexts, sequence_length=32, overlap=overlap, segment_ids=False)
    assert sorted(windows.batch) == ["padding_mask", "token_ids"]
    assert windows.batch["token_ids"].shape[1] == 32
    full = tokenizer.encode(asked, contexts, sequence_length=2000, return_offsets=True)
    for example in range(len(contexts)):
        wanted = full.offsets[example][full.sequence_ids[example] == 1]
        rows = np.flatnonzero(windows.example_ids == example)
        parts = [windows.offsets[row][windows.in_context[row]] for row in rows]
        joined = np.concatenate([parts[0], *(part[overlap:] for part in parts[1:])])
        np.testing.assert_array_equal(joined, wanted)


def brute_force(windows: Windows, logits: np.ndarray, example: int, longest: int) -> dict:
    scores = {}
    for row in np.flatnonzero(windows.example_ids == example):
        for first in np.flatnonzero(windows.in_context[row]):
            for last in np.flatnonzero(windows.in_context[row]):
                span = int(windows.offsets[row, first, 0]), int(windows.offsets[row, last, 1])
                if first <= last < first + longest and span[0] < span[1]:
                    score = float(logits[row, first, 0]) + float(logits[row, last, 1])
                    scores[span] = max(score, scores.get(span, -np.inf))
    return scores


@given(
    st.sampled_from(TOKENIZERS),
    questions(),
    st.integers(0, 2**31),
    st.integers(1, 12),
    st.integers(1, 6),
    st.booleans(),
)
@settings(deadline=None, max_examples=80)
def test_best_answers_are_those_of_all_spans(tokenizer, texts, seed, n_best, longest, coarse):
    asked, contexts = texts
    windows = encode_windows(tokenizer, asked, contexts, sequence_length=32)
    logits = np.random.default_rng(seed).normal(size=(*windows.in_context.shape, 2)).astype(np.float32)
    if coarse:
        logits = np.round(logits)  # many ties
    found = best_answers(windows, logits, contexts, n_best=n_best, max_answer_length=longest)
    for example, answers in enumerate(found):
        scores = brute_force(windows, logits, example, longest)
        assert [answer.score for answer in answers] == sorted(scores.values(), reverse=True)[:n_best]
        assert len({(answer.start, answer.end) for answer in answers}) == len(answers)
        for answer in answers:
            assert answer.text == contexts[example][answer.start : answer.end] != ""
            assert answer.score == scores[answer.start, answer.end]
        if answers:
            weights = np.exp([answer.score for answer in answers])
            np.testing.assert_allclose([a.probability for a in answers], weights / weights.sum(), rtol=1e-9)


@given(st.integers(0, 2**31), st.floats(-4, 4), st.integers(1, 4))
@settings(deadline=None, max_examples=60)
def test_no_answer_wins_by_the_threshold(seed, threshold, n_best):
    context = "the quick brown fox jumps over the lazy dog " * 3
    windows = encode_windows(TOKENIZERS[0], ["who?"], [context], sequence_length=24)
    assert len(windows.example_ids) > 2
    logits = np.random.default_rng(seed).normal(size=(*windows.in_context.shape, 2))
    logits[:, NULL_TOKEN] += 2.5
    options = {"n_best": n_best, "max_answer_length": 5}
    best = best_answers(windows, logits, [context], **options)[0]
    found = best_answers(windows, logits, [context], **options, allow_no_answer=True, no_answer_threshold=threshold)[0]
    null = min(logits[row, 0, 0] + logits[row, 0, 1] for row in range(len(logits)))
    assert (found[0].text == "") == (null - best[0].score > threshold)
    assert len(found) == n_best
    assert [answer.text for answer in found if answer.text] == [a.text for a in best][
        : n_best - ("" in [f.text for f in found])
    ]
    if found[0].text == "":
        assert found[0].score == pytest.approx(null)


def test_answers_as_squad_writes_them():
    contexts = ["the quick brown fox", "b", "c"]
    answers = [{"text": ["quick"], "answer_start": [4]}, {"text": [], "answer_start": []}, None]
    assert answer_spans(answers, contexts).tolist() == [[4, 9], [-1, -1], [-1, -1]]
    assert answer_spans([{"text": "fox", "answer_start": 16}], contexts[:1]).tolist() == [[16, 19]]
    with pytest.raises(ValueError, match=r"answers\[0\] says 'quick' begins at character 5.*'uick '"):
        answer_spans([{"text": "quick", "answer_start": 5}], contexts[:1])
    for wrong in ((3, 3), (0, 99), (-2, 3), (5, 2)):
        with pytest.raises(ValueError, match=r"answers\[0\] is characters"):
            answer_spans([wrong], contexts[:1])
    with pytest.raises(ValueError, match="1 answers but 3 contexts"):
        answer_spans([None], contexts)


def test_bad_windows_and_logits():
    tokenizer = TOKENIZERS[0]
    with pytest.raises(ValueError, match="empty"):
        encode_windows(tokenizer, [], [], sequence_length=32)
    with pytest.raises(ValueError, match=r"texts\[1\] has \d+ tokens and is kept whole"):
        encode_windows(tokenizer, ["a", "a " * 30], ["b " * 50] * 2, sequence_length=32)
    windows = encode_windows(tokenizer, ["a"], ["b"], sequence_length=32)
    logits = np.zeros((1, 32, 2))
    with pytest.raises(ValueError, match="logits have shape"):
        best_answers(windows, logits[:, :8], ["b"])
    with pytest.raises(ValueError, match="at least 1"):
        best_answers(windows, logits, ["b"], n_best=0)
    assert best_answers(windows, logits, ["b"])[0][0].text == "b"
    empty = encode_windows(tokenizer, ["a"], [""], sequence_length=32)
    assert best_answers(empty, logits, [""]) == [[]]
    assert best_answers(empty, logits, [""], allow_no_answer=True)[0][0].text == ""
