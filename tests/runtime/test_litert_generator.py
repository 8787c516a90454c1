"""LiteRTGenerator: text out of a file, without Keras, on buffers that are read and written in place."""

import dataclasses

import keras
import litert_files
import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter
from language_cases import confirmed

from tfxformer import export
from tfxformer.numpy_ops import NUMPY
from tfxformer.runtime.generation import decoding
from tfxformer.runtime.generation.sampling import Sampler
from tfxformer.text.generation.sampling import limited

T, LENGTHS = litert_files.CACHE, litert_files.PREFILL_LENGTHS
PROMPT = "good film"


@pytest.fixture(scope="module")
def model():
    return litert_files.language_model()


@pytest.fixture(scope="module")
def path():
    return litert_files.decoder()


@pytest.fixture(scope="module")
def generator(path):
    return export.LiteRTGenerator(path, num_threads=1)


def test_what_the_file_says(model, generator):
    assert generator.cache_length == T
    assert generator.prefill_lengths == LENGTHS
    assert generator.quantization == "float32"
    assert generator.tokenizer == model.tokenizer


def test_greedy_tokens_equal_keras(model, generator):
    random = np.random.default_rng(3)
    for length in (1, 3, 4, 21, 37):
        prompt = random.integers(4, 400, length).tolist()
        found = generator.generate_ids(prompt, 10)
        ended = [] if len(found) == 10 else [model.tokenizer.eos_id]
        assert model.tokenizer.eos_id not in found
        assert [*found, *ended] == confirmed(model, prompt, [*found, *ended])


def test_buffers_in_place_give_the_logits_of_signature_runners(path, generator):
    """Bit for bit, over a prefill in padded chunks and decoding."""
    interpreter = Interpreter(model_path=str(path), num_threads=1)
    runners = {name: interpreter.get_signature_runner(name) for name in interpreter.get_signature_list()}
    details = runners["decode"].get_input_details()
    cache = {name: np.zeros(d["shape"], d["dtype"]) for name, d in details.items() if name.startswith("kv_cache_")}

    def run(signature, tokens, positions):
        outputs = runners[signature](tokens=tokens, input_pos=positions, **cache)
        cache.update({name: outputs[name] for name in cache})
        return outputs["logits"][0, 0] if "logits" in outputs else None

    ids = np.random.default_rng(0).integers(4, 400, T).tolist()
    generator.generate_ids(ids[:30], 5)  # what an earlier text left must not show
    texts = [decoding.DecodingSession(run, LENGTHS, T), generator.steps()]
    for steps in texts:
        steps.prefill(ids[:22])
    for token in ids[22:]:
        wanted, got = (steps.decode(token) for steps in texts)
        np.testing.assert_array_equal(got, wanted)


def test_text_comes_in_pieces(model, generator):
    ids = model.tokenizer.ids([PROMPT])[0]
    wanted = model.tokenizer.decode([generator.generate_ids(ids, 12)])[0]
    pieces = list(generator.stream(PROMPT, 12))
    assert len(pieces) > 1
    assert "".join(pieces) == wanted == generator.generate(PROMPT, 12)


def test_chat_uses_the_template_in_the_file(model, generator):
    messages = [{"role": "user", "content": PROMPT}]
    text = model.tokenizer.apply_chat_template(messages)
    ids = model.tokenizer.ids([text], special_tokens=False)[0]
    assert "<|user|>" in text
    assert generator.chat(messages, 8) == model.tokenizer.decode([generator.generate_ids(ids, 8)])[0]


def test_stop_texts_end_the_answer(generator):
    whole = generator.generate(PROMPT, 12)
    stop = whole[3:5]
    assert generator.generate(PROMPT, 12, stop=stop) == whole[: whole.index(stop)]


def test_end_token_ends_the_answer(generator, monkeypatch):
    ids = generator.tokenizer.ids([PROMPT])[0]
    wanted = generator.generate_ids(ids, 6)
    settings = dataclasses.replace(generator.generation_config, eos_token_id=(wanted[3],))
    monkeypatch.setattr(generator, "generation_config", settings)
    assert generator.generate_ids(ids, 6) == wanted[: wanted.index(wanted[3])]


