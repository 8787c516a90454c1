"""Beam search with a length penalty, as transformers 5 defines it.

Shape letters: B prompts, K beams, T slots of the cache, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from keras import ops

from tfxformer.generation.compiled import compiled, to_tensors
from tfxformer.generation.engine import (
    Engine,
    State,
    all_finite,
    has_penalty,
    last_logits,
    mark_seen,
)
from tfxformer.generation.processors import check_processors, process, static_part, values_of
from tfxformer.generation.prompts import check_count, read_prompts, read_stop_ids, slots_for, until_stop
from tfxformer.layers.attention.cache import reordered
from tfxformer.text.generation.token_rules import Rows, require_finite

_WORST = -1e9  # the score of what is no candidate


@dataclass(frozen=True)
class Beams:
    """Searches for the continuation with the highest score, the sum of log probabilities / tokens ** length_penalty.

    Attributes:
        num_beams: K, the unfinished continuations that are kept.
        length_penalty: above 0 for longer texts (the sum is negative), below for shorter ones.
        early_stopping: True ends a prompt's search with its K-th finished text; False when the best unfinished one, at
            its present length, scores below the worst finished; "never" when it could not at the full length either.

    Raises ValueError for fewer than two beams, and for settings that are none.
    """

    num_beams: int = 4
    length_penalty: float = 1.0
    early_stopping: bool | str = False

    def __post_init__(self):
        check_count("num_beams", self.num_beams)
        if self.early_stopping not in (True, False, "never"):
            raise ValueError(f'early_stopping must be True, False or "never", not {self.early_stopping!r}.')
        if not np.isfinite(self.length_penalty):
            raise ValueError(f"length_penalty must be a finite number, not {self.length_penalty!r}.")


class Beam(NamedTuple):
    """A continuation: its new ids (a stop id is the last), and its score."""

    ids: list[int]
    score: float


class Search(NamedTuple):
    """Where a search stands.

    Attributes:
        state: `State` of the B * K unfinished rows.
        scores: float32 [B, K], sums of log probabilities of the unfinished, the best first.
        finished: int32 [B, K, T], the tokens of the finished, the best first.
        finished_scores: float32 [B, K], with the length penalty.
        finished_lengths: int32 [B, K], new tokens; 0 where nothing has finished yet.
        open: bool [B], whether an unfinished row may still do better.
        ended: bool scalar, whether every candidate of the last step was complete.
    """

    state: State
    scores: object
    finished: object
    finished_scores: object
    finished_lengths: object
    open: object
    ended: object


class Limits(NamedTuple):
    """What the loop reads and does not change, as tensors; `limit` is the slot at which texts end unfinished."""

    padding: object
    first: object
    limit: object
    stop_ids: object
    length_penalty: object
    processors: tuple


def beam_search(
    model,
    prompts,
    max_new_tokens: int,
    *,
    beams: Beams | None = None,
    processors=(),
    stop_ids=(),
    num_return_sequences: int = 1,
    cache_length: int | None = None,
    jit_compile: bool = True,
    source: dict | None = None,
) -> list[Beam]:
    """The best continuations of each prompt, `num_return_sequences` of them, the best first.

    Args:
        beams: `Beams`; None for the default ones.
        others: see `generate`; processors change log probabilities here.

    Returns:
        list of B * num_return_sequences `Beam`.

    Raises ValueError for more sequences than beams, and for what `generate` refuses.
    """
    beams = Beams() if beams is None else beams
    wanted = check_count("num_return_sequences", num_return_sequences)
    if wanted > beams.num_beams:
        raise ValueError(f"num_return_sequences={wanted} of {beams.num_beams} beams: raise num_beams.")
    engine = Engine.of(model, jit_compile)
    vocabulary = engine.config.vocabulary_size
    rows, new = read_prompts(prompts, model), check_count("max_new_tokens", max_new_tokens)
    length = slots_for(rows.length, new, engine.context, cache_length)
    processors = check_processors(processors)
    kinds, stops = static_part(processors), read_stop_ids(stop_ids, vocabulary)
    limits = Limits(
        padding=rows.repeated(beams.num_beams).padding,
        first=np.int32(rows.length),
        limit=np.int32(rows.length + new),
        stop_ids=stops,
        length_penalty=np.float32(beams.length_penalty),
        processors=values_of(processors),
    )
    # Candidates: some go on where many stop at once.
    count = beams.num_beams * max(2, 1 + int((stops >= 0).sum()))
    if count > beams.num_beams * vocabulary:
        raise ValueError(f"{count} candidates of {beams.num_beams} * {vocabulary} tokens: ask for fewer stop ids.")
    never = beams.early_stopping == "never" and beams.length_penalty > 0
    settings = (beams.num_beams, count, beams.early_stopping is True, never)
    key = ("beams", settings, kinds, len(rows.token_ids), length, len(stops))
    search = engine.function(key, lambda: _loop(engine, kinds, settings))
    state = engine.start(rows, length, beams.num_beams, has_penalty(kinds), source)
    found = search(_begin(state, len(rows.token_ids), beams.num_beams), limits)
    require_finite(found.state.finite)
    tokens, scores, lengths = map(ops.convert_to_numpy, (found.finished, found.finished_scores, found.finished_lengths))
    ends = rows.length + lengths
    return [
        Beam(until_stop(tokens[row, beam, rows.length : ends[row, beam]], stops), float(scores[row, beam]))
        for row in range(len(tokens))
        for beam in range(wanted)
    ]


def _loop(engine: Engine, kinds: tuple, settings: tuple):
    """The whole search as one graph: (`Search`, `Limits`) -> `Search`."""

    def search(search, limits):
        return ops.while_loop(
            lambda search: ops.any(search.open) & ~search.ended & search.state.finite,
            lambda search: (_advance(engine, search, limits, kinds, settings),),
            (search,),
        )[0]

    return compiled(engine.model, search, engine.jit_compile)


def _begin(state: State, rows: int, beams: int) -> Search:
    scores = np.full((rows, beams), _WORST, "float32")
    finished_scores = scores.copy()
    scores[:, 0] = 0.0  # all beams are the prompt still: the candidates of one of them are enough
    tokens = ops.reshape(state.tokens, (rows, beams, -1))  # [B * K, T] -> [B, K, T]
    lengths, first = np.zeros((rows, beams), "int32"), np.ones(rows, bool)
    return Search(state, *to_tensors(scores, tokens, finished_scores, lengths, first, np.bool_(False)))


def _candidates(engine, search: Search, limits: Limits, kinds, beams: int, count: int):
    """The best next tokens over all beams of a prompt.

    Returns:
        sums of log probabilities [B, C], beams [B, C], tokens [B, C], the new cache, and whether all logits so far
        were finite.
    """
    state = search.state
    logits, cache = last_logits(engine.model, state.tokens, state.slot, limits.padding, state.cache, engine.context)
    rows = Rows(state.tokens, state.slot, limits.padding, limits.first, limits.limit)
    logarithms = process(ops.log_softmax(logits, axis=-1), state.seen, kinds, limits.processors, rows)
    vocabulary = logits.shape[-1]
    sums = ops.reshape(logarithms, (-1, beams, vocabulary)) + search.scores[:, :, None]  # [B * K, V] -> [B, K, V]
    best, indices = ops.top_k(ops.reshape(sums, (-1, beams * vocabulary)), count)  # [B, K, V] -> [B, K * V]
    return best, indices // vocabulary, indices % vocabulary, cache, state.finite & all_finite(logits)


def _of_each(values, indices):
    """Of values [B, K, ...] those chosen in each row, int32 [B, C]: [B, C, ...]."""
    rows, count = values.shape[:2]
    flat = ops.reshape(values, (rows * count, *values.shape[2:]))  # [B, K, ...] -> [B * K, ...]
    return ops.take(flat, indices + ops.arange(rows, dtype="int32")[:, None] * count, axis=0)


def _advance(engine, search: Search, limits: Limits, kinds, settings) -> Search:
    """One more token in each beam."""
    beams, count, early, never = settings
    state = search.state
    sums, sources, tokens, cache, finite = _candidates(engine, search, limits, kinds, beams, count)
    length = state.slot - limits.first + 1  # new tokens of a candidate
    stops = ops.any(tokens[:, :, None] == limits.stop_ids, axis=-1) | (state.slot + 1 >= limits.limit)

    # === The texts of the candidates: int32 [B, C, T] ===
    slots = state.tokens.shape[1]
    texts = _of_each(ops.reshape(state.tokens, (-1, beams, slots)), sources)  # [B * K, T] -> [B, K, T]
    texts = ops.where(ops.arange(slots) == state.slot, tokens[:, :, None], texts)

    # === The unfinished go on ===
    scores, chosen = ops.top_k(ops.where(stops, sums + _WORST, sums), beams)
    rows = _of_each(sources, chosen) + ops.arange(sums.shape[0])[:, None] * beams
    rows = ops.reshape(rows, (-1,))  # [B, K] -> [B * K]
    seen = state.seen
    if has_penalty(kinds):
        seen = mark_seen(ops.take(seen, rows, axis=0), ops.reshape(_of_each(tokens, chosen), (-1,)))
    unfinished = State(
        tokens=ops.reshape(_of_each(texts, chosen), (-1, slots)),  # [B, K, T] -> [B * K, T]
        slot=state.slot + 1,
        done=state.done,
        seen=seen,
        finite=finite,
        cache=reordered(cache, rows),
    )

    # === The finished are merged with those before ===
    penalty = limits.length_penalty
    complete = search.finished_lengths > 0
    closed = ~search.open[:, None] | (ops.all(complete, axis=1, keepdims=True) & early)
    counted = stops & (ops.arange(count) < beams) & ~closed  # only the K best candidates may finish
    final = ops.where(counted, sums / ops.cast(length, "float32") ** penalty, _WORST)
    finished_scores, kept = ops.top_k(ops.concatenate([search.finished_scores, final], axis=1), beams)
    lengths = ops.concatenate([search.finished_lengths, ops.where(counted, length, 0)], axis=1)
    lengths = _of_each(lengths, kept)
    finished = _of_each(ops.concatenate([search.finished, texts], axis=1), kept)

    # === Whether an unfinished one may still do better ===
    reach = limits.limit - limits.first if never else length
    possible = scores[:, 0] / ops.cast(reach, "float32") ** penalty
    complete = lengths > 0
    # While one of the K places is empty, the worst finished score is that of no text, and anything is better.
    still = search.open & (possible > ops.min(finished_scores, axis=1))
    ended = ops.all(stops) | (ops.all(complete) & early)
    return Search(unfinished, scores, finished, finished_scores, lengths, still, ended)
