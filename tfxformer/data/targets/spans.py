"""Extractive question answering: contexts in windows, answers as token spans, logits back to text.

Shape letters: B questions, W windows (at least one a question), S tokens of a window.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from tfxformer.data.batches import to_batch
from tfxformer.text import Tokenizer
from tfxformer.text.inputs import as_texts

NULL_TOKEN = 0  # the classifier token, where a window without an answer points


@dataclass(frozen=True)
class Windows:
    """Question and context pairs cut into windows that overlap.

    Attributes:
        batch: token_ids, padding_mask and, where the model has them, segment_ids, int32 [W,S].
        offsets: int32 [W,S,2], start and end character in the context; 0, 0 outside of it.
        in_context: bool [W,S], the tokens an answer may begin or end on.
        example_ids: int32 [W], the question of each window, ascending.
    """

    batch: dict[str, np.ndarray]
    offsets: np.ndarray
    in_context: np.ndarray
    example_ids: np.ndarray


@dataclass(frozen=True)
class Answer:
    """A piece of a context: `text` is context[start:end]; all empty and 0 for "no answer".

    `score` is the sum of its start and end logits, `probability` its share among the answers returned.
    """

    text: str
    start: int
    end: int
    score: float
    probability: float


def encode_windows(
    tokenizer: Tokenizer,
    questions: Iterable[str],
    contexts: Iterable[str],
    *,
    sequence_length: int,
    overlap: int | None = None,
    segment_ids: bool = True,
) -> Windows:
    """Encodes each question with its context, in as many windows of S tokens as the context needs.

    Args:
        sequence_length: S.
        overlap: context tokens two neighbouring windows share; None takes a quarter of S, at most 128.
        segment_ids: whether the model takes them.

    Raises:
        ValueError: a question that leaves its context no more room than the overlap.
    """
    questions, contexts = as_texts(questions, "questions"), as_texts(contexts, "contexts")
    if not questions:
        raise ValueError("The dataset is empty: no question was given.")
    encoding = tokenizer.encode(
        questions,
        contexts,
        sequence_length=sequence_length,
        truncation="only_second",
        return_overflow=True,
        overlap=min(sequence_length // 4, 128) if overlap is None else overlap,
        return_offsets=True,
    )
    in_context = encoding.sequence_ids == 1
    return Windows(
        batch=to_batch(encoding, segment_ids),
        offsets=np.where(in_context[..., None], encoding.offsets, 0),
        in_context=in_context,
        example_ids=encoding.overflow_to_sample,
    )


def answer_spans(answers: Sequence[Any], contexts: Sequence[str]) -> np.ndarray:
    """Character spans int64 [B,2] of answers, -1, -1 for none.

    An answer is None, a (start, end) of characters, or a SQuAD dict with "text" and "answer_start" (values or
    lists, of which the first counts; empty lists mean no answer).

    Raises:
        ValueError: an answer that does not stand in its context where it says.
    """
    if len(answers) != len(contexts):
        raise ValueError(f"{len(answers)} answers but {len(contexts)} contexts: give each its answer, or None.")
    spans = np.full((len(answers), 2), -1, np.int64)
    for index, (answer, context) in enumerate(zip(answers, contexts, strict=True)):
        if not _is_answer(answer):
            raise ValueError(
                f"answers[{index}] is {answer!r:.80}; wanted (start, end) of characters, SQuAD's "
                '{"text": ..., "answer_start": ...}, or None for no answer.'
            )
        if isinstance(answer, Mapping):
            text, start = _first(answer["text"]), _first(answer["answer_start"])
            answer = None if text is None or start is None else (int(start), int(start) + len(text))
            if answer is not None and context[answer[0] : answer[1]] != text:
                raise ValueError(
                    f"answers[{index}] says {text!r} begins at character {start}, but the context has "
                    f"{context[answer[0] : answer[1]]!r} there."
                )
        if answer is None:
            continue
        start, end = answer
        if not 0 <= start < end <= len(context):
            raise ValueError(
                f"answers[{index}] is characters {start} to {end} of a context of {len(context)}; wanted a "
                "span inside it, or None for no answer."
            )
        spans[index] = start, end
    return spans


def _is_answer(answer) -> bool:
    if isinstance(answer, Mapping):
        return "text" in answer and "answer_start" in answer
    return answer is None or (np.shape(answer) == (2,) and np.asarray(answer).dtype.kind in "iu")


def span_targets(windows: Windows, spans: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """First and last token of each window's answer, int32 [W] each; `NULL_TOKEN` where it is not whole.

    Args:
        spans: character spans of the questions, int [B,2], from `answer_spans`.
    """
    spans = spans[windows.example_ids]  # [W,2]
    begins, ends = windows.offsets[..., 0], windows.offsets[..., 1]  # [W,S]
    inside = windows.in_context
    last = inside.shape[1] - 1
    # The last token that begins at or before the answer, and from there the first that ends at or after it.
    # (Pieces of one character share its offsets: looked for alone, the second could lie before the first.)
    before = inside & (begins <= spans[:, :1])
    starts = last - np.argmax(before[:, ::-1], axis=1)
    after = inside & (ends >= spans[:, 1:]) & (np.arange(last + 1) >= starts[:, None])
    stops = np.argmax(after, axis=1)
    whole = before.any(axis=1) & after.any(axis=1) & (spans[:, 0] >= 0)
    return (
        np.where(whole, starts, NULL_TOKEN).astype(np.int32),
        np.where(whole, stops, NULL_TOKEN).astype(np.int32),
    )


def best_answers(
    windows: Windows,
    logits: np.ndarray,
    contexts: Sequence[str],
    *,
    n_best: int = 1,
    max_answer_length: int = 30,
    allow_no_answer: bool = False,
    no_answer_threshold: float = 0.0,
) -> list[list[Answer]]:
    """The n best distinct spans of each context over all its windows, best first.

    Source: the decoding of Devlin et al. 2018 (arXiv:1810.04805, 4.2 and 4.3), over every allowed span.

    Args:
        logits: float [W,S,2], start and end logits of the windows.
        n_best: answers to return for each question; fewer where there are no more.
        max_answer_length: longest answer in tokens.
        allow_no_answer: let "no answer" compete: its score is the lowest of the windows' (each points at
            its classifier token), and it comes first where it beats the best span by more than
            `no_answer_threshold`.

    Returns:
        B lists of `Answer`, empty only for a context without tokens where "no answer" is not allowed.
    """
    if n_best < 1 or max_answer_length < 1:
        raise ValueError(f"n_best={n_best} and max_answer_length={max_answer_length} must be at least 1.")
    logits = np.asarray(logits, np.float64)
    if logits.shape != (*windows.in_context.shape, 2):
        raise ValueError(f"logits have shape {logits.shape}, wanted {(*windows.in_context.shape, 2)}.")
    answers = []
    for example, context in enumerate(contexts):
        rows = range(*np.searchsorted(windows.example_ids, [example, example + 1]))
        found: dict[tuple[int, int], float] = {}
        for row in rows:
            spans = _window_spans(windows, logits[row], row, n_best, max_answer_length)
            for span, score in spans.items():
                found[span] = max(score, found.get(span, -np.inf))  # windows overlap
        ranked = sorted(found.items(), key=lambda item: (-item[1], item[0]))[:n_best]
        if allow_no_answer:
            null = float(logits[rows, NULL_TOKEN].sum(axis=-1).min())
            wins = not ranked or null - ranked[0][1] > no_answer_threshold
            position = 0 if wins else max(1, sum(score >= null for _, score in ranked))
            ranked = [*ranked[:position], ((0, 0), null), *ranked[position:]][:n_best]
        answers.append(_answers(ranked, context))
    return answers


def _window_spans(
    windows: Windows, logits: np.ndarray, row: int, n_best: int, max_answer_length: int
) -> dict[tuple[int, int], float]:
    """The n best distinct character spans of one window with their scores."""
    tokens = np.flatnonzero(windows.in_context[row])
    if not tokens.size:
        return {}
    offsets = windows.offsets[row, tokens]  # [T,2], T context tokens
    ends = np.pad(logits[tokens, 1], (0, max_answer_length - 1), constant_values=-np.inf)
    band = logits[tokens, :1] + sliding_window_view(ends, max_answer_length)  # [T, first token by length - 1]
    scores = band.ravel()
    count = int(np.isfinite(scores).sum())
    size, best = n_best, {}
    # Pieces may share characters (bytes of one) or have none, so n distinct spans may need more candidates.
    while len(best) < n_best:
        size = min(4 * size, count)
        top = np.argpartition(scores, -size)[-size:]
        best = {}
        for flat in top[np.argsort(-scores[top], kind="stable")]:
            first, extra = divmod(int(flat), max_answer_length)
            span = int(offsets[first, 0]), int(offsets[first + extra, 1])
            if span[0] < span[1]:
                best.setdefault(span, float(scores[flat]))
            if len(best) == n_best:
                break
        if size == count:
            break
    return best


def _answers(ranked: list[tuple[tuple[int, int], float]], context: str) -> list[Answer]:
    scores = np.array([score for _, score in ranked])
    shares = np.exp(scores - scores.max(initial=-np.inf)) if len(ranked) else scores
    return [
        Answer(context[start:end], start, end, score, float(share / shares.sum()))
        for ((start, end), score), share in zip(ranked, shares, strict=True)
    ]


def _first(value: Any) -> Any:
    """A value, or the first of a list of them, None of an empty one."""
    if isinstance(value, (list, tuple, np.ndarray)):
        return value[0] if len(value) else None
    return value
