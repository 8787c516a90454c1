"""The loop against argmax by hand and against transformers; its pieces, seeds, stops, processors and errors."""

import numpy as np
import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st
from trigram import CONTEXT, VOCABULARY_SIZE, Trigram

from tfxformer import tasks
from tfxformer.generation import Beams, PromptLookup, Random, RepetitionPenalty, TopK, TopP, generate, stream
from tfxformer.generation.engine import PREFILL_CHUNK, Engine
from tfxformer.generation.prompts import slots_for

PROMPTS = [[5, 6, 7, 8, 9], [11, 12], [20]]
MODEL = Trigram()
prompts = st.lists(
    st.lists(st.integers(0, VOCABULARY_SIZE - 1), min_size=1, max_size=5), min_size=1, max_size=2
)  # few shapes, since each is traced


def padded(rows):
    """The rows as transformers takes them: ids and mask, padded on the left."""
    import torch

    length = max(map(len, rows))
    ids = [[0] * (length - len(row)) + row for row in rows]
    mask = [[0] * (length - len(row)) + [1] * len(row) for row in rows]
    return {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(mask)}


def theirs(model, rows, **arguments):
    found = model.generate(**padded(rows), do_sample=False, pad_token_id=0, **arguments)
    return found[:, max(map(len, rows)) :].tolist()


@settings(max_examples=40, deadline=None)
@given(prompts, st.integers(1, 9), st.sets(st.integers(0, VOCABULARY_SIZE - 1), max_size=2))
def test_greedy_by_hand(rows, new, stops):
    wanted = [MODEL.greedy(row, new, stops) for row in rows]
    assert generate(MODEL, rows, new, stop_ids=sorted(stops), jit_compile=False) == wanted


@pytest.mark.parametrize(
    "name",
    [
        "gpt2-lm", "llama-lm", "neox-lm", "bloom-lm", "qwen2-window", "qwen3-lm", "phi-lm", "gpt-neo-lm", "falcon-7b",
        "codegen-lm", "bigcode-lm", "lfm2-lm", "qwen3_5-lm",
    ],
)  # fmt: skip
@pytest.mark.reference
def test_greedy_equals_transformers(name, decoder, reference):
    """Unequal prompts in one batch."""
    new = 16
    assert generate(decoder(name), PROMPTS, new, jit_compile=name == "llama-lm") == theirs(
        reference(name), PROMPTS, max_new_tokens=new
    )


def test_equals_uncached_argmax(decoder):
    """Of a real decoder, without the reference: the whole text through the model, without a cache."""
    model = decoder("llama-lm")
    for row, new in zip(PROMPTS, generate(model, PROMPTS, 6, jit_compile=False), strict=True):
        ids = [*row, *new[:-1]]
        batch = {"token_ids": np.array([ids], "int32"), "padding_mask": np.ones((1, len(ids)), "int32")}
        assert new == np.argmax(np.asarray(model(batch))[0, len(row) - 1 :], -1).tolist()


@pytest.mark.reference
@pytest.mark.parametrize("penalty", [1.3, 0.8])
def test_repetition_penalty_equals_transformers(penalty, decoder, reference):
    """One row: transformers counts padding as a token of the text."""
    ours = generate(decoder("gpt2-lm"), PROMPTS[:1], 20, processors=[RepetitionPenalty(penalty)], jit_compile=False)
    assert ours == theirs(reference("gpt2-lm"), PROMPTS[:1], max_new_tokens=20, repetition_penalty=penalty)


def test_penalty_counts_the_row_alone():
    """A padded row knows its own tokens only; 0, the id at padding, is not one of them."""
    rows = [[1, 2, 3], [4]]
    found = generate(MODEL, rows, 12, processors=[RepetitionPenalty(1.5)], jit_compile=False)
    for row, new in zip(rows, found, strict=True):
        ids = list(row)
        for token in new:
            logits = MODEL.logits(ids).copy()
            for one in set(ids):
                logits[one] *= 1.5 if logits[one] < 0 else 1 / 1.5
            assert token == np.argmax(logits)
            ids.append(token)
        assert new != MODEL.greedy(row, 12)


