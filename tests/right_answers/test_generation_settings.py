"""What a checkpoint says about how it generates, and whether it generates at all: as transformers reads it."""

import json
import shutil

import make_fixtures
import numpy as np
import pytest
import tiny

import tfxformer
from tfxformer import export, generation, tasks
from tfxformer.checkpoints import CheckpointError
from tfxformer.checkpoints.families import family_of

WINDOW, NO_WINDOW = {"decoder__sliding_window": 3}, {"decoder__sliding_window": None}
ONE_WINDOW = {**WINDOW, "decoder__windowed_layers": (False, True)}
CASES = {
    **{family: (family, {}) for family in ("llama", "qwen2", "gpt2", "gpt_neox", "opt", "bloom")},
    "mistral": ("mistral", NO_WINDOW),
    "mistral-window": ("mistral", WINDOW),
    "qwen2-one-window": ("qwen2", ONE_WINDOW),
}


def bidirectional(family, folder, **changes):
    """A folder that says `is_causal: false`, and our backbone of it."""
    model = tiny.backbone(family, decoder__causal=False, **changes)
    tfxformer.checkpoints.save_pretrained(folder, model, model.config)
    return model


@pytest.mark.reference
@pytest.mark.parametrize("case", CASES)
def test_is_causal_false(case, tmp_path):
    """Right: transformers 5.24, run here on the same folder (masking_utils.create_bidirectional_mask)."""
    import torch
    import transformers

    family, changes = CASES[case]
    bidirectional(family, tmp_path, **changes)
    assert json.loads((tmp_path / "config.json").read_text())["is_causal"] is False
    ours = tfxformer.from_pretrained(tmp_path)
    inputs = tiny.batch(token_types=0)  # rows of 12, 9 and 6 tokens
    reference = transformers.AutoModel.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        expected = reference(
            input_ids=torch.tensor(inputs["token_ids"].astype("int64")),
            attention_mask=torch.tensor(inputs["padding_mask"].astype("int64")),
        ).last_hidden_state.numpy()
    real = inputs["padding_mask"] == 1
    np.testing.assert_allclose(ours(inputs)["sequence_output"].numpy()[real], expected[real], atol=2e-5)


def test_is_causal_false_sees_later_tokens_and_null_is_false(tmp_path):
    model = bidirectional("llama", tmp_path)
    inputs = tiny.batch(rows=1, token_types=0)
    changed = {**inputs, "token_ids": inputs["token_ids"].copy()}
    changed["token_ids"][0, -1] += 1
    first, second = (model(batch)["sequence_output"].numpy()[0, 0] for batch in (inputs, changed))
    assert np.abs(first - second).max() > 1e-3
    reference = json.loads((tmp_path / "config.json").read_text())
    read = family_of("llama").read_config
    assert read({**reference, "is_causal": None}).decoder.causal is False  # transformers: not getattr(config, ...)
    assert read({key: value for key, value in reference.items() if key != "is_causal"}).decoder.causal is True
    with pytest.raises(CheckpointError, match="is_causal='no'; wanted true or false"):
        read({**reference, "is_causal": "no"})
    assert "is_causal" not in family_of("llama").write_config(tiny.config("llama"))


def test_is_causal_false_generates_nothing(tmp_path, tiny_tokenizer):
    model = bidirectional("llama", tmp_path)
    refusals = (
        lambda: tasks.CausalLM.from_pretrained(tmp_path, tokenizer=tiny_tokenizer),
        lambda: model.new_cache(1, 8),
        lambda: tfxformer.generation.generate(model, [[1, 2]], 2),
    )
    for refused in refusals:
        with pytest.raises(ValueError, match=r"This decoder is bidirectional.*use tasks\.TextEmbedder"):
            refused()


@pytest.mark.parametrize("task", ["embedder", "classifier"])
def test_is_causal_false_is_exported(task, tmp_path, tiny_tokenizer, plain_kernels):
    """Right: what Keras computes, which `test_is_causal_false` compares with transformers."""
    model = tiny.backbone("qwen2", decoder__causal=False, **ONE_WINDOW)
    made = (
        tasks.TextEmbedder(model, tokenizer=tiny_tokenizer, sequence_length=16)
        if task == "embedder"
        else tasks.TextClassifier(model, ["negative", "positive"], tokenizer=tiny_tokenizer, sequence_length=16)
    )
    texts = ["good film", "a very good cat sat on the mat"]
    export.export_litert(made, tmp_path / "model.tflite", quantization="float32", sequence_length=16)
    got = export.LiteRTModel(tmp_path / "model.tflite").predict(texts)
    np.testing.assert_allclose(got, made.predict(texts), atol=1e-5)


# ---- generation_config.json ------------------------------------------------------------------------------------

