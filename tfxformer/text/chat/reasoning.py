"""The reasoning that some models write before their answer, in `<think>` and `</think>`: told apart, or left out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

OPENING, CLOSING = "<think>", "</think>"  # of Qwen3, SmolLM3, DeepSeek-R1 and their kin
_BEFORE, _INSIDE, _BLANKS, _ANSWER = range(4)


def split_reasoning(text: str) -> tuple[str | None, str]:
    """The reasoning of an assistant's message, and its answer.

    `reasoning, answer = text.split_reasoning(lm.chat(messages))`

    Args:
        text: what the model wrote. The opening mark may be missing, as where the template has written it already.

    Returns:
        (the reasoning, stripped, or None where there is none; the answer without leading blanks, "" where the model was
        cut within its reasoning).
    """
    before, closing, after = text.partition(CLOSING)
    if not closing and not before.lstrip().startswith(OPENING):
        return None, text
    return before.lstrip().removeprefix(OPENING).strip(), after.lstrip()


def answers_only(pieces: Iterable[str], opened: bool = False) -> Iterator[str]:
    """The pieces of a streamed message without its reasoning, as they come.

    Args:
        pieces: of text, as `stream` gives them.
        opened: whether the prompt ends with the opening mark, so that the message begins within the reasoning.
    """
    held, state = "", _INSIDE if opened else _BEFORE
    for piece in pieces:
        held += piece
        if state == _BEFORE:
            start = held.lstrip()
            if not start.startswith(OPENING) and OPENING.startswith(start):
                continue  # blank, or what may still become the mark
            state = _INSIDE if start.startswith(OPENING) else _ANSWER
        if state == _INSIDE:
            _, closing, after = held.partition(CLOSING)
            if not closing:
                continue
            held, state = after, _BLANKS
        if state == _BLANKS:
            held = held.lstrip()
            if not held:
                continue
            state = _ANSWER
        yield held
        held = ""
    if state == _BEFORE and held:
        yield held
