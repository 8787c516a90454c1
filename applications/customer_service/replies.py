"""The chat model's reply to a question, and what of it stands in the answer that it was given."""

from __future__ import annotations

import re

import numpy as np
from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

from tfxformer.data.evaluation import answer_scores
from tfxformer.recipes import report

GROUNDS = (
    "You answer customers. Answer the question in one or two short sentences, by what this text says and nothing "
    "else.\n\nText: {answer}\n\nQuestion: {question}"
)


def messages(question: str, answer: str | None) -> list[dict]:
    """What the chat model is asked; None for the question alone."""
    content = question if answer is None else GROUNDS.format(answer=answer, question=question)
    return [{"role": "user", "content": content}]


def content_words(text: str) -> list[str]:
    """The words and numbers of a text, without those that say nothing ("the", "is")."""
    return [word for word in re.findall(r"[a-z0-9]+", text.casefold()) if word not in ENGLISH_STOP_WORDS]


def grounded(reply: str, answer: str) -> float:
    """The share of a reply's content words that stand in an answer; 0 for a reply without any."""
    words, known = content_words(reply), set(content_words(answer))
    return sum(word in known for word in words) / len(words) if words else 0.0


def measured(replies: list[str], retrieved: list[str], wanted: list[str]) -> dict:
    """How replies hold on to the retrieved answers, and how near they come to the right ones.

    Returns:
        dict: grounded, f1 and words, each the mean and its 95 % interval, and for comparisons each f1.
    """
    each = {
        "grounded": [grounded(*pair) for pair in zip(replies, retrieved, strict=True)],
        "f1": [answer_scores([reply], [answer])["f1"] for reply, answer in zip(replies, wanted, strict=True)],
        "words": [float(len(reply.split())) for reply in replies],
    }
    return {
        **{
            name: {"mean": float(np.mean(values)), "interval": report.interval(values)} for name, values in each.items()
        },
        "each_f1": each["f1"],
    }