PROMPTS, NEW = [[5, 6, 7, 5, 6], [9], [11, 12, 13, 14, 11, 12, 9]], 12
MANY = list(range(0, 96, 2))
SETTINGS = {
    "eos list": {"eos_token_id": [1, 28]},
    "suppressed": {"suppress_tokens": list(range(5, 60, 2)), "begin_suppress_tokens": [0, 92]},
    "bad words": {"bad_words_ids": [*([i] for i in range(10, 50)), [0, 0], [92, 87]]},
    "biases": {"sequence_bias": [[[7], 3.0], [[8, 9], 2.0], [[7, 7], -5.0], [[7, 7, 8], 4.0]]},
    "repetition": {"repetition_penalty": 1.7},
    "ngrams": {"no_repeat_ngram_size": 2},
    "least new": {"eos_token_id": MANY, "min_new_tokens": 5},
    "least length": {"eos_token_id": MANY, "min_length": 7},
    "forced ends": {"forced_bos_token_id": 9, "forced_eos_token_id": [33, 12], "eos_token_id": 5},
    "decay": {"eos_token_id": 3, "exponential_decay_length_penalty": [3, 1.8]},
    "together": {
        "eos_token_id": [3, 4],
        "repetition_penalty": 1.3,
        "no_repeat_ngram_size": 2,
        "suppress_tokens": [5, 6, 7, 8],
        "bad_words_ids": [[20], [30, 31]],
        "min_new_tokens": 4,
        "forced_eos_token_id": 2,
        "sequence_bias": [[[7], 3.0], [[9], 1.0]],
    },
}


def ids_of(text):
    """What the tokenizer below has written."""
    return [int(part) for part in text.split()]


