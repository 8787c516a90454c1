"""Calls of tools in what a model wrote: read, and told apart from the text around them.

Formats: `<tool_call>` around JSON (Hermes, Qwen 2.5 and 3, SmolLM3), a bare JSON object with "name" and "parameters"
(Llama 3), and Mistral's list of objects. Source: the chat templates of these models, which ask for them in these words.
"""

from __future__ import annotations

import json
import re
from typing import Any, NoReturn

from tfxformer.text.chat.reasoning import CLOSING as REASONED
from tfxformer.text.chat.reasoning import OPENING as REASONING

OPENING, CLOSING = "<tool_call>", "</tool_call>"
_OF_MISTRAL, _OF_LLAMA = "[TOOL_CALLS]", "<|python_tag|>"  # special tokens, which decoded text mostly lacks
_ARGUMENTS = ("arguments", "parameters")  # what the argument's object is called


def parse_tool_calls(text: str) -> tuple[list[dict[str, Any]], str]:
    """The calls of tools in an assistant's message, and the rest of its text.

    They go back into the conversation as they are, each followed by what the tool gave:

        calls, said = text.parse_tool_calls(lm.chat(messages, tools=[weather]))
        messages.append({"role": "assistant", "content": said, "tool_calls": calls})
        for call in calls:
            found = weather(**call["function"]["arguments"])
            messages.append({"role": "tool", "name": "weather", "content": json.dumps(found)})
        answer = lm.chat(messages, tools=[weather])

    The model chooses names and arguments: check both before anything runs. Nothing is called within reasoning
    (`<think>`), which stays in the rest. A Llama's bare JSON is a call where the whole message is one.

    Args:
        text: what the model wrote.

    Returns:
        The calls in order, and the text without them, stripped, or all of it where there are none. A call is
        `{"type": "function", "function": {"name": ..., "arguments": {...}}}`, with "id" where the model gave one.

    Raises:
        ValueError: for a marked call that is no JSON, or lacks a name or an object of arguments.
    """
    thought, said = _after_reasoning(text)
    if OPENING in said:
        calls, rest = _between_marks(said)
    elif said.lstrip().startswith(_OF_MISTRAL):
        body = said.lstrip().removeprefix(_OF_MISTRAL)
        value, end = _decoded(body, 0, _OF_MISTRAL)
        calls, rest = _calls(value, _OF_MISTRAL), body[end:]
    else:
        calls, rest = _bare(said.strip().removeprefix(_OF_LLAMA)), ""
    return (calls, (thought + rest).strip()) if calls else ([], text)


def _after_reasoning(text: str) -> tuple[str, str]:
    """What the model thought, with its marks, and what it said then."""
    before, closing, after = text.partition(REASONED)
    if closing:
        return before + closing, after
    return (text, "") if text.lstrip().startswith(REASONING) else ("", text)


def _between_marks(text: str) -> tuple[list[dict], str]:
    calls, rest, place = [], [], 0
    while (start := text.find(OPENING, place)) >= 0:
        rest.append(text[place:start])
        value, place = _decoded(text, start + len(OPENING), OPENING)
        calls += _calls(value, OPENING)
        closing = re.compile(rf"\s*(?:{CLOSING}|\Z)").match(text, place)  # an end token may stand for the last one
        if closing is None:
            raise _refusal(
                OPENING, f"goes on behind its JSON with {text[place : place + 30]!r}, where {CLOSING} was due"
            )
        place = closing.end()
    return calls, "".join([*rest, text[place:]])


def _bare(text: str) -> list[dict]:
    """The calls of a text that is nothing but calls, one behind the other or in a list; else none."""
    found, place = [], 0
    try:
        while place < len(text):
            value, place = _DECODER.raw_decode(text, re.compile(r"[\s;]*").match(text, place).end())
            found += value if isinstance(value, list) else [value]
        return _calls(found, "JSON")
    except (ValueError, RecursionError):
        return []


def _calls(value, mark: str) -> list[dict]:
    """One call, or those of a list, as messages have them."""
    calls = []
    for one in value if isinstance(value, list) else [value]:
        name = one.get("name") if isinstance(one, dict) else None
        if not isinstance(name, str) or not name:
            raise _refusal(mark, f'holds {one!r:.80}; wanted {{"name": ..., "arguments": {{...}}}}')
        arguments = next((one[key] for key in _ARGUMENTS if key in one), None)
        if not isinstance(arguments, dict):
            raise _refusal(
                mark, f"of {name!r} has the arguments {arguments!r:.80}; wanted an object of them by their names"
            )
        call = {"type": "function", "function": {"name": name, "arguments": arguments}}
        calls.append({**call, "id": one["id"]} if isinstance(one.get("id"), str) else call)
    return calls


def _decoded(text: str, start: int, mark: str) -> tuple[Any, int]:
    """The JSON value that begins behind a mark, and the place behind it."""
    start = re.compile(r"\s*").match(text, start).end()
    try:
        return _DECODER.raw_decode(text, start)
    except json.JSONDecodeError as error:
        where = f"{error.msg} at character {error.pos - start} of {text[start : start + 200]!r}"
        raise _refusal(mark, f"is no JSON: {where}") from error
    except (ValueError, RecursionError) as error:
        raise _refusal(mark, f"is no JSON that can be read: {type(error).__name__}: {error}") from error


def _refusal(mark: str, what: str) -> ValueError:
    return ValueError(
        f"The tool call behind {mark} {what}. The model wrote it so: let it answer again, or take the message as text."
    )


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")


_DECODER = json.JSONDecoder(parse_constant=_no_constant)
