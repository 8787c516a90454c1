"""Chat templates of released models, rendered as transformers renders them: tools, calls, results, thoughts."""

import functools

import pytest

from tfxformer import samples
from tfxformer.text import Tokenizer

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "description": "The weather of a town <now>.",
            "parameters": {
                "type": "object",
                "properties": {"town": {"type": "string", "description": "é"}, "days": {"type": "integer"}},
                "required": ["town"],
            },
        },
    },
    {"type": "function", "function": {"name": "time", "description": "The time.", "parameters": {"type": "object"}}},
]
USER = {"role": "user", "content": "Weather in Köln & Bonn?"}


def call(town, number):
    said = {"name": "weather", "arguments": {"town": town, "days": 2}}
    return {"id": f"abcdefgh{number}", "type": "function", "function": said}


def result(number):
    return {"role": "tool", "name": "weather", "tool_call_id": f"abcdefgh{number}", "content": '{"degrees": 3}'}


PLAIN = [USER, {"role": "assistant", "content": "Hello <é>"}, {"role": "user", "content": " Bye\n"}]
SYSTEM = [{"role": "system", "content": "Be brief."}, *PLAIN]
ONE = [USER, {"role": "assistant", "content": "", "tool_calls": [call("Köln", 1)]}, result(1)]
ANSWERED = [*SYSTEM[:1], *ONE, {"role": "assistant", "content": "3 degrees."}, {"role": "user", "content": "Thanks"}]
TWO = [
    USER,
    {"role": "assistant", "content": "Both:", "tool_calls": [call("Köln", 1), call("Bonn", 2)]},
    result(1),
    result(2),
]
SILENT = [USER, {"role": "assistant", "content": None, "tool_calls": [call("Köln", 1)]}, result(1)]
THOUGHT = [
    USER,
    {"role": "assistant", "content": "4", "reasoning_content": "It is 4."},
    {"role": "user", "content": "3 + 3?"},
    {"role": "assistant", "content": "<think>\nsix\n</think>\n\n6"},
    {"role": "user", "content": "9?"},
]
CASES = {
    "plain": (PLAIN, {}),
    "system": (SYSTEM, {}),
    "one call": (ONE, {"tools": TOOLS}),
    "answered call": (ANSWERED, {"tools": TOOLS}),
    "two calls": (TWO, {"tools": TOOLS}),
    "silent call": (SILENT, {"tools": TOOLS}),
    "reasoning": (THOUGHT, {}),
    "no thinking": (THOUGHT, {"enable_thinking": False}),
    "thinking": (THOUGHT, {"enable_thinking": True}),
    "documents": (PLAIN, {"documents": [{"title": "a", "text": "b"}]}),
}
# Of a kind that samples hold no template of: Mistral's list of calls, and SmolLM3's words that a caller may change.
MISTRAL = """{%- if messages[0]['role'] == 'system' %}{%- set system = messages[0]['content'] %}
{%- set loop_messages = messages[1:] %}{%- else %}{%- set loop_messages = messages %}{%- endif %}
{%- if not tools is defined %}{%- set tools = none %}{%- endif %}
{%- set user_messages = loop_messages | selectattr("role", "equalto", "user") | list %}
{{- bos_token }}
{%- for message in loop_messages %}
  {%- if message["role"] == "user" %}
    {%- if tools is not none and (message == user_messages[-1]) %}
      {{- "[AVAILABLE_TOOLS] [" }}{%- for tool in tools %}{%- set tool = tool.function %}
      {{- '{"type": "function", "function": {' }}
      {%- for key, value in tool.items() if key != "return" %}
        {%- if value is string %}{{- '"' + key + '": "' + value + '"' }}
        {%- else %}{{- '"' + key + '": ' + value|tojson }}
        {%- endif %}{%- if not loop.last %}{{- ", " }}{%- endif %}
      {%- endfor %}{{- "}}" }}{%- if not loop.last %}{{- ", " }}{%- else %}{{- "]" }}{%- endif %}
      {%- endfor %}{{- "[/AVAILABLE_TOOLS]" }}
    {%- endif %}
    {{- "[INST] " + (system + "\\n\\n" if loop.last and system is defined else "") + message["content"] + "[/INST]" }}
  {%- elif message.tool_calls is defined and message.tool_calls is not none %}
    {{- "[TOOL_CALLS] [" }}{%- for tool_call in message.tool_calls %}{%- set out = tool_call.function|tojson %}
    {{- out[:-1] }}
    {%- if not tool_call.id is defined or tool_call.id|length != 9 %}{{- raise_exception("ids have 9 characters") }}
    {%- endif %}{{- ', "id": "' + tool_call.id + '"}' }}{%- if not loop.last %}{{- ", " }}
    {%- else %}{{- "]" + eos_token }}{%- endif %}{%- endfor %}
  {%- elif message["role"] == "assistant" %}{{- " " + message["content"]|trim + eos_token }}
  {%- elif message["role"] in ("tool_results", "tool") %}
    {%- set content = message.content.content if message.content is mapping else message.content %}
    {{- '[TOOL_RESULTS] {"content": ' + content|string }}
    {{- ', "call_id": "' + message.tool_call_id + '"}[/TOOL_RESULTS]' }}
  {%- else %}{{- raise_exception("no such role") }}{%- endif %}
{%- endfor %}"""
SMOLLM3 = """{%- if enable_thinking is not defined -%}{%- set enable_thinking = true -%}{%- endif -%}
{%- set mode = "/think" if enable_thinking else "/no_think" -%}
{%- if messages[0].role == "system" -%}{%- set said = messages[0].content -%}
  {%- if "/no_think" in said -%}{%- set mode = "/no_think" -%}{%- endif -%}
  {%- set instructions = said.replace("/no_think", "").replace("/think", "").rstrip() -%}{%- endif -%}
{{- "<|im_start|>system\\n" -}}{%- set today = strftime_now("%d %B %Y") -%}{{- "Reasoning Mode: " + mode + "\\n" -}}
{{- instructions + "\\n" if instructions else "none\\n" -}}
{%- if xml_tools or tools -%}{%- set ns = namespace(shown="") -%}
  {%- for tool in (xml_tools or tools) -%}{%- set ns.shown = ns.shown ~ (tool | string) ~ "\\n" -%}{%- endfor -%}
  {{- "<tools>\\n" + ns.shown + "</tools>\\n" -}}{%- endif -%}{{- "<|im_end|>\\n" -}}
{%- for message in messages -%}{%- set content = message.content if message.content is string else "" -%}
  {%- if message.role == "user" -%}{{ "<|im_start|>" + message.role + "\\n" + content + "<|im_end|>\\n" }}
  {%- elif message.role == "assistant" -%}
    {% generation %}{{- "<|im_start|>assistant\\n" + content.lstrip("\\n") + "<|im_end|>\\n" -}}{% endgeneration %}
  {%- elif message.role == "tool" -%}{{ "<|im_start|>user\\n" + content + "<|im_end|>\\n" }}{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ "<|im_start|>assistant\\n" }}
  {%- if mode == "/no_think" -%}{{ "<think>\\n\\n</think>\\n" }}{%- endif -%}{%- endif -%}"""


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """One tokenizer, ours and that of transformers."""
    import transformers

    bare = Tokenizer.train_byte_level_bpe(["the cat sat"], 260, ["<|endoftext|>", "<s>"])
    ours = Tokenizer(bare.tokenizer_json(), {"bos_token": "<s>", "eos_token": "<|endoftext|>"})
    folder = tmp_path_factory.mktemp("tokenizer")
    ours.save_pretrained(folder)
    return ours, transformers.AutoTokenizer.from_pretrained(folder)


