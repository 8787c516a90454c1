"""Speculative decoding (Leviathan et al., 2022, arXiv:2211.17192), greedy: the same tokens in fewer steps.

Cheaply drafted tokens are checked by one step of the model over all of them. Slots of a cache are positions: what
was read of a refused draft is overwritten by the next step, before any token sees it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from keras import ops

from tfxformer.generation.compiled import to_tensors
from tfxformer.generation.engine import Engine, Request, State
from tfxformer.generation.prompts import (
    Prompts,
    check_count,
    prompt_length_of,
    read_prompts,
    read_stop_ids,
    slots_for,
    until_stop,
)
from tfxformer.generation.samplers import Greedy
from tfxformer.text.generation.token_rules import Rows, TokenRules, require_finite


@dataclass(frozen=True)
class PromptLookup:
    """Drafts what followed the last tokens where they stood before (Saxena, 2023): for texts that repeat the prompt.

    Attributes:
        ngram: the last tokens that are looked for, fewer where they are not found.
        draft: tokens of a draft.
    """

    ngram: int = 3
    draft: int = 8

    def __post_init__(self):
        check_count("ngram", self.ngram)
        check_count("draft", self.draft)

    def drafter(self, engine: Engine, prompt: Prompts, new: int):
        """A function from all ids so far to a draft; it keeps nothing of a prompt."""
        return self.look_up

    def look_up(self, ids: list[int], count: int) -> list[int]:
        """What followed the last tokens at their latest place before, at most `count` ids."""
        known = np.asarray(ids, "int32")
        for size in range(min(self.ngram, len(known) - 1), 0, -1):
            windows = np.lib.stride_tricks.sliding_window_view(known[:-1], size)
            places = np.flatnonzero((windows == known[-size:]).all(axis=1))
            if len(places):
                start = places[-1] + size
                return known[start : start + count].tolist()
        return []


@dataclass(frozen=True)
class DraftModel:
    """Drafts by a smaller model with the same vocabulary.

    Attributes:
        model: the smaller model.
        draft: tokens of a draft.
    """

    model: object
    draft: int = 4

    def __post_init__(self):
        check_count("draft", self.draft)

    def drafter(self, engine: Engine, prompt: Prompts, new: int):
        """A function from all ids so far to a draft; it holds the draft model's cache of one prompt."""
        small = Engine.of(self.model, engine.jit_compile)
        _check_slots(small)
        if small.config.vocabulary_size != engine.config.vocabulary_size:
            raise ValueError(
                f"The draft model has {small.config.vocabulary_size} tokens, the model "
                f"{engine.config.vocabulary_size}: they must share a vocabulary."
            )
        # It never writes past the tokens that the large model was asked for.
        length = slots_for(prompt.length, new, small.context)
        return _Drafts(small, length, small.model.new_cache(1, length))


class _Drafts:
    """The greedy continuations of a draft model, on a cache that follows what was accepted."""

    def __init__(self, engine: Engine, length: int, cache):
        self.engine, self.length, self.cache = engine, length, cache
        self.read: list[int] = []  # the ids in the cache
        zero = np.zeros(1, "int32")
        values = Greedy().values()
        self.request = Request(zero, np.int32(0), np.int32(0), np.uint32(0), read_stop_ids((), 0), values, ())

    def __call__(self, ids: list[int], count: int) -> list[int]:
        same = next((at for at, pair in enumerate(zip(ids, self.read, strict=False)) if pair[0] != pair[1]), None)
        at = min(len(self.read), len(ids) - 1) if same is None else min(same, len(ids) - 1)
        if at < len(ids) - 1:
            missing = np.asarray(ids[at:-1], "int32")[None]
            self.cache = self.engine.prefill(missing, at, self.request.padding, self.cache)
        tokens = np.zeros((1, self.length), "int32")
        tokens[0, : len(ids)] = ids
        parts = (tokens, np.int32(len(ids)), np.zeros(1, bool), np.zeros((1, 0), bool), np.bool_(True))
        state = State(*to_tensors(*parts), self.cache)
        end = len(ids) + count
        state = self.engine.decode(state, self.request, end, Greedy, ())
        require_finite(state.finite)
        drafted = ops.convert_to_numpy(state.tokens)[0, :end].tolist()
        self.cache, self.read = state.cache, drafted[:-1]  # the last one was drawn but not read
        return drafted[len(ids) :]


