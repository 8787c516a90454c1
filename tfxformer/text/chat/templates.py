"""Chat templates: messages rendered as a checkpoint's jinja template says, in a sandbox, as transformers does.

A template is code that came with a checkpoint: it runs in jinja's immutable sandbox, and sees nothing but plain
strings. Source: transformers, utils/chat_template_utils.py.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from datetime import datetime
from functools import lru_cache
from typing import Any

from tfxformer.arguments.keywords import refuse_unknown
from tfxformer.text.chat.function_schemas import function_schema
from tfxformer.text.inputs import check_unicode

# For models that learned turns without any role, as DialoGPT did (Zhang et al. 2019, arXiv:1911.00536): every message
# is followed by the end token. `tokenizer.apply_chat_template(messages, template=chat.TURNS)`.
TURNS = "{% for message in messages %}{{ message['content'] + eos_token }}{% endfor %}"

DEFAULT, TOOL_USE = "default", "tool_use"  # names of templates
_REASONING = ("reasoning_content", "thinking", "reasoning")  # what APIs call the reasoning of a message
LONGEST = 1_000_000  # characters of a template; the longest known has 30,000


def templates(config: Mapping[str, Any]) -> dict[str, str]:
    """The chat templates of a tokenizer_config.json by name; one without a name is "default".

    Raises:
        ValueError: for something that is no template.
    """
    stated = config.get("chat_template")
    if stated is None:
        return {}
    if isinstance(stated, list):  # the older spelling of several
        try:
            stated = {entry["name"]: entry["template"] for entry in stated}
        except (TypeError, KeyError) as error:
            raise ValueError("tokenizer_config.json lists chat templates without name and template.") from error
    if not isinstance(stated, Mapping):
        stated = {DEFAULT: stated}
    for template in stated.values():
        if not isinstance(template, str):
            raise ValueError(f"The tokenizer's chat template is a {type(template).__name__}, not a string.")
    return dict(stated)


def chosen_template(config: Mapping[str, Any], wanted: str | None = None, with_tools: bool = False) -> str | None:
    """The template to render with; None where there is none.

    As in transformers: of several the one that was asked for by its name; with tools the one called "tool_use", where
    there is one; else "default".

    Args:
        config: of tokenizer_config.json.
        wanted: a name, or jinja source.
        with_tools: whether tools are given.

    Raises:
        ValueError: for several without a default, or something that is no template.
    """
    known = templates(config)
    if wanted is not None:
        if wanted not in known and "{" not in wanted:
            raise ValueError(
                f"There is no chat template called {wanted!r}; the tokenizer has {', '.join(sorted(known)) or 'none'}."
            )
        return known.get(wanted, wanted)
    if with_tools and TOOL_USE in known:
        return known[TOOL_USE]
    if known and DEFAULT not in known:
        raise ValueError(
            f"The tokenizer has the chat templates {', '.join(sorted(known))} and no default: pass the name of one as "
            "`template`, or its text."
        )
    return known.get(DEFAULT)


def apply(config, special_tokens, messages, template, add_generation_prompt, variables) -> str:
    """See `Tokenizer.apply_chat_template`: `config` is its tokenizer_config.json, `special_tokens` {role: token}."""
    chosen = chosen_template(config, template, variables.get("tools") is not None)
    if chosen is None:
        refuse_unknown(variables, ("tools", "documents"), "A conversation without a chat template")
        raise ValueError(
            "This tokenizer has no chat template: it is that of a model without chat training. Pass the template "
            "it was trained with as `template`, or text.TURNS, with which every message ends in the end token."
        )
    known = {role: token for role, token in special_tokens.items() if token is not None}
    return render(chosen, messages, known, add_generation_prompt, variables)


def render(
    template: str,
    messages: Iterable[Mapping[str, Any]],
    special_tokens: Mapping[str, str],
    add_generation_prompt: bool,
    variables: Mapping[str, Any] | None = None,
) -> str:
    """A conversation as one text.

    Args:
        template: jinja source.
        messages: dicts with "role" and "content", first to last.
        special_tokens: what a template calls "bos_token", "eos_token", ...
        add_generation_prompt: whether to end with the beginning of the assistant's next message.
        variables: what else the template reads ("tools", "documents", ...), as JSON has it.

    Raises:
        TypeError, ValueError: for messages or variables in a wrong form, a variable that the template does not read, a
            template that is not readable, that refuses these messages, that reaches for what its sandbox forbids, or
            that would take more steps or memory than any conversation needs (`template_sandbox`).
    """
    if len(template) > LONGEST:
        raise ValueError(f"The chat template has {len(template):,} characters; {LONGEST:,} are the most.")
    checked = {"messages": _messages(messages), **_variables(template, variables or {})}
    if any(isinstance(message.get("content"), list) for message in checked["messages"]) and not _reads_parts(template):
        checked["messages"] = [_joined(message) for message in checked["messages"]]
    from jinja2 import TemplateError, TemplateSyntaxError
    from jinja2.exceptions import SecurityError

    from tfxformer.text.chat.template_sandbox import TooMuchError, budgeted

    values = {"tools": None, "documents": None, **special_tokens, **checked}
    try:
        with budgeted(_characters(checked)):
            return _compiled(template).render(add_generation_prompt=add_generation_prompt, **values)
    except TemplateSyntaxError as error:
        raise ValueError(f"The chat template is not readable: {error.message} (line {error.lineno}).") from error
    except SecurityError as error:
        raise ValueError(f"The chat template tries to leave its sandbox, and was stopped: {error}.") from error
    except TooMuchError as error:
        raise ValueError(f"The chat template was stopped: {error}, more than a conversation needs.") from error
    except TemplateError as error:
        raise ValueError(f"The chat template refuses these messages: {error}.") from error
    except Exception as error:  # a template can raise whatever an expression can
        raise ValueError(f"The chat template fails on these messages: {type(error).__name__}: {error}.") from error


def _characters(value) -> int:
    """How much a plain value has to say: its characters, and one for each entry."""
    if isinstance(value, (dict, list)):
        return sum(map(_characters, value.values() if isinstance(value, dict) else value), len(value))
    return len(value) if isinstance(value, str) else 1


def _variables(template: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Variables as fresh plain values, each one that the template reads."""
    given = {name: value for name, value in given.items() if name not in ("tools", "documents") or value is not None}
    tools = given.get("tools")
    if isinstance(tools, (list, tuple)):
        given["tools"] = [function_schema(tool) if callable(tool) else tool for tool in tools]
    for name in ("tools", "documents"):
        value = given.get(name, [])
        if not isinstance(value, (list, tuple)) or not all(isinstance(one, Mapping) for one in value):
            also = " or functions" if name == "tools" else ""
            raise TypeError(f"{name} is a list of dicts{also}, not {value!r}.")
    if given:
        refuse_unknown(given, sorted(read_variables(template)), "The chat template")
    try:
        return json.loads(json.dumps(given))
    except (TypeError, ValueError) as error:
        raise TypeError(f"Variables of a chat template hold plain strings, numbers and lists only: {error}.") from error