def rendered(render):
    """A text, or None where it is refused."""
    try:
        return render()
    except Exception:  # transformers passes on whatever an expression of a template raises
        return None


def check(both, template, messages, variables):
    """The same text of both, or a refusal of both; what a template does not read is refused here alone."""
    ours, theirs = both
    for generation in (True, False):
        options = {"tokenize": False, "add_generation_prompt": generation, "chat_template": template}
        wanted = rendered(functools.partial(theirs.apply_chat_template, messages, **options, **variables))
        unread = [name for name in variables if name not in template]
        if unread:
            with pytest.raises(TypeError, match=f"The chat template takes no '{unread[0]}'"):
                ours.apply_chat_template(messages, generation, template, **variables)
        elif wanted is None:
            with pytest.raises(ValueError, match=r"The chat template (refuses|fails on) these messages"):
                ours.apply_chat_template(messages, generation, template, **variables)
        else:
            assert ours.apply_chat_template(messages, generation, template, **variables) == wanted
    return wanted is not None and not unread


CALLS = {"one call", "answered call", "silent call"}
# Template -> the cases that it renders, beside plain conversations; others it refuses, or does not read what they give.
TEMPLATES = {
    "cohere2": {"system"},
    "deepseek_r1_distill": {"system", "reasoning"},
    "gemma": set(),
    "gemma3": {"system"},
    "llama3": {"system"},
    "llama3_1": {"system", *CALLS},
    "llama3_2": {"system", *CALLS},
    "phi3": {"system"},
    "qwen2_5": {"system", *CALLS, "two calls", "reasoning"},
    "qwen3": {"system", *CALLS, "two calls", "reasoning", "thinking", "no thinking"},
}


@pytest.mark.samples
@pytest.mark.reference
@pytest.mark.parametrize("name", TEMPLATES)
def test_templates_are_rendered_as_transformers_does(name, both):
    template = (samples.fetch("chat-templates") / f"{name}.jinja").read_text(encoding="utf-8")
    shown = {case for case, (messages, variables) in CASES.items() if check(both, template, messages, variables)}
    assert {"plain"} | TEMPLATES[name] <= shown


@pytest.mark.reference
@pytest.mark.parametrize("case", [case for case in CASES if case != "documents"])
def test_templates_like_mistrals_and_smollm3s(case, both):
    messages, variables = CASES[case]
    shown = [check(both, template, messages, variables) for template in (MISTRAL, SMOLLM3)]
    assert any(shown)
