"""Chat templates: messages rendered as a checkpoint's jinja template says, in a sandbox, as transformers does.

A template is code that came with a checkpoint: it runs in jinja's immutable sandbox, and sees nothing but plain
strings. Source: transformers, utils/chat_template_utils.py.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import datetime
from functools import lru_cache
from typing import Any

from tfxformer.text.inputs import check_unicode

# For models that learned turns without any role, as DialoGPT did (Zhang et al. 2019, arXiv:1911.00536): every message
# is followed by the end token. `tokenizer.apply_chat_template(messages, template=chat.TURNS)`.
TURNS = "{% for message in messages %}{{ message['content'] + eos_token }}{% endfor %}"


def chosen_template(config: Mapping[str, Any]) -> str | None:
    """The template of a tokenizer_config.json; of several the one called "default"; None where there is none.

    Raises:
        ValueError: for several without a default, or something that is no template.
    """
    stated = config.get("chat_template")
    if isinstance(stated, list):  # the older spelling of several
        try:
            stated = {entry["name"]: entry["template"] for entry in stated}
        except (TypeError, KeyError) as error:
            raise ValueError("tokenizer_config.json lists chat templates without name and template.") from error
    if isinstance(stated, Mapping):
        if "default" not in stated:
            raise ValueError(
                f"The tokenizer has the chat templates {', '.join(sorted(stated))} and no default: pass the text of "
                "one as `template`."
            )
        stated = stated["default"]
    if stated is not None and not isinstance(stated, str):
        raise ValueError(f"The tokenizer's chat template is a {type(stated).__name__}, not a string.")
    return stated


def render(
    template: str, messages: Iterable[Mapping[str, str]], special_tokens: Mapping[str, str], add_generation_prompt: bool
) -> str:
    """A conversation as one text.

    Args:
        template: jinja source.
        messages: dicts with "role" and "content", first to last.
        special_tokens: what a template calls "bos_token", "eos_token", ...
        add_generation_prompt: whether to end with the beginning of the assistant's next message.

    Raises:
        TypeError, ValueError: for messages in a wrong form, a template that is not readable, that refuses these
            messages, or that reaches for what its sandbox forbids.
    """
    checked = _messages(messages)
    from jinja2 import TemplateError, TemplateSyntaxError
    from jinja2.exceptions import SecurityError

    try:
        return _compiled(template).render(
            messages=checked, tools=None, documents=None, add_generation_prompt=add_generation_prompt, **special_tokens
        )
    except TemplateSyntaxError as error:
        raise ValueError(f"The chat template is not readable: {error.message} (line {error.lineno}).") from error
    except SecurityError as error:
        raise ValueError(f"The chat template tries to leave its sandbox, and was stopped: {error}.") from error
    except TemplateError as error:
        raise ValueError(f"The chat template refuses these messages: {error}.") from error
    except Exception as error:  # a template can raise whatever an expression can
        raise ValueError(f"The chat template fails on these messages: {type(error).__name__}: {error}.") from error


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
            if key not in message:
                raise ValueError(
                    f"messages[{index}] has no {key!r}, only {sorted(map(str, message))}; wanted {wanted}."
                )
            if not isinstance(message[key], str):
                raise TypeError(f"messages[{index}][{key!r}] is {type(message[key]).__name__}, not str.")
            check_unicode(message[key], f"messages[{index}][{key!r}]")
    try:
        return json.loads(json.dumps([dict(message) for message in messages]))
    except (TypeError, ValueError) as error:
        raise TypeError(f"Messages hold plain strings, numbers and lists only: {error}.") from error


@lru_cache(maxsize=16)
def _compiled(template: str):
    return _environment().from_string(template)


@lru_cache(maxsize=1)
def _environment():
    import jinja2
    from jinja2.ext import Extension, loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        """`{% generation %}` marks what an assistant wrote; it changes nothing of the text."""

        tags = {"generation"}  # noqa: RUF012  (jinja's own interface)

        def parse(self, parser):
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return jinja2.nodes.Scope(body).set_lineno(line)

    def raise_exception(message):
        raise jinja2.TemplateError(message)

    def tojson(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
        # jinja's own escapes what HTML reserves.
        return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols]
    )
    environment.filters["tojson"] = tojson
    environment.globals["raise_exception"] = raise_exception
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    return environment