@pytest.fixture(scope="module")
def number_tokenizer():
    """A tokenizer whose token of the id 7 is the text "7"."""
    tokenizers = pytest.importorskip("tokenizers")
    from tokenizers import models, pre_tokenizers

    from tfxformer.text import Tokenizer

    backend = tokenizers.Tokenizer(models.WordLevel({str(index): index for index in range(96)}, unk_token="0"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    return Tokenizer(backend.to_str(), {})


def folder_with(tmp_path, settings, name="llama-lm"):
    """A copy of a stored checkpoint with another generation_config.json; without one for None."""
    folder = shutil.copytree(make_fixtures.FOLDER / name, tmp_path / name)
    (folder / "generation_config.json").unlink()
    if settings is not None:
        (folder / "generation_config.json").write_text(json.dumps(settings), encoding="utf-8")
    return folder


def transformers_ids(folder, settings, beams=1):
    """What transformers' own generate gives for each prompt alone, up to its end token (left out)."""
    import torch
    import transformers

    model = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    ends = settings.get("eos_token_id", [])
    rows = []
    for prompt in PROMPTS:
        inputs = torch.tensor([prompt])
        written = model.generate(inputs, max_new_tokens=NEW, num_beams=beams, do_sample=False, pad_token_id=0)
        new = written[0, len(prompt) :].tolist()
        stop = next((at for at, token in enumerate(new) if token in ([ends] if isinstance(ends, int) else ends)), NEW)
        rows.append(new[:stop])
    return rows


@pytest.mark.reference
@pytest.mark.parametrize("name", SETTINGS)
def test_generation_config_json(name, tmp_path, number_tokenizer):
    """Right: transformers' generate on the same folder, greedy; each prompt alone, ours in one padded batch."""
    folder = folder_with(tmp_path, SETTINGS[name])
    model = tasks.CausalLM.from_pretrained(folder, tokenizer=number_tokenizer)
    expected = transformers_ids(folder, SETTINGS[name])
    texts = model.generate(PROMPTS, NEW, jit_compile=False)
    assert [ids_of(text) for text in texts] == expected
    streamed = "".join(model.stream(PROMPTS[0], NEW, jit_compile=False))
    assert ids_of(streamed) == expected[0]
    drafted = model.generate(PROMPTS, NEW, speculation=generation.PromptLookup(2, 3), jit_compile=False)
    assert drafted == texts


# ---- chat templates ----------------------------------------------------------------------------------------------

MESSAGES = [{"role": "user", "content": "good film"}]
DOUBLING = "{% set ns = namespace(x=START) %}{% for i in range(60) %}{% set ns.x = STEP %}{% endfor %}"
BOMBS = {
    "nested ranges": "{% for i in range(99999) %}{% for j in range(99999) %}{{ i * j }}{% endfor %}{% endfor %}",
    "ranges of ranges": "{% for i in range(999) %}{% for j in range(999) %}{% for k in range(999) %}x{% endfor %}"
    "{% endfor %}{% endfor %}",
    "long range": "{% for i in range(10 ** 12) %}{% endfor %}",
    "product of text": "{{ 'a' * 2 * 10 ** 9 }}",
    "product of a list": "{{ ([1] * 10 ** 9) | length }}",
    "power": "{{ 9 ** (9 ** 9) }}",
    "product of numbers": DOUBLING.replace("START", "9").replace("STEP", "ns.x * ns.x"),
    "sum of texts": DOUBLING.replace("START", "'a'").replace("STEP", "ns.x + ns.x"),
    "joined texts": DOUBLING.replace("START", "'a'").replace("STEP", "ns.x ~ ns.x"),
    "sum of lists": DOUBLING.replace("START", "[1]").replace("STEP", "ns.x + ns.x"),
    "lists in lists": DOUBLING.replace("START", "[1]").replace("STEP", "[ns.x, ns.x]") + "{{ ns.x }}",
    "dicts in dicts": DOUBLING.replace("START", "1").replace("STEP", "dict(a=ns.x, b=ns.x)") + "{{ ns.x | tojson }}",
    "shown namespace": DOUBLING.replace("START", "1").replace("STEP", "dict(a=ns.x, b=ns.x)") + "{{ ns }}",
    "compared lists": DOUBLING.replace("START", "1").replace("STEP", "dict(a=ns.x, b=ns.x)") + "{{ ns.x == ns.x }}",
    "percent width": "{{ '%999999999d' % 1 }}",
    "percent star": "{{ '%*d' % (999999999, 1) }}",
    "format filter": "{{ '%999999999d' | format(1) }}",
    "format method": "{{ '{:>999999999}'.format(1) }}",
    "format with widths": "{{ '{:{}}'.format(1, 999999999) }}",
    "format map": "{{ '{a:999999999}'.format_map({'a': 1}) }}",
    "center filter": "{{ 'a' | center(999999999) }}",
    "center method": "{{ 'a'.center(999999999) }}",
    "ljust": "{{ 'a'.ljust(999999999) }}",
    "zfill": "{{ 'a'.zfill(width=999999999) if false else 'a'.zfill(999999999) }}",
    "tabs": "{{ '\t'.expandtabs(999999999) }}",
    "indentation": "{{ 'a\nb' | indent(999999999) }}",
    "wide json": "{{ [[1]] | tojson(indent=999999999) }}",
    "replace": "{{ ('a' * 9999) | replace('a', 'b' * 99999) }}",
    "replace method": "{{ ('a' * 9999).replace('a', 'b' * 99999) }}",
    "join": "{{ ('a' * 9999) | join('b' * 99999) }}",
    "join method": "{{ ('b' * 99999).join('a' * 9999) }}",
    "batches": "{{ [1] | batch(999999999, 0) | list | length }}",
    "slices": "{{ [1] | slice(999999999) | list | length }}",
    "bytes": "{{ (1).to_bytes(999999999, 'big') | length }}",
    "rounding": "{{ 1.5 | round(999999999, 'ceil') }}",
    "macros": "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(40) }}",
    "output of macros": "{% macro f(n) %}{{ f(n - 1) * 2 if n else 'abcdefgh' }}{% endmacro %}{{ f(40) }}",
    "endless macro": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "repeated output": "{% set x = 'a' * 999999 %}{% for i in range(99999) %}{{ x }}{% endfor %}",
    "collected output": "{% set x = 'a' * 999999 %}{% set y %}{% for i in range(999) %}{{ x }}{% endfor %}{% endset %}",
    "slices in a loop": "{% set x = 'a' * 999999 %}{% for i in range(99999) %}{% set y = x[:-1] %}{% endfor %}",
    "words": "{{ lipsum(n=999999, max=9999) }}",
    "date": "{{ strftime_now('%999999999d') }}",
    "another file": "{% include 'x' %}",
    "another template": "{% import 'x' as y %}",
    "long source": "{# " + "a" * 1_000_000 + " #}",
}


@pytest.mark.parametrize("name", BOMBS)
def test_chat_template_bombs(name, tiny_tokenizer):
    """Right: a clear ValueError, before the machine is full; a conversation of 9 characters needs none of this."""
    with pytest.raises(ValueError, match="The chat template"):
        tiny_tokenizer.apply_chat_template(MESSAGES, template=BOMBS[name])


def test_long_conversations_are_rendered(tiny_tokenizer):
    """Bounds grow with the conversation: 1,000 turns of 500 characters, by templates that join all of them."""
    turns = [{"role": "user", "content": "good " * 100}] * 1000
    joining = "{% set ns = namespace(x=START) %}{% for m in messages %}{% set ns.x = ns.x + STEP %}{% endfor %}SHOWN"

    def rendered(start, step, shown):
        template = joining.replace("START", start).replace("STEP", step).replace("SHOWN", shown)
        return tiny_tokenizer.apply_chat_template(turns, template=template)

    assert rendered("''", "m.content | trim ~ '.'", "{{ ns.x }}") == (("good " * 100).strip() + ".") * 1000
    assert json.loads(rendered("[]", "[m]", "{{ ns.x[1:] | tojson }}")) == turns[1:]
