"""Chat templates: rendered as transformers renders them, kept when saved, and kept in their sandbox."""

import json
from datetime import datetime

import pytest

from tfxformer.text import TURNS, Tokenizer

MESSAGES = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": 'Is 1 < 2 & "é" a 你好?\n'},
    {"role": "assistant", "content": " Yes. "},
    {"role": "user", "content": "<|endoftext|>"},
]
CHATML = """{%- for message in messages %}
    {%- if loop.first and message.role != 'system' %}
        {{- '<|im_start|>system\\nHello<|im_end|>\\n' }}
    {%- endif %}
    {{- '<|im_start|>' + message['role'] + '\\n' + message.content | trim + '<|im_end|>' + '\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""
TEMPLATES = {
    "chatml": CHATML,
    "turns": TURNS,
    "llama3": """{{ bos_token }}{% for message in messages %}
{% set content = '<|start|>' + message['role'] + '<|end|>\n\n' + message['content'] | trim + '<|eot|>' %}
{{ content }}{% endfor %}
   {% if add_generation_prompt %}{{ '<|start|>assistant<|end|>\n\n' }}{% endif %}""",
    "json": "{{ messages | tojson }}{{ messages[0] | tojson(indent=2) }}{{ messages | length }}",
    "namespace": """{% set ns = namespace(seen=0) %}{% for m in messages %}{% if m.role == 'user' %}
    {% set ns.seen = ns.seen + 1 %}{% endif %}{% endfor %}{{ ns.seen }}{{ dict(a=1) }}""",
    "control": "{% for m in messages %}{% if loop.index == 2 %}{% continue %}{% endif %}{{ m.content }}{% endfor %}",
    "generation": "{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}\n{% endfor %}x",
    "macro": "{% macro turn(m) %}[{{ m.role | upper }}] {{ m.content }}{% endmacro %}{{ turn(messages[1]) }}",
    "undefined": "{{ nothing }}{% if tools %}tools{% endif %}{% if documents is none %}none{% endif %}{{ sep_token }}",
    "date": "{{ strftime_now('%Y') }}",
}


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.train_byte_level_bpe(["the cat sat on the mat"] * 3, 280)


def with_template(tokenizer, template):
    parts = json.loads(tokenizer.to_json())
    parts["config"]["chat_template"] = template
    return Tokenizer.from_json(json.dumps(parts))


@pytest.mark.reference
@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("generation", [True, False])
def test_transformers_renders_the_same(name, generation, tokenizer, tmp_path):
    transformers = pytest.importorskip("transformers")
    ours = with_template(tokenizer, TEMPLATES[name])
    ours.save_pretrained(tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert theirs.chat_template == TEMPLATES[name]
    expected = theirs.apply_chat_template(MESSAGES, tokenize=False, add_generation_prompt=generation)
    assert ours.apply_chat_template(MESSAGES, generation) == expected


PARTS = [
    {"role": "user", "content": [{"type": "text", "text": "Is 1 < 2?"}, {"type": "text", "text": "And é?"}]},
    {"role": "assistant", "content": "Yes."},
]
READS_PARTS = {
    "loop": """{% for m in messages %}{% if m.content is string %}{{ m.content }}{% else %}
    {% for part in m['content'] %}
    {{ part['text'] | trim }}{% endfor %}{% endif %}{% endfor %}""",
    "variable": """{% for m in messages %}{% set said = m['content'] %}{% if said is iterable and said is not string %}
    {%- for part in said %}{% if part.type == 'text' %}<{{ part.text }}>{% endif %}{% endfor %}
    {% endif %}{% endfor %}""",
}


@pytest.mark.reference
@pytest.mark.parametrize("name", READS_PARTS)
def test_parts_are_rendered_as_transformers_does(name, tokenizer, tmp_path):
    import transformers

    ours = with_template(tokenizer, READS_PARTS[name])
    ours.save_pretrained(tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert ours.apply_chat_template(PARTS) == theirs.apply_chat_template(PARTS, tokenize=False)


def test_a_template_without_parts_gets_their_texts_line_by_line(tokenizer):
    chatml = with_template(tokenizer, CHATML)
    joined = [{"role": "user", "content": "Is 1 < 2?\nAnd é?"}, PARTS[1]]
    assert chatml.apply_chat_template(PARTS) == chatml.apply_chat_template(joined)
    with pytest.raises(ValueError, match=r"\['content'\]\[0\] is {'type': 'image_url'.*; models here read texts only"):
        chatml.apply_chat_template([{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}])


def test_rendering(tokenizer):
    assert with_template(tokenizer, CHATML).apply_chat_template(MESSAGES[1:3]) == (
        "<|im_start|>system\nHello<|im_end|>\n"
        '<|im_start|>user\nIs 1 < 2 & "é" a 你好?<|im_end|>\n<|im_start|>assistant\nYes.<|im_end|>\n'
        "<|im_start|>assistant\n"
    )
    year = tokenizer.apply_chat_template(MESSAGES, template=TEMPLATES["date"])
    assert year == str(datetime.now().year)
    assert MESSAGES[2] == {"role": "assistant", "content": " Yes. "}  # the caller's own are untouched


def test_models_without_roles_take_turns(tokenizer):
    with pytest.raises(ValueError, match=r"no chat template.*text\.TURNS"):
        tokenizer.apply_chat_template(MESSAGES)
    messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    text = tokenizer.apply_chat_template(messages, template=TURNS)
    assert text == "Hi<|endoftext|>Hello<|endoftext|>"
    (ids,) = tokenizer.ids([text], special_tokens=False)
    assert ids.count(tokenizer.eos_id) == 2
    bare = Tokenizer.train_byte_level_bpe(["abc"], 256, [])
    with pytest.raises(ValueError, match="refuses these messages: 'eos_token' is undefined"):
        bare.apply_chat_template(messages, template=TURNS)


def test_templates_are_read_and_written(tokenizer, tmp_path):
    ours = with_template(tokenizer, CHATML)
    ours.save_pretrained(tmp_path)
    assert (tmp_path / "chat_template.jinja").read_text(encoding="utf-8") == CHATML
    config = json.loads((tmp_path / "tokenizer_config.json").read_text(encoding="utf-8"))
    assert "chat_template" not in config
    assert Tokenizer.from_pretrained(tmp_path) == Tokenizer.from_json(Tokenizer.from_pretrained(tmp_path).to_json())
    assert Tokenizer.from_pretrained(tmp_path).chat_template == CHATML
    config["chat_template"] = "an older one"  # the file wins, as in transformers
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    assert Tokenizer.from_pretrained(tmp_path).chat_template == CHATML
    (tmp_path / "chat_template.jinja").unlink()
    assert Tokenizer.from_pretrained(tmp_path).chat_template == "an older one"
    with_template(tokenizer, CHATML).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)  # another's template does not stay behind
    assert Tokenizer.from_pretrained(tmp_path).chat_template is None


def test_of_several_templates_the_default_is_taken(tokenizer):
    listed = [{"name": "default", "template": "plain"}, {"name": "tool_use", "template": "tools"}]
    assert with_template(tokenizer, listed).apply_chat_template(MESSAGES) == "plain"
    assert with_template(tokenizer, {"default": "plain"}).chat_template == "plain"
    with pytest.raises(ValueError, match="the chat templates rag, tool_use and no default"):
        with_template(tokenizer, {"tool_use": "a", "rag": "b"}).apply_chat_template(MESSAGES)
    with pytest.raises(ValueError, match="without name and template"):
        with_template(tokenizer, ["a"]).apply_chat_template(MESSAGES)
    with pytest.raises(ValueError, match="is a int"):
        with_template(tokenizer, 3).apply_chat_template(MESSAGES)


@pytest.mark.parametrize(
    "escape",
    [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ messages.__class__.__base__.__subclasses__() }}",
        "{{ raise_exception.__globals__['__builtins__'] }}",
        "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
        "{{ (messages | attr('__class__')).__mro__ }}",
        "{{ '{0.__class__.__mro__}'.format(messages) }}",
        "{{ messages.append(1) }}",
        "{{ messages[0].update(role='x') }}",
        "{{ lipsum.__globals__['os'] }}",
        "{% set f = ''.__class__ %}{{ f.mro() }}",
    ],
)
def test_a_template_stays_in_its_sandbox(tokenizer, escape):
    with pytest.raises(ValueError, match="tries to leave its sandbox"):
        tokenizer.apply_chat_template(MESSAGES, template=escape)
    assert [message["role"] for message in MESSAGES] == ["system", "user", "assistant", "user"]


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{% for m in messages %}", r"not readable: .*\(line 1\)"),
        ("{{ messages | nothing }}", "not readable: No filter named 'nothing'"),
        ("{{ raise_exception('roles must alternate') }}", "refuses these messages: roles must alternate"),
        ("{{ messages[9].content.strip() }}", "refuses these messages"),
        ("{{ 1 / 0 }}", "fails on these messages: ZeroDivisionError"),
        ("{% for i in range(10 ** 9) %}{% endfor %}", "fails on these messages: OverflowError"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "fails on these messages: RecursionError"),
        ("{% include '/etc/passwd' %}", "fails on these messages: TypeError: no loader"),
    ],
)
def test_templates_that_fail(tokenizer, template, message):
    with pytest.raises(ValueError, match=message):
        tokenizer.apply_chat_template(MESSAGES, template=template)


@pytest.mark.parametrize(
    ("messages", "error", "message"),
    [
        ("Hello", TypeError, "got a str"),
        ({"role": "user", "content": "a"}, TypeError, "got a dict"),
        (None, TypeError, "got a NoneType"),
        ([], ValueError, "got an empty one"),
        (["Hello"], TypeError, r"messages\[0\] is a str"),
        ([MESSAGES], TypeError, "one conversation a call"),
        ([{"role": "user"}], ValueError, r"messages\[0\] has no 'content'"),
        ([{"content": "a"}], ValueError, "has no 'role'"),
        ([{"role": "user", "content": None}], TypeError, r"\['content'\] is NoneType"),
        ([{"role": "user", "content": [{"type": "text"}]}], ValueError, "models here read texts only"),
        ([{"role": 1, "content": "a"}], TypeError, r"\['role'\] is int"),
        ([{"role": "user", "content": "\ud800"}], ValueError, "lone surrogate"),
        ([{"role": "user", "content": "a", "image": object()}], TypeError, "plain strings"),
    ],
)
def test_messages_in_a_wrong_form(tokenizer, messages, error, message):
    with pytest.raises(error, match=message):
        tokenizer.apply_chat_template(messages, template=CHATML)
