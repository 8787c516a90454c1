"""Generation on ids: all at once, or piece by piece."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import numpy as np
from keras import ops

from tfxformer.arguments.keywords import checked
from tfxformer.generation.beams import Beams, beam_search
from tfxformer.generation.engine import Engine, Request, has_penalty
from tfxformer.generation.processors import check_processors, static_part, values_of
from tfxformer.generation.prompts import check_count, read_prompts, read_stop_ids, slots_for, until_stop
from tfxformer.generation.samplers import Greedy, Sampler
from tfxformer.generation.speculative import DraftModel, PromptLookup, speculate
from tfxformer.text.generation.token_rules import TokenRules, require_finite


@checked
def generate(
    model,
    prompts,
    max_new_tokens: int,
    *,
    sampler: Sampler | Beams | None = None,
    processors=(),
    stop_ids=(),
    seed: int | None = None,
    num_return_sequences: int = 1,
    speculation: PromptLookup | DraftModel | None = None,
    cache_length: int | None = None,
    jit_compile: bool = True,
    source: dict | None = None,
) -> list[list[int]]:
    """Continues prompts.

    Args:
        model: a `tasks.CausalLM` or `tasks.Seq2SeqLM`, or what else has its `step`, `new_cache` and config.
        prompts: list of lists of ids, of any lengths.
        max_new_tokens: int.
        sampler: `Greedy()` (None), `Random`, `TopK`, `TopP`, `MinP`, `Typical`, or `Beams` for beam search.
        processors: what changes the logits before the sampler, in this order: `RepetitionPenalty`, `TokenRules`, or
            functions of logits float32 [B, V] in keras or tensorflow operations, traced into the loop.
        stop_ids: ids that end a row; its last id is then the stop id.
        seed: int, the same for the same tokens; None for another one each time.
        num_return_sequences: int, continuations of each prompt, one after the other in the result.
        speculation: `PromptLookup` or `DraftModel`: the same greedy tokens in fewer steps, row by row.
        cache_length: int, slots of the cache; None for what is needed. Every length is compiled once.
        jit_compile: bool, compile the loop with XLA: fast for each token, seconds for the first.
        source: of a model with an encoder, what that reads: int32 [B, T'] `encoder_token_ids`, `encoder_padding_mask`.

    Returns:
        list of B * num_return_sequences lists of new ids.

    Raises:
        ValueError: for a prompt that is empty or does not fit with the new tokens, for unknown ids, and for logits
            that are not finite.
    """
    sampler = Greedy() if sampler is None else sampler
    shared = {"stop_ids": stop_ids, "cache_length": cache_length, "jit_compile": jit_compile}
    if speculation is not None:
        rules = check_processors(processors)
        others = [one for one in rules if not isinstance(one, TokenRules)]
        if source is not None:
            raise ValueError("Speculation drafts for a decoder alone: leave it out for a model with an encoder.")
        if type(sampler) is not Greedy or others or num_return_sequences != 1:
            raise ValueError(
                "Speculation gives the greedy tokens of one continuation: leave out sampler, processors (but for "
                "TokenRules) and num_return_sequences, or speculation."
            )
        return speculate(model, prompts, max_new_tokens, speculation, rules=rules, **shared)
    shared |= {"processors": processors, "num_return_sequences": num_return_sequences, "source": source}
    if isinstance(sampler, Beams):
        return [beam.ids for beam in beam_search(model, prompts, max_new_tokens, beams=sampler, **shared)]
    return next(
        stream(model, prompts, max_new_tokens, sampler=sampler, seed=seed, piece_length=max_new_tokens, **shared)
    )


@checked
def stream(
    model,
    prompts,
    max_new_tokens: int,
    *,
    sampler: Sampler | None = None,
    processors=(),
    stop_ids=(),
    seed: int | None = None,
    num_return_sequences: int = 1,
    piece_length: int = 4,
    cache_length: int | None = None,
    jit_compile: bool = True,
    source: dict | None = None,
) -> Iterator[list[list[int]]]:
    """Continues prompts piece by piece: the same tokens as `generate`, by the same compiled loop.

    Whoever reads may stop at any piece; that is how texts to stop at are made.

    Args:
        piece_length: int, tokens of a piece; each piece costs a copy of the cache.
        others: see `generate`.

    Returns:
        an iterator of pieces, each a list of B * num_return_sequences lists of new ids; a row that has its stop id
        gives no more. The arguments are checked at once, before the first piece is asked for.

    Raises TypeError for what is no sampler, and what `generate` raises.
    """
    sampler = Greedy() if sampler is None else sampler
    if not isinstance(sampler, Sampler):
        raise TypeError(f"stream needs a sampler such as Greedy() or TopP(0.9), not {sampler!r}.")
    engine = Engine.of(model, jit_compile)
    vocabulary = engine.config.vocabulary_size
    rows = read_prompts(prompts, model)
    new, piece_length = check_count("max_new_tokens", max_new_tokens), check_count("piece_length", piece_length)
    copies = check_count("num_return_sequences", num_return_sequences)
    processors = check_processors(processors)
    request = Request(
        padding=rows.repeated(copies).padding,
        first=np.int32(rows.length),
        end=np.int32(rows.length + new),
        seed=np.uint32((secrets.randbits(32) if seed is None else int(seed)) % 2**32),
        stop_ids=read_stop_ids(stop_ids, vocabulary),
        sampler=sampler.values(),
        processors=values_of(processors),
    )
    length = slots_for(rows.length, new, engine.context, cache_length)
    kinds = static_part(processors)
    state = engine.start(rows, length, copies, has_penalty(kinds), source)
    return _pieces(engine, state, rows, request, new, piece_length, type(sampler), kinds)


def _pieces(engine, state, prompts, request, new, piece_length, sampler, kinds):
    shown, end = prompts.length, prompts.length + new
    open_rows = np.ones(len(request.padding), bool)
    while shown < end and open_rows.any():
        state = engine.decode(state, request, min(shown + piece_length, end), sampler, kinds)
        require_finite(state.finite)
        slot, tokens = int(state.slot), ops.convert_to_numpy(state.tokens)
        pieces = zip(tokens[:, shown:slot], open_rows, strict=True)
        yield [until_stop(piece, request.stop_ids) if is_open else [] for piece, is_open in pieces]
        open_rows, shown = ~ops.convert_to_numpy(state.done), slot