def read_variables(template: str) -> frozenset[str]:
    """The names that a chat template reads and the caller may give; none for a template that is not readable."""
    from jinja2 import TemplateSyntaxError, meta

    environment = _environment()
    try:
        names = meta.find_undeclared_variables(environment.parse(template))
    except TemplateSyntaxError:
        return frozenset()
    return frozenset(names - environment.globals.keys() - {"messages", "add_generation_prompt"})


def _messages(messages: Iterable[Mapping[str, str]]) -> list[dict[str, Any]]:
    """Messages as fresh plain dicts."""
    wanted = 'a list of messages like {"role": "user", "content": "Hello"}'
    if isinstance(messages, (str, bytes, Mapping)) or not isinstance(messages, Iterable):
        raise TypeError(f"A conversation must be {wanted}, got a {type(messages).__name__}.")
    messages = list(messages)
    if not messages:
        raise ValueError(f"A conversation must be {wanted}, got an empty one.")
    for index, message in enumerate(messages):
        if isinstance(message, (list, tuple)):
            raise TypeError(f"messages[{index}] is itself a {type(message).__name__}: render one conversation a call.")
        if not isinstance(message, Mapping):
            raise TypeError(f"messages[{index}] is a {type(message).__name__}; a conversation is {wanted}.")
        for key in ("role", "content"):
            if key == "content" and message.get(key) is None and message.get("tool_calls"):
                continue  # a message that calls tools need not say anything
            if key not in message:
                raise ValueError(
                    f"messages[{index}] has no {key!r}, only {sorted(map(str, message))}; wanted {wanted}."
                )
            for text in _texts(message[key], f"messages[{index}][{key!r}]", key == "content"):
                if not isinstance(text, str):
                    raise TypeError(f"messages[{index}][{key!r}] is {type(message[key]).__name__}, not str.")
                check_unicode(text, f"messages[{index}][{key!r}]")
    try:
        kept = [{key: value for key, value in message.items() if value is not None} for message in messages]
        return json.loads(json.dumps([_with_reasoning(message) for message in kept]))
    except (TypeError, ValueError) as error:
        raise TypeError(f"Messages hold plain strings, numbers and lists only: {error}.") from error


