"""The compiled functions of one model: prefill, the decode loop, and the step that checks drafts.

Shape letters: B rows, S new tokens, T slots of the cache, P the longest prompt's tokens, V vocabulary.
"""

from __future__ import annotations

from typing import NamedTuple

import keras
import numpy as np
from keras import ops

from tfxformer.backend import on_tensorflow
from tfxformer.generation.compiled import compiled, shape_of, to_tensors
from tfxformer.generation.processors import RepetitionPenalty, process
from tfxformer.generation.prompts import Prompts, backbone_of, config_of
from tfxformer.layers import Cache
from tfxformer.layers.attention.cache import repeated
from tfxformer.text.generation.token_rules import Rows

PREFILL_CHUNK = 512  # tokens of one call: bounds the memory of its attention scores [B, N, S, T]
_LEAST_CHUNK = 16  # tokens that a chunk is filled up to, where every size is compiled
KEPT_FUNCTIONS = 16  # the compiled functions that a model keeps, the last ones used


class State(NamedTuple):
    """Where a generation stands: what the loop changes.

    Attributes:
        tokens: int32 [B, T], the ids in their slots: padding, prompt, new tokens.
        slot: int32 scalar, where the next token goes; the one before it is not in the cache yet.
        done: bool [B], rows that have their stop id.
        seen: bool [B, V], tokens that a row has, where a repetition penalty asks for them; else [B, 0].
        finite: bool scalar, whether all logits so far were finite numbers; the loop ends where they are not.
        cache: `layers.Cache` of T slots.
    """

    tokens: object
    slot: object
    done: object
    seen: object
    finite: object
    cache: Cache


class Request(NamedTuple):
    """What the loop reads and does not change; all are tensors, so that other values trace nothing anew.

    Attributes:
        padding: int32 [B], padded slots on the left of each row.
        first: int32 scalar, the slot of the first new token.
        end: int32 scalar, the slot at which texts end unfinished.
        seed: uint32 scalar.
        stop_ids: int32 [K], -1 where there is none.
        sampler: dict of float32 scalars.
        processors: tuple of float32 scalars.
    """

    padding: object
    first: object
    end: object
    seed: object
    stop_ids: object
    sampler: dict
    processors: tuple


def cache_mask(padding, length: int):
    """0 at the padded slots on the left, 1 at all others: int32 [B] -> int32 [B, T]."""
    return ops.cast(np.arange(length, dtype="int32")[None] >= ops.expand_dims(padding, 1), "int32")


def step_inputs(token_ids, slot, padding, length: int, context: int) -> dict:
    """What `step` takes for tokens int32 [B, S] that are written from `slot` on."""
    slots = slot + ops.arange(ops.shape(token_ids)[1], dtype="int32")
    # Of a padded slot, and of a draft filled up past the end, no position is read, but a table must have its row.
    positions = ops.clip(ops.expand_dims(slots, 0) - ops.expand_dims(padding, 1), 0, context - 1)
    mask = cache_mask(padding, length)
    return {"token_ids": token_ids, "cache_positions": slots, "positions": positions, "cache_mask": mask}


def last_logits(model, tokens, slot, padding, cache, context: int):
    """Runs the token before `slot`: (float32 [B, V], new cache)."""
    last = ops.slice(tokens, (0, slot - 1), (tokens.shape[0], 1))
    logits, cache = model.step(step_inputs(last, slot - 1, padding, tokens.shape[1], context), cache)
    return logits[:, 0], cache


def mark_seen(seen, token_ids):
    """bool [B, V] with one more token of each row, int32 [B]."""
    return ops.logical_or(seen, ops.equal(np.arange(seen.shape[1], dtype="int32")[None], token_ids[:, None]))


def all_finite(logits):
    """Whether no logit is NaN or infinite, as a bool scalar."""
    return ops.all(ops.isfinite(logits))


def _filled_up(ids, room: int):
    """Ids [B, S] with zeros behind, up to a power of two or the slots that there are."""
    size = min(max(_LEAST_CHUNK, 1 << (ids.shape[1] - 1).bit_length()), room)
    return np.pad(ids, ((0, 0), (0, size - ids.shape[1])))


