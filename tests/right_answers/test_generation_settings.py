"""What a checkpoint says about how it generates, and whether it generates at all: as transformers reads it."""

import dataclasses
import io
import json
import re
import shutil

import gguf_files
import keras
import make_fixtures
import numpy as np
import pytest
import tiny
from checkpoint_folders import configure

import tfxformer
from tfxformer import export, generation, tasks
from tfxformer.checkpoints import CheckpointError, generation_settings
from tfxformer.checkpoints.families import family_of
from tfxformer.checkpoints.gguf_models import open_gguf
from tfxformer.compression import keep_tokens
from tfxformer.generation.checkpoint_sampler import checkpoint_sampler
from tfxformer.runtime.generation import decoding
from tfxformer.text import Tokenizer

WINDOW, NO_WINDOW = {"decoder__attention__window": 3}, {"decoder__attention__window": None}
ONE_WINDOW = {
    "decoder__attention": {"full": {}, "sliding": {"window": 3}},
    "decoder__pattern": ("full", "sliding"),
}
CASES = {
    **{family: (family, {}) for family in ("llama", "qwen2", "gpt2", "gpt_neox", "opt", "bloom")},
    "mistral": ("mistral", NO_WINDOW),
    "mistral-window": ("mistral", WINDOW),
    "qwen2-one-window": ("qwen2", ONE_WINDOW),
}


def bidirectional(family, folder, **changes):
    """A folder that says `is_causal: false`, and our backbone of it."""
    model = tiny.backbone(family, decoder__attention__causal=False, **changes)
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
    model = tiny.backbone("qwen2", decoder__attention__causal=False, **ONE_WINDOW)
    made = (
        tasks.TextEmbedder(model, tokenizer=tiny_tokenizer, sequence_length=16)
        if task == "embedder"
        else tasks.TextClassifier(model, ["negative", "positive"], tokenizer=tiny_tokenizer, sequence_length=16)
    )
    texts = ["good film", "a very good cat sat on the mat"]
    export.export_litert(made, tmp_path / "model.tflite", quantization="float32", sequence_length=16)
    got = export.LiteRTModel(tmp_path / "model.tflite").predict(texts)
    wanted = np.asarray(made(made.encode(texts)))
    if task == "classifier":
        wanted = np.exp(wanted) / np.exp(wanted).sum(-1, keepdims=True)
    np.testing.assert_allclose(got, wanted, atol=1e-5)


# ---- generation_config.json ------------------------------------------------------------------------------------