def _texts(said, where: str, may_be_parts: bool) -> list:
    """The texts of a message: one, or those of the parts that an API's content may have.

    Raises:
        ValueError: for a part that is no text.
    """
    if not may_be_parts or not isinstance(said, (list, tuple)):
        return [said]
    for place, part in enumerate(said):
        kind = part.get("type") if isinstance(part, Mapping) else type(part).__name__
        if kind != "text" or "text" not in part:
            raise ValueError(
                f'{where}[{place}] is {part!r:.80}; models here read texts only: {{"type": "text", "text": "Hello"}}.'
            )
    return [part["text"] for part in said]


def _joined(message: dict[str, Any]) -> dict[str, Any]:
    """A message whose content is one text, for templates that know no parts: each part on a line of its own."""
    if not isinstance(message.get("content"), list):
        return message
    return {**message, "content": "\n".join(part["text"] for part in message["content"])}


@lru_cache(maxsize=16)
def _reads_parts(template: str) -> bool:
    """Whether a template goes through the parts of a message's content; others would print the list."""
    from jinja2 import TemplateSyntaxError, nodes

    def is_content(node, names=()) -> bool:
        while isinstance(node, nodes.Filter) and node.node is not None:
            node = node.node
        if isinstance(node, nodes.Name):
            return node.name in names
        if isinstance(node, nodes.Getattr):
            return node.attr == "content"
        return isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Const) and node.arg.value == "content"

    try:
        tree = _environment().parse(template)
    except TemplateSyntaxError:  # rendering says what is wrong with it
        return True
    names = {
        assigned.target.name
        for assigned in tree.find_all(nodes.Assign)
        if isinstance(assigned.target, nodes.Name) and is_content(assigned.node)
    }
    return any(is_content(loop.iter, names) for loop in tree.find_all(nodes.For))


def _with_reasoning(message: dict[str, Any]) -> dict[str, Any]:
    """A message whose reasoning is found under the name that templates read, whichever name it came by."""
    reasoning = next((message[name] for name in _REASONING if name in message), None)
    return message if reasoning is None else {"thinking": reasoning, **message, "reasoning_content": reasoning}


@lru_cache(maxsize=16)
def _compiled(template: str):
    return _environment().from_string(template)


@lru_cache(maxsize=1)
def _environment():
    import jinja2

    from tfxformer.text.chat.template_sandbox import BoundedEnvironment

    def raise_exception(message):
        raise jinja2.TemplateError(message)

    def tojson(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
        # jinja's own escapes what HTML reserves.
        return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    def strftime_now(form):
        if len(form) > 200 or re.search(r"%[^a-zA-Z%]*\d{2,}", form):  # widths, as C libraries have them
            raise jinja2.TemplateError(f"the form {form[:50]!r} of a date is too long")
        return datetime.now().strftime(form)

    environment = BoundedEnvironment()
    environment.add_filter("tojson", tojson)
    environment.globals["raise_exception"] = raise_exception
    environment.globals["strftime_now"] = strftime_now
    return environment