def test_generation_ends_with_the_cache(model, generator):
    prompt = np.random.default_rng(1).integers(4, 400, T - 3).tolist()
    found = generator.generate_ids(prompt)
    assert len(found) == 4 and found == confirmed(model, prompt, found)
    assert len(generator.generate_ids([*prompt, 5, 6, 7])) == 1


def test_seeds(generator):
    drawn = [generator.generate(PROMPT, 12, temperature=2.0, top_k=50, top_p=0.9, seed=seed) for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]


@pytest.mark.parametrize(
    ("prompt", "options", "message"),
    [
        ("good " * 60, {}, "cache 48 slots"),
        (PROMPT, {"max_new_tokens": 0}, "max_new_tokens"),
        (PROMPT, {"temperature": -1.0}, "temperature"),
        (PROMPT, {"temperature": 1.0, "top_p": 0.0}, "top_p"),
        (PROMPT, {"temperature": 1.0, "top_p": 1.5}, "top_p"),
        (PROMPT, {"temperature": 1.0, "top_k": 0}, "top_k"),
        (PROMPT, {"temperature": 0, "top_k": 5}, "top_k draw tokens by chance"),
        (PROMPT, {"stop": [""]}, "stop"),
    ],
)
def test_bad_input(generator, prompt, options, message):
    with pytest.raises(ValueError, match=message):
        generator.stream(prompt, **options)


def test_an_empty_prompt_is_refused(generator):
    with pytest.raises(ValueError, match="empty"):
        generator.generate_ids([])


def test_other_files_are_refused():
    with pytest.raises(ValueError, match="no signature decode"):
        export.LiteRTGenerator(litert_files.classifier("float32"))


def frequencies(sampler, logits, count=4000):
    drawn = np.bincount([sampler(logits) for _ in range(count)], minlength=len(logits))
    return drawn / count


def test_limits_are_those_of_keras():
    """The same maths on numpy and on keras.ops; the definition itself is held in tests/generation/test_samplers.py."""
    logits = np.random.default_rng(0).normal(scale=3.0, size=(4, 96)).astype("float32")
    for values in ({"top_k": 7}, {"top_p": 0.8}, {"min_p": 0.05}, {"typical_p": 0.6}, {"top_k": 20, "top_p": 0.9}):
        ours, theirs = (np.asarray(limited(logits, values, ops)) for ops in (NUMPY, keras.ops))
        np.testing.assert_array_equal(ours, theirs)


def test_sampler_draws_by_probability():
    logits = np.log(np.array([0.5, 0.3, 0.15, 0.05]))
    np.testing.assert_allclose(frequencies(Sampler(1.0, seed=0), logits), [0.5, 0.3, 0.15, 0.05], atol=0.03)
    np.testing.assert_allclose(frequencies(Sampler(1.0, top_k=2, seed=0), logits), [0.625, 0.375, 0, 0], atol=0.03)
    # The first two reach 0.8 together; one that they reach exactly adds no third.
    np.testing.assert_allclose(frequencies(Sampler(1.0, top_p=0.79, seed=0), logits), [0.625, 0.375, 0, 0], atol=0.03)
    np.testing.assert_allclose(frequencies(Sampler(1.0, top_p=0.4, seed=0), logits), [1, 0, 0, 0])
    np.testing.assert_allclose(frequencies(Sampler(1.0, min_p=0.5, seed=0), logits), [0.625, 0.375, 0, 0], atol=0.03)
    squared = np.array([0.25, 0.09, 0.0225, 0.0025])
    np.testing.assert_allclose(frequencies(Sampler(0.5, seed=0), logits), squared / squared.sum(), atol=0.03)
    assert Sampler()(logits) == 0


def test_prompts_are_read_as_keras_reads_them(model, generator):
    """A tokenizer that ends every text does not end the prompt; no text at all is the begin token."""
    wanted = model.generate([PROMPT, ""], max_new_tokens=8, jit_compile=False)
    assert [generator.generate(prompt, 8) for prompt in (PROMPT, "")] == wanted
