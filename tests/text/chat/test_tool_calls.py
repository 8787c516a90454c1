"""Calls of tools in answers, against transformers' parser and the templates that write them; and a whole loop."""

import json

import keras
import pytest
import tiny

import tfxformer
from tfxformer import samples, tasks
from tfxformer.text import Tokenizer, parse_tool_calls


def released(name):
    """The chat template of a released model."""
    return (samples.fetch("chat-templates") / f"{name}.jinja").read_text(encoding="utf-8")


def call(name="weather", **arguments):
    return {"type": "function", "function": {"name": name, "arguments": arguments}}


KÖLN = call(town="Köln", days=2)
TIME = call("time")
ONE = '<tool_call>\n{"name": "weather", "arguments": {"town": "Köln", "days": 2}}\n</tool_call>'
ANOTHER = '<tool_call>\n{"name": "time", "arguments": {}}\n</tool_call>'
LLAMA = '{"name": "weather", "parameters": {"town": "Köln", "days": 2}}'
QUOTED = json.dumps({"name": "write", "arguments": {"text": "a </tool_call> b <tool_call>"}})
CASES = {
    "one": (ONE, [KÖLN], ""),
    "text before": (f"Let me see.\n{ONE}", [KÖLN], "Let me see."),
    "two": (f"Both:\n{ONE}\n{ANOTHER}", [KÖLN, TIME], "Both:"),
    "text between and behind": (f"a {ONE} b {ANOTHER} c", [KÖLN, TIME], "a  b  c"),
    "an end token for the last mark": (ONE.removesuffix("\n</tool_call>"), [KÖLN], ""),
    "a list in one mark": (f"<tool_call>[{LLAMA}, {LLAMA}]</tool_call>", [KÖLN, KÖLN], ""),
    "marks within an argument": (
        f"<tool_call>{QUOTED}</tool_call>",
        [call("write", text="a </tool_call> b <tool_call>")],
        "",
    ),
    "reasoning": (f"<think>\nI call {ANOTHER}\n</think>\n{ONE}", [KÖLN], f"<think>\nI call {ANOTHER}\n</think>"),
    "reasoning that the template opened": (f"I could {ANOTHER}\n</think>\n\nNo.", [], None),
    "cut within reasoning": (f"<think>\n{ONE}", [], None),
    "Llama's": (LLAMA, [KÖLN], ""),
    "Llama's, marked": (f"<|python_tag|>{LLAMA}", [KÖLN], ""),
    "Llama's, two": (f" {LLAMA}; {LLAMA}\n", [KÖLN, KÖLN], ""),
    "Llama's, with its type": (LLAMA.replace("{", '{"type": "function", ', 1), [KÖLN], ""),
    "Llama's, cut": (LLAMA[:-9], [], None),
    "Python for the interpreter": ("<|python_tag|>print(2 + 2)", [], None),
    "Mistral's": (f'[TOOL_CALLS] [{LLAMA[:-1]}, "id": "VvvODy9mT"}}]', [{**KÖLN, "id": "VvvODy9mT"}], ""),
    "Mistral's, without its special token": (f"[{LLAMA}]", [KÖLN], ""),
    "an answer in JSON": ('{"name": "Ada", "born": 1815}', [], None),
    "a list in JSON": ('[{"name": "Ada"}, 3]', [], None),
    "JSON in a text": (f"Write {LLAMA}.", [], None),
    "text": ("It is 3 degrees.\n", [], None),
    "nothing": ("", [], None),
}


@pytest.mark.parametrize("name", CASES)
def test_calls_and_the_rest(name):
    text, calls, rest = CASES[name]
    assert parse_tool_calls(text) == (calls, text if rest is None else rest)


@pytest.mark.reference
@pytest.mark.parametrize("name", ["one", "text before", "two", "text"])
def test_qwens_are_those_of_transformers(name):
    from transformers.cli.serving import utils
    from transformers.utils.chat_parsing import parse_response

    (schema,) = [value for key, value in utils._RESPONSE_TEMPLATE_FALLBACKS.items() if "qwen3" in key]
    text = CASES[name][0]
    theirs = parse_response(text, schema, prefix="<|im_start|>assistant\n")
    calls, rest = parse_tool_calls(text)
    assert (calls, rest.strip()) == (theirs.get("tool_calls", []), theirs.get("content", ""))