def has_penalty(kinds: tuple) -> bool:
    """Whether the loop must know which tokens a row has."""
    return RepetitionPenalty in kinds


class Engine:
    """The compiled functions of a model, kept with it.

    Args:
        model: what has `step(inputs, cache, logits=...)`, `new_cache(batch_size, length)`, a config, and variables; of
            one with an encoder new_cache takes a source, too.
        jit_compile: bool, compile the loop with XLA: fastest for each token, seconds to minutes for the first.
    """

    def __init__(self, model, jit_compile: bool = True):
        self.model = model
        self.config = config_of(model)
        # A prompt is among the tokens, a prefix is not.
        self.context = self.config.max_cached_length - getattr(backbone_of(model), "prefix_length", 0)
        self.jit_compile = jit_compile
        self._functions: dict = {}

    @classmethod
    def of(cls, model, jit_compile: bool = True) -> Engine:
        """The engine of a model, made once; another one when layers were added to the model or taken away."""
        variables = tuple(id(variable) for variable in model.variables)
        # Past Keras' own __setattr__, which would track the engine as a part of the model.
        engines = model.__dict__.setdefault("_generation_engines", {})
        known, engine = engines.get(jit_compile, (None, None))
        if known != variables:
            engine = cls(model, jit_compile)
            engines[jit_compile] = (variables, engine)
        return engine

    def function(self, key: tuple, make):
        """The function of a key, made by `make()` at its first use."""
        function = self._functions.pop(key, None) or make()
        self._functions[key] = function  # the last one used stands last
        while len(self._functions) > KEPT_FUNCTIONS:
            del self._functions[next(iter(self._functions))]
        return function

    # ---- prefill ----------------------------------------------------------------------------------------------

    def start(
        self, prompts: Prompts, length: int, copies: int = 1, penalized: bool = False, source: dict | None = None
    ) -> State:
        """The state after all tokens of the prompts but the last one have been read.

        Args:
            prompts: `Prompts` of B rows.
            length: int T, slots.
            copies: int, rows for each prompt; it is read once.
            penalized: bool, whether to keep the tokens seen.
            source: what an encoder reads, arrays [B, T'] by name; None for a decoder alone.
        """
        cache = self.new_cache(len(prompts.token_ids), length, source)
        cache = self.prefill(prompts.token_ids[:, :-1], 0, prompts.padding, cache)
        if copies > 1:
            cache = repeated(cache, copies)
        rows = prompts.repeated(copies)
        tokens = np.zeros((len(rows.token_ids), length), "int32")
        tokens[:, : prompts.length] = rows.token_ids
        seen = np.zeros((len(tokens), self.config.vocabulary_size if penalized else 0), bool)
        if penalized:
            for row, ids, padding in zip(seen, rows.token_ids, rows.padding, strict=True):
                row[ids[padding:][ids[padding:] >= 0]] = True  # a prompt of embeddings has no tokens
        done = np.zeros(len(tokens), bool)
        return State(*to_tensors(tokens, np.int32(prompts.length), done, seen, np.bool_(True)), cache)

    def new_cache(self, rows: int, length: int, source: dict | None) -> Cache:
        """An empty cache of `length` slots; of a source it holds what every step reads (one graph for all lengths)."""
        if source is None:
            return self.model.new_cache(rows, length)

        def make():
            signature = {name: shape_of((rows, None), "int32", name) for name in source}
            return compiled(self.model, lambda source: self.model.new_cache(rows, length, source), False, (signature,))

        return self.function(("source", rows, length), make)(source)

    def prefill(self, token_ids, slot: int, padding, cache: Cache) -> Cache:
        """The cache after tokens, int32 [B, S], written from `slot` on; in chunks, by one graph for all S.

        Not by XLA on TensorFlow: it would compile every S anew. On JAX a chunk is filled up to one of a few sizes;
        what that writes behind the tokens is overwritten by the next ones, before any token sees it. A state would
        keep it: beside one, chunks are of sizes that are powers of two.
        """
        rows, count = token_ids.shape

        def make():
            def prefill(ids, slot, padding, cache):
                inputs = step_inputs(ids, slot, padding, cache.length, self.context)
                return self.model.step(inputs, cache, logits=None)[1]

            whole, scalar, row = ((rows, None), (), (rows,))
            signature = (
                *(shape_of(shape, "int32") for shape in (whole, scalar, row)),
                keras.tree.map_structure(lambda x: shape_of(tuple(x.shape), x.dtype), cache),
            )
            return compiled(self.model, prefill, False, signature)

        at = 0
        while at < count:
            # The odd chunk first, so that all others have one size.
            size = (count - at) % PREFILL_CHUNK or PREFILL_CHUNK
            filled = not on_tensorflow() and not cache.states
            if not on_tensorflow() and cache.states:
                size = min(PREFILL_CHUNK, 1 << (count - at).bit_length() - 1)
            ids = token_ids[:, at : at + size]
            if filled:
                ids = _filled_up(ids, cache.length - slot - at)
            function = self.function(("prefill", rows, cache.length), make)
            cache = function(ids, np.int32(slot + at), padding, cache)
            at += size
        return cache

    # ---- the loop ---------------------------------------------------------------------------------------------

    def decode(self, state: State, request: Request, limit: int, sampler: type, kinds: tuple) -> State:
        """Appends tokens until `limit` slots are full or all rows are done, as one graph.

        Args:
            state, request: see there.
            limit: int, at most T.
            sampler: the class of the sampler.
            kinds: `processors.static_part`.
        """
        key = ("decode", sampler, kinds, *state.tokens.shape, len(request.stop_ids))

        def make():
            def loop(state, request, limit):
                return ops.while_loop(
                    lambda state: (state.slot < limit) & ~ops.all(state.done) & state.finite,
                    lambda state: (self._append(state, request, sampler, kinds),),
                    (state,),
                )[0]

            return compiled(self.model, loop, self.jit_compile)

        return self.function(key, make)(state, request, np.int32(limit))

    def _append(self, state: State, request: Request, sampler: type, kinds: tuple) -> State:
        """One more token in each row."""
        logits, cache = last_logits(self.model, state.tokens, state.slot, request.padding, state.cache, self.context)
        finite = state.finite & all_finite(logits)
        rows = Rows(state.tokens, state.slot, request.padding, request.first, request.end)
        logits = process(logits, state.seen, kinds, request.processors, rows)
        seed = ops.stack([request.seed, ops.cast(state.slot - request.first, "uint32")])
        chosen = sampler.choose(logits, request.sampler, seed)
        tokens = ops.slice_update(state.tokens, (0, state.slot), chosen[:, None])
        done = state.done | ops.any(chosen[:, None] == request.stop_ids[None], axis=1)
        seen = mark_seen(state.seen, chosen) if has_penalty(kinds) else state.seen
        return State(tokens, state.slot + 1, done, seen, finite, cache)

    # ---- drafts -----------------------------------------------------------------------------------------------

    def verify(self, token_ids, slot: int, cache: Cache, whole: bool = False):
        """The most probable token after each of some, int32 [1, S] from `slot` on.

        Args:
            whole: bool, all logits instead.

        Returns:
            (int32 [1, S], or float32 [1, S, V]; whether all logits were finite; new cache).
        """
        padding = np.zeros(1, "int32")

        def make():
            def predict(ids, slot, cache):
                inputs = step_inputs(ids, slot, padding, cache.length, self.context)
                logits, cache = self.model.step(inputs, cache, logits="all")
                best = logits if whole else ops.cast(ops.argmax(logits, axis=-1), "int32")
                return best, all_finite(logits), cache

            return compiled(self.model, predict, self.jit_compile)

        function = self.function(("verify", whole, token_ids.shape[1], cache.length), make)
        return function(token_ids, np.int32(slot), cache)
