"""What a causal language model is trained on: texts, prompts with answers, or conversations, as token documents."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tfxformer.arguments import notices
from tfxformer.data.targets.packing import Documents, join
from tfxformer.text import Tokenizer
from tfxformer.text.inputs import as_list, as_texts

ANSWERING_ROLE = "assistant"


def is_conversations(x: Any) -> bool:
    """Whether `x` is a list of conversations: lists of messages with "role" and "content"."""
    return (
        isinstance(x, (list, tuple))
        and len(x) > 0
        and isinstance(x[0], (list, tuple))
        and len(x[0]) > 0
        and isinstance(x[0][0], Mapping)
    )


def text_documents(tokenizer: Tokenizer, texts: Sequence[str], end: bool = True) -> Documents:
    """One document for each text, every token of it to be predicted.

    Args:
        end: append the end token, where the tokenizer has one and does not write it itself.
    """
    rows = tokenizer.ids(texts)
    return join([_ended(tokenizer, row) for row in rows] if end else rows)


def answer_documents(tokenizer: Tokenizer, prompts: Sequence[str], answers: Sequence[str]) -> Documents:
    """Prompts, which are only read, followed by answers and end tokens, which are to be predicted.

    A prompt is tokenized apart from its answer, as it will be when text is generated after it; whatever stands between
    the two (a space, a line break) is part of one of them.

    Raises:
        TypeError, ValueError: for what is no text, and for another number of answers than of prompts.
    """
    prompts, answers = as_texts(prompts, "prompts"), as_texts(as_list(answers, "answers"), "answers")
    if len(prompts) != len(answers):
        raise ValueError(f"{len(prompts)} prompts but {len(answers)} answers: give each prompt its answer.")
    rows, wanted = [], []
    read = [_without_end(tokenizer, row) for row in tokenizer.ids(prompts)]
    for prompt, answer in zip(read, tokenizer.ids(answers, special_tokens=False), strict=True):
        answer = _ended(tokenizer, answer)
        rows.append(prompt + answer)
        wanted.append([False] * len(prompt) + [True] * len(answer))
    return join(rows, wanted)


def conversation_documents(tokenizer: Tokenizer, conversations: Sequence[Sequence[Mapping]]) -> Documents:
    """Conversations as the tokenizer's chat template renders them; to be predicted is what the assistant says.

    Raises:
        ValueError: for a conversation without an answer, and for a template that writes earlier messages anew when
            later ones come.
    """
    rows, wanted = [], []
    for index, messages in enumerate(conversations):
        pieces, answers = _pieces(tokenizer, list(messages), index)
        ids = tokenizer.ids(pieces, special_tokens=False)  # the template writes the special tokens
        rows.append([token for piece in ids for token in piece])
        wanted.append([answer for piece, answer in zip(ids, answers, strict=True) for _ in piece])
    return join(rows, wanted)


def _pieces(tokenizer: Tokenizer, messages: list, index: int) -> tuple[list[str], list[bool]]:
    """A rendered conversation, cut before and after each answer, and which of the pieces are answers."""
    pieces, answers, done = [], [], ""
    for last, message in enumerate(messages):
        if message.get("role") != ANSWERING_ROLE:
            continue
        read = tokenizer.apply_chat_template(messages[:last], add_generation_prompt=True) if last else ""
        answered = tokenizer.apply_chat_template(messages[: last + 1], add_generation_prompt=False)
        if not (read.startswith(done) and answered.startswith(read)):
            raise ValueError(
                f"Conversation {index}: the chat template writes earlier messages anew once message {last} has come, "
                "so what is answer cannot be told: render prompts and answers yourself and fit(prompts, answers)."
            )
        pieces += [read[len(done) :], answered[len(read) :]]
        answers += [False, True]
        done = answered
    if not pieces:
        raise ValueError(f'Conversation {index} has no message of the role "{ANSWERING_ROLE}": nothing to learn.')
    return pieces, answers


def shortened(documents: Documents, limit: int) -> Documents:
    """Documents of at most `limit` tokens: longer ones lose their end, which one warning says."""
    lengths = documents.lengths
    cut = lengths > limit
    if not cut.any():
        return documents
    notices.warn(
        f"{cut.sum()} of {len(lengths)} examples were longer than {limit} tokens and lost their end: give a longer "
        "sequence_length to keep it."
    )
    within = np.arange(len(documents.ids)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    kept = within < limit
    wanted = None if documents.wanted is None else documents.wanted[kept]
    return Documents(documents.ids[kept], np.minimum(lengths, limit), wanted)


def _ended(tokenizer: Tokenizer, row: list[int]) -> list[int]:
    end = tokenizer.eos_id
    return row if end is None or row[-1:] == [end] else [*row, end]


def _without_end(tokenizer: Tokenizer, row: list[int]) -> list[int]:
    # Of a tokenizer that ends every text itself; one that also begins with this token keeps that.
    return row[:-1] if len(row) > 1 and row[-1] == tokenizer.eos_id else row
