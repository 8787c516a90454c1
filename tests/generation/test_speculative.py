"""Speculation gives the greedy tokens, and does so in fewer steps where drafts are good."""

import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st
from trigram import CONTEXT, VOCABULARY_SIZE, Trigram

from tfxformer import tasks
from tfxformer.generation import DraftModel, PromptLookup, generate, speculate
from tfxformer.generation.engine import Engine

MODEL, OTHER = Trigram(seed=1), Trigram(seed=2)
NEAR = Trigram(seed=1)  # agrees with MODEL often, not always
NEAR.variables[0].assign(0.7 * MODEL.table + 0.3 * OTHER.table)
DRAFTERS = [PromptLookup(2, 3), PromptLookup(5, 1), DraftModel(OTHER, 2), DraftModel(MODEL, 4), DraftModel(NEAR, 4)]
prompts = st.lists(st.integers(0, VOCABULARY_SIZE - 1), min_size=1, max_size=9)


@pytest.mark.parametrize("speculation", DRAFTERS, ids=["lookup", "lookup-1", "other", "itself", "near"])
def test_gives_the_greedy_tokens(speculation):
    @settings(max_examples=25, deadline=None)
    @given(prompts, st.integers(1, 20), st.sets(st.integers(0, VOCABULARY_SIZE - 1), max_size=2))
    def check(prompt, new, stops):
        found = speculate(MODEL, [prompt], new, speculation, stop_ids=sorted(stops), jit_compile=False)
        assert found == [MODEL.greedy(prompt, new, stops)]

    check()


def test_to_the_last_slot_of_the_context():
    """Drafts end before the context does, though a chunk of fixed size is run past it."""
    new = CONTEXT - 3
    for speculation in (PromptLookup(), DraftModel(MODEL)):
        assert speculate(MODEL, [[1, 2, 3]], new, speculation, jit_compile=False) == [MODEL.greedy([1, 2, 3], new)]


def test_good_drafts_save_steps(monkeypatch):
    steps = []
    verify = Engine.verify
    monkeypatch.setattr(Engine, "verify", lambda self, ids, *rest: steps.append(1) or verify(self, ids, *rest))
    speculate(MODEL, [[1, 2]], 20, DraftModel(MODEL, 4), jit_compile=False)
    assert len(steps) == 4  # five tokens each
    steps.clear()
    speculate(MODEL, [[1, 2]], 20, PromptLookup(), jit_compile=False)
    assert len(steps) < 20  # a trigram's greedy text runs in circles


def test_look_up():
    lookup = PromptLookup(ngram=2, draft=3)
    assert lookup.look_up([1, 2, 3, 4, 9, 1, 2], 3) == [3, 4, 9]
    assert lookup.look_up([1, 2, 3, 1, 2, 4, 1, 2], 2) == [4, 1]  # the latest place
    assert lookup.look_up([5, 6, 7, 8, 6], 5) == [7, 8, 6]  # one token, where two are not found
    assert lookup.look_up([1, 2, 3], 3) == [] == lookup.look_up([1], 3)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_real_decoders(family):
    """Prompts one after the other, an attention that would see stale slots if any were visible."""
    model = tasks.CausalLM(tiny.backbone(family, decoder__num_layers=1))
    small = tasks.CausalLM(tiny.backbone(family, seed=1, decoder__num_layers=1))
    rows = [[5, 6, 7, 5, 6], [9]]
    wanted = generate(model, rows, 24, jit_compile=False)
    for speculation in (PromptLookup(2, 4), DraftModel(small, 3)):
        assert generate(model, rows, 24, speculation=speculation, jit_compile=False) == wanted


def test_xla_gives_the_same():
    prompt = [1, 2, 3]
    assert speculate(MODEL, [prompt], 20, DraftModel(NEAR, 3)) == [MODEL.greedy(prompt, 20)]


def test_errors():
    strange = tasks.CausalLM(tiny.backbone("gpt2"))
    with pytest.raises(ValueError, match="they must share a vocabulary"):
        speculate(MODEL, [[1]], 3, DraftModel(strange), jit_compile=False)
    with pytest.raises(ValueError, match="context is 64"):
        speculate(MODEL, [[1]], CONTEXT, PromptLookup(), jit_compile=False)
    states = tasks.CausalLM(tiny.backbone("llama", decoder__convolution=3, decoder__pattern=("convolution", "full")))
    for model, speculation in ((states, PromptLookup()), (MODEL, DraftModel(states))):
        with pytest.raises(ValueError, match="convolution have read them into a state by then: generate without spec"):
            speculate(model, [[1]], 3, speculation, jit_compile=False)
    for make in (lambda: PromptLookup(ngram=0), lambda: PromptLookup(draft=0), lambda: DraftModel(MODEL, 0)):
        with pytest.raises(ValueError, match="at least 1"):
            make()