def test_hooks_are_called_in_order():
    from keras import ops

    def only_even(logits):
        return ops.where(np.arange(VOCABULARY_SIZE) % 2 == 0, logits, -np.inf)

    def never_zero(logits):
        return ops.where(np.arange(VOCABULARY_SIZE) == 0, -np.inf, logits)

    for sampler in (None, Random()):
        (ids,) = generate(
            MODEL, [[1]], 30, sampler=sampler, processors=[only_even, never_zero], seed=0, jit_compile=False
        )
        assert set(ids) <= {2, 4, 6}
    with pytest.raises(TypeError, match="A processor is a RepetitionPenalty or a function"):
        generate(MODEL, [[1]], 3, processors=[1.2])


def test_pieces_are_the_whole():
    """By any piece_length; a row with its stop id gives no more, and the others go on."""
    sampler, rows = TopP(0.9, temperature=1.3), [[1, 2, 3], [4], [5, 6]]
    shared = {"sampler": sampler, "seed": 11, "stop_ids": [3], "num_return_sequences": 2, "jit_compile": False}
    whole = generate(MODEL, rows, 21, **shared)
    assert len(whole) == 6 and any(3 in ids for ids in whole)
    assert all(3 not in ids[:-1] and (len(ids) == 21 or ids[-1] == 3) for ids in whole)
    for piece_length in (1, 4, 100):
        pieces = list(stream(MODEL, rows, 21, piece_length=piece_length, **shared))
        assert [[token for piece in pieces for token in piece[row]] for row in range(6)] == whole
        assert all(any(piece) for piece in pieces)


def test_seeds():
    shared = {"sampler": Random(), "jit_compile": False}
    first = generate(MODEL, [[1]], 20, seed=1, **shared)
    assert generate(MODEL, [[1]], 20, seed=1, **shared) == first
    assert generate(MODEL, [[1]], 20, seed=2, **shared) != first
    assert generate(MODEL, [[1]], 20, **shared) != generate(MODEL, [[1]], 20, **shared)
    # Another prompt beside it, and padding, change nothing; each continuation is one of its own.
    assert generate(MODEL, [[1], [2, 3, 4]], 20, seed=1, **shared)[:1] == first
    several = generate(MODEL, [[1]], 20, seed=1, num_return_sequences=4, **shared)
    assert several[:1] == first and len(set(map(tuple, several))) == 4


def test_xla_draws_the_same():
    shared = {"sampler": TopK(4, temperature=0.9), "seed": 5, "processors": [RepetitionPenalty(1.2)]}
    assert generate(MODEL, [[1, 2], [3]], 12, **shared) == generate(
        MODEL, [[1, 2], [3]], 12, jit_compile=False, **shared
    )


def test_other_values_trace_nothing_anew():
    """Prompts, lengths within a bucket, numbers of samplers and penalties, seeds and stop ids are tensors."""
    model = Trigram()
    generate(model, [[1, 2]], 5, sampler=TopP(0.5), seed=0, processors=[RepetitionPenalty(1.1)], jit_compile=False)
    traced = model.traced
    for length in (1, 3, 9):
        generate(
            model,
            [[3] * length],
            length + 7,
            sampler=TopP(0.9, temperature=0.4 * length),
            seed=length,
            stop_ids=[1, 2][:length],
            processors=[RepetitionPenalty(1 + length)],
            jit_compile=False,
        )
    assert model.traced == traced
    generate(model, [[1]], 5, sampler=Random(), jit_compile=False)
    assert model.traced > traced


def test_long_prompts_are_read_in_chunks(monkeypatch):
    """Whole chunks after an odd one give the same text."""
    import tfxformer.generation.engine as engine

    model = tasks.CausalLM(tiny.backbone("llama", decoder__num_layers=1))
    prompt = np.random.default_rng(0).integers(0, tiny.VOCABULARY_SIZE, 30).tolist()
    rows = [prompt, prompt[:7]]
    whole = generate(model, rows, 5, jit_compile=False)
    assert len(prompt) < PREFILL_CHUNK
    monkeypatch.setattr(engine, "PREFILL_CHUNK", 4)
    assert generate(model, rows, 5, jit_compile=False) == whole