PROMPTS, NEW = [[5, 6, 7, 5, 6], [9], [11, 12, 13, 14, 11, 12, 9]], 12
MANY = list(range(0, 96, 2))
SETTINGS = {
    "eos list": {"eos_token_id": [1, 28]},
    "suppressed": {
        "suppress_tokens": list(range(5, 60, 2)),
        "begin_suppress_tokens": [0, 92],
        "bad_words_ids": [*([i] for i in range(10, 50)), [0, 0], [92, 87]],
    },
    "biases": {"sequence_bias": [[[7], 3.0], [[8, 9], 2.0], [[7, 7], -5.0], [[7, 7, 8], 4.0]]},
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
    """A tokenizer whose token of the id 7 is the text "7", and that has no end token."""
    import tokenizers
    from tokenizers import models, pre_tokenizers

    backend = tokenizers.Tokenizer(models.WordLevel({str(index): index for index in range(96)}, unk_token="0"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    return Tokenizer(backend.to_str(), {})


@pytest.fixture(scope="module")
def lm(number_tokenizer):
    return tasks.CausalLM.from_pretrained(make_fixtures.FOLDER / "llama-lm", tokenizer=number_tokenizer)


@pytest.fixture(scope="module")
def transformers_ids():
    """What transformers' own generate gives for each prompt alone, up to its end token (left out)."""
    import torch
    import transformers

    model = transformers.AutoModelForCausalLM.from_pretrained(make_fixtures.FOLDER / "llama-lm").eval()

    def generate(settings, beams=1):
        model.generation_config = transformers.GenerationConfig(**settings, pad_token_id=0)
        ends = settings.get("eos_token_id", [])
        ends, rows = [ends] if isinstance(ends, int) else ends, []
        for prompt in PROMPTS:
            written = model.generate(torch.tensor([prompt]), max_new_tokens=NEW, num_beams=beams, do_sample=False)
            new = written[0, len(prompt) :].tolist()
            rows.append(new[: next((at for at, token in enumerate(new) if token in ends), NEW)])
        return rows

    return generate


@pytest.mark.reference
@pytest.mark.parametrize("name", SETTINGS)
def test_generation_config_json(name, lm, transformers_ids):
    """Right: transformers' generate with the same settings, greedy; each prompt alone, ours in one padded batch."""
    settings = generation.GenerationConfig.from_dict(SETTINGS[name])
    options = {"generation_config": settings, "jit_compile": False}
    expected = transformers_ids(SETTINGS[name])
    assert [ids_of(text) for text in lm.generate(PROMPTS, NEW, **options)] == expected


@pytest.mark.reference
def test_generation_config_json_counts_in_every_way_to_generate(lm, transformers_ids):
    """Right: transformers' generate, greedy and with three beams."""
    options = {"generation_config": SETTINGS["together"], "jit_compile": False}
    expected = transformers_ids(SETTINGS["together"])
    drafted = lm.generate(PROMPTS, NEW, speculation=generation.PromptLookup(2, 3), **options)
    assert [ids_of(text) for text in drafted] == expected
    assert ids_of("".join(lm.stream(PROMPTS[0], NEW, **options))) == expected[0]
    copies = lm.generate(PROMPTS[:1], NEW, num_return_sequences=2, **options)
    assert [ids_of(text) for text in copies] == expected[:1] * 2
    best = lm.generate(PROMPTS, NEW, sampler=generation.Beams(3), **options)
    assert [ids_of(text) for text in best] == transformers_ids(SETTINGS["together"], beams=3)


@pytest.fixture
def folder(tmp_path):
    """A function that copies a stored checkpoint with another generation_config.json, or config.json."""

    def make(settings=None, **config):
        folder = shutil.copytree(make_fixtures.FOLDER / "llama-lm", tmp_path / "checkpoint", dirs_exist_ok=True)
        (folder / "generation_config.json").unlink()
        if settings is not None:
            (folder / "generation_config.json").write_text(json.dumps(settings), encoding="utf-8")
        configure(folder, **config)
        return folder

    return make


def test_generation_config_json_is_written_as_it_was_read(folder, tmp_path, number_tokenizer, eager):
    """Right: the file itself; greedy ids of the plain model, [45, 28, 33, ...], are those of transformers above."""
    stated = {"eos_token_id": [1, 33], "max_new_tokens": 5, "temperature": 0.6, "x": {"y": 1}, "top_p": None}
    model = tasks.CausalLM.from_pretrained(folder(stated), tokenizer=number_tokenizer)
    assert model.generation_config.eos_token_id == (1, 33)
    assert ids_of(model.generate(PROMPTS[:1], jit_compile=False)[0]) == [45, 28]
    model.save_pretrained(tmp_path / "same")
    assert json.loads((tmp_path / "same" / "generation_config.json").read_text()) == stated
    model.generation_config = dataclasses.replace(model.generation_config, eos_token_id=(), max_new_tokens=4)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert ids_of(again.generate(PROMPTS[:1], jit_compile=False)[0]) == [45, 28, 33, 33]
    again.save_pretrained(tmp_path / "changed")
    written = json.loads((tmp_path / "changed" / "generation_config.json").read_text())
    assert written == {**stated, "eos_token_id": None, "max_new_tokens": 4}
    model.generation_config = generation.GenerationConfig()
    model.save_pretrained(tmp_path / "changed")
    assert not (tmp_path / "changed" / "generation_config.json").exists(), "another model's settings do not stay"


def test_generation_settings_of_older_checkpoints(folder):
    """In config.json, where there is no generation_config.json: transformers, modeling_utils `adjust_generation_fn`."""
    read = generation_settings.read_generation_config
    path = folder({"eos_token_id": 7}, eos_token_id=[3, 4])
    assert read(path).eos_token_id == (7,)
    path = folder(None, eos_token_id=[3, 4], suppress_tokens=[5], bad_words_ids=None, max_length=20, unknown=[9])
    assert read(path) is None
    older = generation_settings.older_generation_config(json.loads((path / "config.json").read_text()))
    assert older == generation.GenerationConfig(eos_token_id=(3, 4), suppress_tokens=(5,), max_length=20)
    assert "unknown" not in older.to_dict()


def test_generation_settings_of_gguf_files(tmp_path):
    """llama.cpp ends texts at eos, at the end of a turn and of a message (llama-vocab.cpp)."""
    ids = {f"tokenizer.ggml.{name}_token_id": index for name, index in (("eos", 2), ("eot", 5), ("eom", 6))}
    path = gguf_files.write_llama(tmp_path / "m.gguf", {**ids, "general.sampling.temp": 0.6})
    settings = generation_settings.older_generation_config(open_gguf(path)[0])
    assert settings.eos_token_id == (2, 5, 6)
    assert settings.temperature == pytest.approx(0.6)


def test_generation_settings_follow_a_trimmed_vocabulary():
    """Right: the same tokens under their new numbers; kept are 0, 5, 9, 33 as 0 to 3."""
    stated = {"eos_token_id": [33, 7], "suppress_tokens": [5, 6], "bad_words_ids": [[9, 5], [9, 6]], "pad_token_id": 9}
    model = tasks.CausalLM(tiny.backbone("llama", vocabulary_size=96), generation_config=stated)
    settings = keep_tokens(model, [0, 5, 9, 33]).generation_config
    assert settings.to_dict() == {"eos_token_id": [3], "suppress_tokens": [1], "bad_words_ids": [[2, 1]]}


@pytest.mark.parametrize(
    ("stated", "message"),
    [
        ({"eos_token_id": "</s>"}, r"generation_config\.json says eos_token_id='</s>': wanted an id or a list"),
        ({"eos_token_id": [1, True]}, "eos_token_id"),
        ({"suppress_tokens": [1, -2]}, "suppress_tokens"),
        ({"bad_words_ids": [3]}, "a list of lists of ids"),
        ({"bad_words_ids": [[]]}, "a list of lists of ids"),
        ({"repetition_penalty": 0}, "repetition_penalty=0: wanted a number above 0"),
        ({"temperature": "warm"}, "temperature='warm'"),
        ({"min_new_tokens": 2.5}, "min_new_tokens"),
        ({"stop_strings": [""]}, "stop_strings"),
        ({"max_new_tokens": -1}, "max_new_tokens"),
    ],
)
def test_generation_settings_of_a_wrong_kind_are_refused(stated, message, tmp_path):
    (tmp_path / "generation_config.json").write_text(json.dumps(stated), encoding="utf-8")
    with pytest.raises(CheckpointError, match=message):
        generation_settings.read_generation_config(tmp_path)


def test_generation_settings_that_do_not_fit_or_are_not_done(lm, eager):
    options = {"max_new_tokens": 2, "jit_compile": False}
    with pytest.raises(ValueError, match="bad_words_ids with the id 96; the vocabulary has ids 0 to 95"):
        lm.generate(PROMPTS, generation_config={"bad_words_ids": [[3], [5, 96]]}, **options)
    with pytest.raises(TypeError, match=r"generation_config is a generation\.GenerationConfig or a dict"):
        lm.generate(PROMPTS, generation_config=3, **options)
    with pytest.warns(UserWarning, match="says guidance_scale=1.5, which tfxformer does not do"):
        lm.generate(PROMPTS, generation_config={"guidance_scale": 1.5, "top_h": 0.3}, **options)
    settings = generation.GenerationConfig(max_length=9)
    assert settings.new_tokens(7, 30, 128) == 2  # max_length counts the prompt
    with pytest.raises(ValueError, match="max_length is 9 tokens, and the prompt has 9"):
        settings.new_tokens(9, 30, 128)
    # An end token that the vocabulary does not have, as configs of small models often say, never comes.
    (text,) = lm.generate(PROMPTS[:1], generation_config={"eos_token_id": 50256}, **options)
    assert ids_of(text) == [45, 28]


def test_stops_and_penalties_of_the_caller(lm, eager):
    """The caller's stops come on top of the checkpoint's; a penalty of the caller's is in place of its own."""
    options = {"max_new_tokens": 6, "jit_compile": False}
    texts = [
        lm.generate(PROMPTS[:1], generation_config=settings, **options, **given)[0]
        for settings, given in (
            ({"eos_token_id": 33}, {}),
            ({"eos_token_id": 33}, {"stop": 28}),
            ({"stop_strings": ["28"]}, {"stop": [33]}),
            ({"repetition_penalty": 1.7}, {"processors": [generation.RepetitionPenalty(1.0)]}),
        )
    ]
    assert [ids_of(text) for text in texts] == [[45, 28], [45], [45], [45, 28, 33, 33, 33, 33]]


@pytest.mark.reference
def test_sampling_defaults_are_offered(lm):
    """Right: the logits that transformers' warpers leave, in the order of its generate."""
    import torch
    from transformers.generation import logits_process

    stated = {"do_sample": True, "temperature": 0.7, "top_k": 20, "top_p": 0.9, "min_p": 0.03, "typical_p": 0.8}
    sampler = checkpoint_sampler(generation.GenerationConfig.from_dict(stated))
    logits = np.random.default_rng(0).normal(scale=3.0, size=(4, 96)).astype("float32")
    expected = torch.tensor(logits)
    for warper in (
        logits_process.TemperatureLogitsWarper(0.7),
        logits_process.TopKLogitsWarper(20),
        logits_process.TopPLogitsWarper(0.9),
        logits_process.MinPLogitsWarper(0.03),
        logits_process.TypicalLogitsWarper(0.8),
    ):
        expected = warper(None, expected)
    got = np.asarray(type(sampler).distribution(logits, sampler.values()))
    np.testing.assert_allclose(got, expected.numpy(), rtol=1e-5)
    assert lm.default_sampler() == generation.Greedy()  # and it is not switched on unasked
    assert checkpoint_sampler(generation.GenerationConfig(do_sample=True)).top_k == 50  # transformers' own default
    assert checkpoint_sampler(generation.GenerationConfig(num_beams=3)) == generation.Beams(3)
    with pytest.raises(ValueError, match=r"eta_cutoff=0\.1, for which there is no sampler"):
        checkpoint_sampler(generation.GenerationConfig.from_dict({"do_sample": True, "eta_cutoff": 0.1}))


@pytest.fixture(scope="module")
def tflite(lm, tmp_path_factory):
    path = tmp_path_factory.mktemp("tflite") / "lm.tflite"
    before, lm.generation_config = lm.generation_config, generation.GenerationConfig.from_dict(SETTINGS["together"])
    export.export_litert(lm, path, "float32", cache_length=24, prefill_lengths=(8,))
    lm.generation_config = before
    return path


def test_generation_settings_travel_in_tflite(tflite, lm):
    """Right: what Keras generates, which `test_generation_config_json` compares with transformers."""
    generator = export.LiteRTGenerator(tflite)
    assert generator.generation_config == generation.GenerationConfig.from_dict(SETTINGS["together"])
    for name in ("together", "forced ends", "least length", "decay"):
        settings = generation.GenerationConfig.from_dict(SETTINGS[name])
        generator.generation_config = settings
        options = {"generation_config": settings, "jit_compile": False}
        wanted = [ids_of(text) for text in lm.generate(PROMPTS, NEW, **options)]
        assert [generator.generate_ids(prompt, NEW) for prompt in PROMPTS] == wanted
    generator.generation_config = generation.GenerationConfig(max_new_tokens=3, stop_strings=("33",))
    assert ids_of(generator.generate("5 6 7 5 6")) == [45, 28]
    assert generator.default_sampling() == {}
    generator.generation_config = generation.GenerationConfig(do_sample=True, temperature=0.6, top_p=0.9)
    assert generator.default_sampling() == {"temperature": 0.6, "top_k": 50, "top_p": 0.9}
    assert generator.generate("5 6", 4, seed=0, **generator.default_sampling())


@pytest.mark.extra
def test_generation_settings_travel_in_litertlm(tflite, tmp_path):
    """Right: every stop in the bundle's metadata, read back by litert-lm-builder."""
    builder = pytest.importorskip("litert_lm_builder", reason="needs the extra [litertlm]")
    backend = Tokenizer.from_json(export.LiteRTGenerator(tflite).tokenizer.to_json())
    ended = Tokenizer(backend.tokenizer_json(), {"eos_token": "9"})
    with pytest.warns(UserWarning, match="sets forced_eos_token_id, suppress_tokens, bad_words_ids.*LiteRT-LM has no"):
        export.bundle_litertlm(tflite, ended, tmp_path / "m.litertlm")
    said = io.StringIO()
    builder.peek_litertlm_file(str(tmp_path / "m.litertlm"), None, said)
    assert re.findall(r"stop_tokens \{\s+token_ids \{\s+ids: (\d+)", said.getvalue()) == ["3", "4", "9"]


def test_nan_weights_are_refused(number_tokenizer, tflite, monkeypatch, eager):
    """Right: no answer; `generate` gave the first token of the vocabulary, `score` gave nan."""
    backbone = tiny.backbone("llama", vocabulary_size=96, decoder__num_layers=1)
    model = tasks.CausalLM(backbone, tokenizer=number_tokenizer)
    variable = model.backbone.get_layer("final_norm").gamma
    variable.assign(np.full(variable.shape, np.nan, "float32"))
    drafts = {"speculation": generation.PromptLookup()}
    for options in ({}, {"sampler": generation.Beams(2)}, drafts):
        with pytest.raises(ValueError, match=r"logits are not finite \(NaN or infinite\)"):
            model.generate(PROMPTS, 3, jit_compile=False, **options)
    generator = export.LiteRTGenerator(tflite)
    monkeypatch.setattr(decoding.DecodingSession, "decode", lambda steps, token: np.full(96, np.nan, "float32"))
    for refused in (
        lambda: model.score(["5 6 7"]),
        lambda: model.perplexity("5 6 7"),
        lambda: generator.generate("5 6 7"),
        lambda: generator.score(["5 6 7"]),
    ):
        with pytest.raises(ValueError, match="logits are not finite"):
            refused()


def test_prompts_of_a_wrong_kind(lm, tflite):
    generator = export.LiteRTGenerator(tflite)
    messages = [{"role": "user", "content": "5"}]
    cases = [
        (lambda: lm.stream(["5"]), r"One prompt is continued here, not a list of 1: pass one text"),
        (lambda: generator.stream(["5"]), r"One prompt is continued here, not a list of 1"),
        (lambda: generator.generate([[5], [6]]), r"One prompt is continued here, not a list of 2"),
        (lambda: lm.generate([b"5"]), r"prompts\[0\] is bytes, not str: decode it first"),
        (lambda: lm.stream(b"5"), r"prompt is bytes, not str: decode it first"),
        (lambda: generator.generate(b"5"), r"prompt is bytes, not str: decode it first"),
        (lambda: lm.generate(messages), r"prompts\[0\] holds messages of a conversation: pass them to chat"),
        (lambda: lm.generate([messages]), r"prompts\[0\] holds messages of a conversation: pass them to chat"),
        (lambda: lm.stream(messages), r"prompt holds messages of a conversation: pass them to chat"),
        (lambda: lm.generate([["5"]]), r"prompts\[0\] is itself a list of several"),
        (lambda: lm.generate([None]), r"prompts\[0\] is NoneType \(None\)"),
        (lambda: generator.generate(None), r"prompt is NoneType \(None\)"),
    ]
    for refused, message in cases:
        with pytest.raises(TypeError, match=message):
            refused()


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
    "searches": "{% set x = range(99999) | list %}{% for i in range(9999) %}{{ -1 in x }}{% endfor %}",
    "recursive loop": "{% for i in [1, 2] recursive %}{{ loop([1, 2]) if loop.depth < 60 }}{% endfor %}",
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


THINKING = """{% for m in messages %}<{{ m.role }}>{{ m.content }}{{ m.reasoning_content }}{{ m.thinking }}
{%- for call in m.tool_calls or [] %}[{{ call.name }}]{% endfor %}{% endfor %}
{%- if tools %}{{ tools | tojson }}{% endif %}
{%- for d in documents or [] %}({{ d.title }}){% endfor %}
{%- if enable_thinking is defined and not enable_thinking %}<quiet>{% endif %}"""
TOOLS = [{"type": "function", "function": {"name": "find", "parameters": {"type": "object"}}}]


@pytest.fixture(scope="module")
def bpe():
    return Tokenizer.train_byte_level_bpe(["the cat sat on the mat"] * 3, 280)


@pytest.mark.reference
def test_template_variables(bpe, tmp_path):
    """Right: transformers' apply_chat_template with the same keywords."""
    import transformers

    ours = Tokenizer(bpe.tokenizer_json(), {"eos_token": "<|endoftext|>", "chat_template": THINKING})
    ours.save_pretrained(tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    asked = [*MESSAGES, {"role": "assistant", "content": None, "tool_calls": [{"name": "find"}]}]
    asked.append({"role": "assistant", "content": "it is", "reasoning": "a film is good"})
    for given in (
        {},
        {"tools": TOOLS},
        {"documents": [{"title": "one", "text": "two"}]},
        {"enable_thinking": False},
        {"enable_thinking": True, "tools": TOOLS},
    ):
        expected = theirs.apply_chat_template(asked, tokenize=False, add_generation_prompt=True, **given)
        assert ours.apply_chat_template(asked, **given) == expected


def test_template_variables_reach_chat(lm, bpe, monkeypatch, eager):
    template = "{% for m in messages %}{{ m.content }}{% endfor %}{% if not enable_thinking %} 9{% endif %}"
    ended = Tokenizer(lm.tokenizer.tokenizer_json(), {"eos_token": "28", "chat_template": template})
    monkeypatch.setattr(lm, "tokenizer", ended)
    messages = [{"role": "user", "content": "5 6 7 5 6"}]
    assert lm.chat_prompt(messages, enable_thinking=True) == PROMPTS[0]
    assert lm.chat_prompt(messages, enable_thinking=False) == [*PROMPTS[0], 9]
    # The tokenizer's end token ends a turn, besides the checkpoint's.
    options = {"generation_config": {"eos_token_id": 1}, "jit_compile": False, "enable_thinking": True}
    assert ids_of(lm.chat(messages, 5, **options)) == [45]
    with pytest.raises(TypeError, match=r"template takes no 'enable_thinkin' \(did you mean enable_thinking\?"):
        lm.chat(messages, 5, enable_thinkin=False)
    with pytest.raises(TypeError, match="The chat template takes no 'tools'"):
        lm.chat(messages, 5, tools=TOOLS)
    with pytest.raises(TypeError, match=r"print\(\) cannot be shown as a tool: it takes \*args"):
        lm.chat_prompt(messages, tools=[print])


def test_template_variables_reach_chat_of_files(tflite):
    generator = export.LiteRTGenerator(tflite)
    generator.generation_config = generation.GenerationConfig(eos_token_id=(33,))
    messages = [{"role": "user", "content": "5 6 7 5 6"}]
    template = "{% for m in messages %}{{ m.content }}{% endfor %}{% if not enable_thinking %} 9{% endif %}"
    assert generator.chat_prompt(messages, template=template, enable_thinking=False) == [*PROMPTS[0], 9]
    assert ids_of(generator.chat(messages, 5, template=template, enable_thinking=True)) == [45, 28]
    with pytest.raises(TypeError, match="The chat template takes no 'thinking'"):
        generator.chat(messages, 5, template=template, thinking=True)


@pytest.mark.reference
def test_several_templates_by_name(bpe, tmp_path):
    """Right: transformers reads and writes chat_template.jinja and additional_chat_templates, and picks by name."""
    import transformers

    named = {"default": "plain", "tool_use": "{% if tools %}tools{% endif %}", "rag": "{{ documents[0].title }}"}
    ours = Tokenizer(bpe.tokenizer_json(), {"eos_token": "<|endoftext|>", "chat_template": named})
    ours.save_pretrained(tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert theirs.chat_template == named
    theirs.save_pretrained(tmp_path / "theirs")
    again = Tokenizer.from_pretrained(tmp_path / "theirs")
    documents = [{"title": "one", "text": "two"}]
    for given in ({}, {"tools": TOOLS}):
        expected = theirs.apply_chat_template(MESSAGES, tokenize=False, **given)
        assert again.apply_chat_template(MESSAGES, **given) == expected
    expected = theirs.apply_chat_template(MESSAGES, chat_template="rag", tokenize=False, documents=documents)
    assert again.apply_chat_template(MESSAGES, template="rag", documents=documents) == expected
    with pytest.raises(ValueError, match="no chat template called 'tools'; the tokenizer has default, rag, tool_use"):
        again.apply_chat_template(MESSAGES, template="tools")