@pytest.mark.samples
@pytest.mark.parametrize(
    ("name", "start", "end"),
    [
        ("qwen2_5", "<|im_start|>assistant\n", "<|im_end|>"),
        ("qwen3", "<|im_start|>assistant\n", "<|im_end|>"),
        ("llama3_1", "<|start_header_id|>assistant<|end_header_id|>\n\n", "<|eot_id|>"),
        ("llama3_2", "<|start_header_id|>assistant<|end_header_id|>\n\n", "<|eot_id|>"),
    ],
)
def test_what_a_template_writes_for_calls_is_read_back(name, start, end):
    bare = Tokenizer.train_byte_level_bpe(["the cat sat"], 260, ["<|endoftext|>", "<s>"])
    tokenizer = Tokenizer(bare.tokenizer_json(), {"bos_token": "<s>", "eos_token": "<|endoftext|>"})
    wanted = [call(town='Kö"ln\n', days=2, near=["a", {"b": None}])] + [TIME] * ("llama" not in name)
    messages = [{"role": "user", "content": "?"}, {"role": "assistant", "content": "", "tool_calls": wanted}]
    shown = tokenizer.apply_chat_template(messages, False, released(name))
    calls, rest = parse_tool_calls(shown.rpartition(start)[2].partition(end)[0])
    assert (calls, rest.replace("<think>\n\n</think>", "").strip()) == (wanted, "")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (ONE.replace(", ", " "), "behind <tool_call> is no JSON: Expecting ',' delimiter at character 19 of"),
        (ONE[:40], "is no JSON: .* at character"),
        ("<tool_call></tool_call>", "is no JSON: Expecting value at character 0"),
        ('<tool_call>{"name": "f", "arguments": {"x": NaN}}</tool_call>', "NaN is no number of JSON"),
        ("<tool_call>" + "[" * 100_000, "is no JSON that can be read: RecursionError"),
        (
            "<tool_call>\n<function=f>\n</function>\n</tool_call>",
            "is no JSON: Expecting value at character 0 of '<f",
        ),
        ('<tool_call>{"arguments": {}}</tool_call>', r"holds {'arguments': {}}; wanted {\"name\": ..."),
        ("<tool_call>3</tool_call>", "holds 3; wanted"),
        ('<tool_call>{"name": "f"}</tool_call>', "of 'f' has the arguments None; wanted an object"),
        ('<tool_call>{"name": "f", "arguments": "{}"}</tool_call>', "of 'f' has the arguments '{}'; wanted an object"),
        (ONE.replace("\n</", " so </"), "goes on behind its JSON with ' so </tool_call>', where </tool_call> was due"),
        ("[TOOL_CALLS] now", r"behind \[TOOL_CALLS\] is no JSON"),
        ("[TOOL_CALLS] [3]", r"behind \[TOOL_CALLS\] holds 3; wanted"),
    ],
    ids=range(13),
)
def test_calls_that_cannot_be_read(text, message):
    with pytest.raises(ValueError, match=message):
        parse_tool_calls(text)


# ---- model -> tool -> result -> model --------------------------------------------------------------------------

TEMPLATE = """{%- if tools %}{% for tool in tools %}{{ tool.function.name }} {% endfor %}{% endif %}
{%- for m in messages %}<{{ m.role }}>{{ m.content }}
{%- for call in m.tool_calls or [] %}<tool_call>{{ call.function | tojson }}</tool_call>{% endfor %}
{%- if m.role == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}
{%- if add_generation_prompt %}<assistant>{% endif %}"""
DEGREES = {"Bonn": 3, "Ulm": 8}


def degrees(town: str) -> int:
    """How warm it is.

    Args:
        town: its name
    """
    return DEGREES[town]


def conversation(town):
    """A question, and what is to be said to it: a call, and the answer to what it gave."""
    question = {"role": "user", "content": f"How warm is {town}?"}
    asked = {"role": "assistant", "content": "", "tool_calls": [call("degrees", town=town)]}
    found = {"role": "tool", "name": "degrees", "content": str(DEGREES[town])}
    return [question, asked, found, {"role": "assistant", "content": f"{DEGREES[town]} degrees."}]


def render(talk):
    bare = Tokenizer.train_byte_level_bpe(["a"], 257)
    return bare.apply_chat_template(talk, False, TEMPLATE, tools=[degrees])


@pytest.mark.slow  # the quick one beside it: what a template writes is read back
def test_a_model_calls_a_tool_and_answers_by_its_result(plain_kernels):
    talks = [conversation(town) for town in DEGREES]
    shown = [render(talk) for talk in talks]
    bare = Tokenizer.train_byte_level_bpe([f"<degrees>{text}" for text in shown] * 20, 380)
    tokenizer = Tokenizer(bare.tokenizer_json(), {"eos_token": "<|endoftext|>", "chat_template": TEMPLATE})
    prompts, answers = [], []
    for talk in talks:
        for said in (1, 3):
            prompts.append(tokenizer.apply_chat_template(talk[:said], tools=[degrees]))
            whole = tokenizer.apply_chat_template(talk[: said + 1], False, tools=[degrees])
            answers.append(whole.removeprefix(prompts[-1]).removesuffix("<|endoftext|>"))
    keras.utils.set_random_seed(0)
    config = tiny.config("llama", vocabulary_size=380, decoder__max_positions=128)
    lm = tasks.CausalLM(tfxformer.build(config), tokenizer=tokenizer)
    lm.compile(learning_rate=1e-2, warmup=0.0, jit_compile=False)
    lm.fit(prompts, answers, epochs=200, batch_size=4, verbose=0)

    for town in DEGREES:
        messages = conversation(town)[:1]
        calls, said = parse_tool_calls(lm.chat(messages, 60, tools=[degrees], jit_compile=False))
        messages.append({"role": "assistant", "content": said, "tool_calls": calls})
        for one in calls:
            found = {"degrees": degrees}[one["function"]["name"]](**one["function"]["arguments"])
            messages.append({"role": "tool", "name": one["function"]["name"], "content": json.dumps(found)})
        answer = lm.chat(messages, 60, tools=[degrees], jit_compile=False)
        assert [*messages, {"role": "assistant", "content": answer}] == conversation(town)