def test_new_weights_are_used_and_new_variables_trace_anew():
    model = Trigram()
    before = generate(model, [[1]], 8, jit_compile=False)
    other = Trigram(seed=4)
    model.variables[0].assign(other.table)
    after = generate(model, [[1]], 8, jit_compile=False)
    assert after == [other.greedy([1], 8)] != before
    engine = Engine.of(model, False)
    assert Engine.of(model, False) is engine
    model.variables = [*model.variables, other.variables[0]]
    assert Engine.of(model, False) is not engine


def test_a_model_is_saved_after_generating(tmp_path):
    import keras

    model = tasks.CausalLM(tiny.backbone("gpt2", decoder__num_layers=1))
    ids = generate(model, [[3, 4]], 4, jit_compile=False)
    model.save(tmp_path / "model.keras")
    assert generate(keras.models.load_model(tmp_path / "model.keras"), [[3, 4]], 4, jit_compile=False) == ids


def test_half_precision_generates():
    model = tasks.CausalLM(tiny.backbone("llama", dtype="bfloat16", decoder__num_layers=1))
    assert [len(ids) for ids in generate(model, PROMPTS, 4, jit_compile=False)] == [4, 4, 4]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"prompts": "hello"}, TypeError, "a task's generate takes texts"),
        ({"prompts": []}, ValueError, "no prompt"),
        ({"prompts": [1, 2]}, TypeError, "Prompt 0 must be a list of token ids"),
        ({"prompts": ["hello"]}, TypeError, "Prompt 0 must be a list of token ids"),
        ({"prompts": [[1], []]}, ValueError, "Prompt 1 is empty"),
        ({"prompts": [[0.5]]}, TypeError, "Prompt 0 must be a list of whole numbers"),
        ({"prompts": [[1, 7]]}, ValueError, "Prompt 0 has the id 7; the vocabulary has ids 0 to 6"),
        ({"prompts": [[-1]]}, ValueError, "Prompt 0 has the id -1"),
        ({"stop_ids": [9]}, ValueError, "stop_ids has the id 9"),
        ({"max_new_tokens": 0}, ValueError, "max_new_tokens must be a whole number of at least 1, not 0"),
        (
            {"max_new_tokens": CONTEXT},
            ValueError,
            f"of 1 tokens and 64 new ones are 65; the model's context is {CONTEXT}",
        ),
        ({"cache_length": 10}, ValueError, "the cache has 10 slots"),
        ({"num_return_sequences": 0}, ValueError, "num_return_sequences"),
        ({"sampler": "greedy"}, TypeError, "needs a sampler"),
        ({"sampler": Beams(), "speculation": PromptLookup()}, ValueError, "Speculation gives the greedy tokens"),
        ({"sampler": Random(), "speculation": PromptLookup()}, ValueError, "Speculation gives the greedy tokens"),
        ({"sampler": Beams(2), "num_return_sequences": 3}, ValueError, "raise num_beams"),
    ],
)
def test_bad_input(arguments, error, message):
    with pytest.raises(error, match=message):
        generate(MODEL, **{"prompts": [[1]], "max_new_tokens": 20, "jit_compile": False, **arguments})


def test_the_last_slot_can_be_filled():
    """Prompt and new tokens fill the context, or the cache given, to the end."""
    for length in (None, CONTEXT):
        (ids,) = generate(MODEL, [[1, 2]], CONTEXT - 2, cache_length=length, jit_compile=False)
        assert ids == MODEL.greedy([1, 2], CONTEXT - 2)
    assert [slots_for(1, new, 4096) for new in (1, 63, 64, 255, 256, 600)] == [64, 64, 128, 256, 512, 768]


def test_streams_check_at_once():
    with pytest.raises(ValueError, match="Prompt 0 is empty"):
        stream(MODEL, [[]], 3)
    with pytest.raises(ValueError, match="piece_length"):
        stream(MODEL, [[1]], 3, piece_length=0)
    with pytest.raises(ValueError, match="repetition penalty must be above 0"):
        RepetitionPenalty(0)