def _check_slots(engine: Engine) -> None:
    stack = getattr(engine.config, "decoder", None)
    if stack is not None and stack.has_states:
        others = sorted(set(stack.kinds) - stack.attention.keys())
        raise ValueError(
            f"speculation takes refused drafts back by writing over their slots, and layers of the kind "
            f"{', '.join(others)} have read them into a state by then: generate without speculation."
        )


def speculate(
    model,
    prompts,
    max_new_tokens: int,
    speculation: PromptLookup | DraftModel,
    *,
    rules: Sequence[TokenRules] = (),
    stop_ids=(),
    cache_length: int | None = None,
    jit_compile: bool = True,
) -> list[list[int]]:
    """The greedy continuations of prompts, one after the other; arguments and errors as `generate` has them.

    Raises ValueError for a model with embeddings in front of its texts, for one whose layers carry states, and for what
    `generate` refuses.
    """
    if prompt_length_of(model):
        raise ValueError(
            "speculation reads a prompt's tokens, and this model's adapter has embeddings in front that are none "
            "(PromptTuning): generate without speculation."
        )
    engine = Engine.of(model, jit_compile)
    _check_slots(engine)
    vocabulary = engine.config.vocabulary_size
    rows, new = read_prompts(prompts, model), check_count("max_new_tokens", max_new_tokens)
    stops = read_stop_ids(stop_ids, vocabulary)
    slots_for(rows.length, new, engine.context, cache_length)  # refuses what does not fit
    results = []
    for ids, padding in zip(rows.token_ids, rows.padding, strict=True):
        prompt = Prompts(ids[padding:][None], np.zeros(1, "int32"))
        results.append(_one(engine, prompt, new, speculation, rules, stops, cache_length))
    return results


def _one(engine: Engine, prompt: Prompts, new: int, speculation, rules, stops, cache_length) -> list[int]:
    # The slots of a draft that is filled up past the end come on top: the write would be clamped, not refused.
    needed = slots_for(prompt.length, new, engine.context, cache_length)
    length = slots_for(needed, speculation.draft + 1, needed + speculation.draft + 1)
    draft_tokens = speculation.drafter(engine, prompt, new)
    cache = engine.prefill(prompt.token_ids[:, :-1], 0, prompt.padding, engine.model.new_cache(1, length))
    ids = prompt.token_ids[0].tolist()
    end = len(ids) + new
    while len(ids) < end:
        # The step gives one token more than it accepts of the draft.
        room = min(speculation.draft, end - len(ids) - 1)
        draft = draft_tokens(ids, room) if room else []
        chunk = np.zeros((1, speculation.draft + 1), "int32")
        chunk[0, : len(draft) + 1] = [ids[-1], *draft]
        best, finite, cache = engine.verify(chunk, len(ids) - 1, cache, bool(rules))
        require_finite(finite)
        best = ops.convert_to_numpy(best)[0]
        best = _ruled(best, ids, draft, rules, prompt.length, end) if rules else best.tolist()
        right = next((at for at, token in enumerate(draft) if token != best[at]), len(draft))
        accepted = until_stop(best[: right + 1], stops)
        ids += accepted
        if accepted[-1] in stops:
            break
    return ids[prompt.length :]


def _ruled(logits, ids: list[int], draft: list[int], rules, first: int, end: int) -> list[int]:
    """The best tokens by logits float32 [S, V] under rules, up to the first that the draft has not."""
    tokens, best = np.array([*ids, *draft], "int32")[None], []
    for at in range(len(draft) + 1):
        slot = len(ids) + at
        rows, row = Rows(tokens[:, :slot], slot, np.zeros(1, "int32"), first, end), logits[at][None]
        for one in rules:
            row = one.apply(row, rows)
        best.append(int(row[0].argmax()))
        if at < len(draft) and best[-1] != draft[at]:
            break
    return best
