"""What the file of a causal language model offers, and how it is checked against Keras.

Signatures as LiteRT-LM calls them: `prefill_{S}` fills the cache, `decode` also gives the logits of the next token.
`decode_{T'}` is ours: it reads the first T' slots of a long cache only, and is faster as long as they suffice.

Shape letters: S tokens of a call, T slots of the cache, G key/value heads, H head width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import keras
import numpy as np

from tfxformer.export.convert import Converted, Signature
from tfxformer.export.errors import ExportError
from tfxformer.export.plan import CAUSAL_LM, SAMPLE_TEXTS, ExportJob, Plan, equalized
from tfxformer.export.quantization.quantize import Mode, check_available
from tfxformer.export.verify import Measured, check_content, check_error, check_finite, open_runners
from tfxformer.layers import Cache
from tfxformer.runtime.generation import decoding
from tfxformer.runtime.quiet import quiet

# Not 1024: rows of values [H, T] that are a power of two apart fall on the same lines of the processor's cache, which
# made their product with the probabilities 2.3 times slower (130 and 57 us a layer of SmolLM2-135M).
CACHE_LENGTH = 1040
PREFILL_LENGTHS = (16, 128)
# T', no power of two either; a file has those well below its T. Each costs the scales of all kernels once more. Of 1040
# slots of SmolLM2-135M, reading 272 made a token 1.28 times as fast for 3.4 MB, reading 528 only 1.04 times.
DECODE_SLOTS = (272, 1040, 4112)
WELL_BELOW = 0.6
# What was tried: the graph of SmolLM2-135M's shape, and a tiny one checked against Keras.
REFUSED = {
    "int8": "keys and values come and go as float32, so that every call quantizes the whole cache and back: it was a "
    "fifth slower than dynamic_int8, no smaller, and further from Keras.",
    "int16x8": "the converter finds no range for the positions from which the mask is made, and stops.",
}
MOST_FORCED = 24  # tokens of a sample decoded one by one, as they stand in the text
CONTINUED = 8  # tokens that the file goes on with by itself


def is_decoder(model) -> bool:
    """Whether the model is a causal language model of ours."""
    return getattr(model, "task_name", None) == CAUSAL_LM and hasattr(model, "step")


def prepare(
    model, mode: Mode, cache_length, prefill_lengths, full_cache, representative, samples
) -> Callable[[], ExportJob]:
    """Checks the arguments of an export; returns what makes its job."""
    if model.backbone.prompt_length:
        raise ValueError(
            "The active adapter is embeddings in front of every text (PromptTuning), which whoever runs a decoder's "
            "file would have to feed it: no such file is written. Train a LoRA and merge() it, or activate(None)."
        )
    cache_length, lengths = check_lengths(model, cache_length, prefill_lengths)
    if full_cache not in (None, True, False):
        raise ValueError(f"full_cache is True, False or None, not {full_cache!r}.")
    check_mode(mode)
    rows = sample_rows(model, samples, cache_length, lengths)
    chunks = None if representative is None else chunks_of(model, representative, lengths[-1])

    def make():
        written = equalized(model, mode, map(_whole, rows)) if mode.equalized else mode
        kept = CacheOfFile.of(model, cache_length, None if full_cache else lengths[-1])
        plans = plan_signatures(model, written, kept, lengths)
        stream = None if chunks is None else _stream(plans[len(lengths) - 1].signature, chunks)

        def check(converted):
            return verify(model, converted, plans, mode, rows, cache_length)

        facts = {**generation_facts(model), "cache_length": cache_length}
        return ExportJob(plans, check, len(rows), stream, facts=facts)

    return make


def generation_facts(model) -> dict:
    """What a file says of how texts are generated: the ids that end them, and the checkpoint's settings."""
    tokenizer, vocabulary = model.tokenizer, model.backbone.config.vocabulary_size
    settings = model.generation_config.with_end(None if tokenizer is None else tokenizer.of_targets.eos_id)
    return {"stop_ids": list(settings.ends_in(vocabulary)), "generation_config": model.generation_config.to_dict()}


def check_mode(mode: Mode) -> None:
    """Refuses what cannot be made of a decoder.

    Raises:
        ValueError: saying why, and what to take. ImportError: for an extra that is not installed.
    """
    check_available(mode)
    if mode.name in REFUSED:
        raise ValueError(f'quantization="{mode.name}" is not for decoders: {REFUSED[mode.name]} Take "dynamic_int8".')


def check_lengths(model, cache_length, prefill_lengths) -> tuple[int, tuple[int, ...]]:
    """The cache length and the prefill lengths, ascending; the defaults that fit the model for None.

    Raises:
        ValueError: if they do not fit together or exceed the model's positions.
    """
    if cache_length is None:
        cache_length = min(CACHE_LENGTH, model.backbone.longest_cached)
    if prefill_lengths is None:
        prefill_lengths = [length for length in PREFILL_LENGTHS if length <= cache_length]
    lengths = tuple(sorted(set(prefill_lengths)))
    for length in (cache_length, *lengths):
        if isinstance(length, bool) or int(length) != length or length < 1:
            raise ValueError(f"cache_length and prefill_lengths are positive integers, got {length!r}.")
    most = model.backbone.longest_text
    if cache_length > most:
        raise ValueError(f"cache_length={cache_length}, but the model has {most} positions: that is the most.")
    if cache_length > (most := model.backbone.longest_cached):
        raise ValueError(
            f"cache_length={cache_length}: this model turns the keys of texts beyond {most} tokens by other angles "
            f"(LongRoPE), and what a file keeps of a text cannot be computed again. Take at most {most}."
        )
    if not lengths or lengths[0] < 2:
        raise ValueError(f"prefill_lengths={list(prefill_lengths)}: give one at least, of 2 tokens or more.")
    if lengths[-1] > cache_length:
        raise ValueError(
            f"prefill_lengths={list(lengths)}, but the cache has {cache_length} slots: no prefill can be longer. "
            "A cache_length that is a multiple of the shortest is filled to its end by prefill alone."
        )
    return cache_length, lengths


def plan_signatures(model, mode: Mode, kept: CacheOfFile, prefill_lengths: Sequence[int]) -> list[Plan]:
    """`prefill_{S}` for each S, `decode_{T'}` for each T' that pays, and `decode`."""
    signatures = [_signature(model, mode, length, kept) for length in prefill_lengths]
    signatures += [_signature(model, mode, 1, kept, slots) for slots in (*decode_slots(kept.length), None)]
    return [Plan(one, one.inputs["tokens"][0][1], [_drawn(model, one)], None) for one in signatures]


def decode_slots(cache_length: int) -> tuple[int, ...]:
    """T' of the decode signatures that read the first slots of a cache of T only."""
    return tuple(slots for slots in DECODE_SLOTS if slots <= WELL_BELOW * cache_length)


class CacheOfFile(NamedTuple):
    """The cache that a file's calls pass on.

    Attributes:
        empty: `Cache` of T slots.
        length: int T.
        names: of the file's tensors, in the order of the cache's.
    """

    empty: Cache
    length: int
    names: tuple[str, ...]

    @classmethod
    def of(cls, model, length: int, longest_step: int | None) -> CacheOfFile:
        """That of a model; `longest_step` as `Decoder.new_cache` takes it."""
        empty = model.new_cache(1, length, longest_step)
        names = [f"{part}{i}" for i in range(len(empty.self_attention)) for part in (decoding.KEYS, decoding.VALUES)]
        names += [f"{decoding.STATE}{i}_{part}" for i, state in enumerate(empty.states) for part in range(len(state))]
        return cls(empty, length, tuple(names))

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shapes of the file's tensors by name."""
        return {name: tuple(x.shape) for name, x in zip(self.names, keras.tree.flatten(self.empty), strict=True)}


def _signature(model, mode: Mode, length: int, kept: CacheOfFile, slots: int | None = None) -> Signature:
    empty, names = kept.empty, kept.names

    def function(inputs):
        # A text begins with states of zeros, whatever the text before left in them.
        begun = keras.ops.cast(inputs["input_pos"][0] > 0, "float32")
        tensors = [inputs[name] * begun if name.startswith(decoding.STATE) else inputs[name] for name in names]
        cache = keras.tree.pack_sequence_as(empty, tensors)
        step = {"token_ids": inputs["tokens"], "cache_positions": inputs["input_pos"]}
        logits, cache = model.step(step, cache, mode.graph_form, "last" if length == 1 else None, slots)
        outputs = dict(zip(names, keras.tree.flatten(cache), strict=True))
        return outputs if logits is None else {**outputs, "logits": logits}

    inputs = {"tokens": ((1, length), "int32"), "input_pos": ((length,), "int32")}
    inputs |= {name: (shape, "float32") for name, shape in kept.shapes().items()}
    name = decoding.signature_name(length) if slots is None else decoding.decode_name(slots)
    return Signature(name, inputs, function)


def _drawn(model, signature: Signature) -> dict:
    """Inputs of a signature on a cache that is not empty."""
    generator = np.random.default_rng(0)
    batch = {name: generator.normal(size=shape).astype(dtype) for name, (shape, dtype) in signature.inputs.items()}
    shape, _ = signature.inputs["tokens"]
    batch["tokens"] = generator.integers(0, model.backbone.config.vocabulary_size, shape).astype("int32")
    batch["input_pos"] = np.arange(shape[1], dtype="int32")
    return batch


def chunks_of(model, texts, length: int) -> list[np.ndarray]:
    """Texts, or rows of token ids, one behind the other and cut into int32 [1, S]; the last one's rest is left out.

    Raises:
        ValueError: if they do not fill one. TypeError: for one text in place of several.
    """
    if isinstance(texts, (str, bytes)):
        raise TypeError(f"representative must be a list of texts, got one {type(texts).__name__}: pass [text].")
    texts = list(texts)
    if not texts or not isinstance(texts[0], str):
        rows = [np.asarray(row, np.int32).reshape(-1) for row in texts]
    elif model.tokenizer is None:
        raise ValueError("This model has no tokenizer: representative must be rows of token ids, not texts.")
    else:
        rows = model.tokenizer.encode(texts).token_ids
    tokens = np.concatenate([np.zeros(0, np.int32), *rows])
    if len(tokens) < length:
        raise ValueError(
            f"The representative texts have {len(tokens)} tokens, and the file reads {length} at a time: give more "
            "text, some thousand words."
        )
    return [tokens[start : start + length][None] for start in range(0, len(tokens) - length + 1, length)]


def _stream(signature: Signature, chunks) -> Callable:
    """What feeds chunks to a prefill, each as the beginning of a text."""
    empty = {name: np.zeros(*spec) for name, spec in signature.inputs.items() if name.startswith(decoding.CACHE)}
    positions = np.arange(chunks[0].shape[1], dtype="int32")
    return lambda: ((signature.name, {"tokens": tokens, "input_pos": positions, **empty}) for tokens in chunks)


def sample_rows(model, samples, cache_length: int, prefill_lengths: Sequence[int]) -> list[np.ndarray]:
    """Token ids of the texts that a file is verified on, ours or the given ones: int32 [S] each.

    The last one is all texts in a row, long enough for two chunks of the longest prefill where the cache has room.
    """
    most = cache_length - CONTINUED
    texts = list(SAMPLE_TEXTS if samples is None else samples)
    if texts and not isinstance(texts[0], str):
        rows = [np.asarray(row, np.int32).reshape(-1) for row in texts]
    elif model.tokenizer is None:
        generator = np.random.default_rng(0)
        size = model.backbone.config.vocabulary_size
        rows = [generator.integers(0, size, count).astype(np.int32) for count in (2, 5, 20, 40, 80)]
    else:
        rows = [model.tokenizer.encode([text]).token_ids[0] for text in texts]
    rows = [row[:most] for row in rows if len(row)]
    if not rows or most < 1:
        raise ValueError("There is no sample to verify the file on: give a text, and a cache_length above 8.")
    wanted = min(most, prefill_lengths[-1] + prefill_lengths[0] + MOST_FORCED)
    long = np.concatenate(rows)
    return [*rows, np.tile(long, -(-wanted // len(long)))[:wanted]]


def verify(model, converted: Converted, plans: list[Plan], mode: Mode, rows, cache_length: int) -> dict:
    """Checks a converted file on token rows; returns what was measured by signature.

    Raises:
        ExportError: naming the figure, what was wanted, and the way out.
    """
    constants = check_content(converted, [plan.signature.name for plan in plans], mode)
    lengths = [plan.length for plan in plans if plan.length > 1]
    runners = open_runners(converted.content)
    difference = size = found = decoded = 0.0
    variants = decode_slots(cache_length)
    for index, row in enumerate(rows):
        # Each row by another decode signature first, so that all of them are seen.
        slots = variants[index % (len(variants) + 1) :]
        with quiet():
            ids, start, got = _decoded(runners, row, lengths, cache_length, plans[-1], slots)
        wanted = _keras_logits(model, ids)[start:]
        check_finite(decoding.DECODE, "logits", got, wanted, mode)
        difference += float(np.square(got - wanted).sum(dtype=np.float64))
        size += float(np.square(wanted).sum(dtype=np.float64))
        found += agreed(got, wanted, mode)
        decoded += len(got)
    error = check_error(decoding.DECODE, "logits", difference, size, len(rows), mode)
    agreement = found / decoded
    if mode.name == "float32" and agreement < 1.0:
        raise ExportError(
            f"Greedy tokens of the file are those of Keras after {found:.0f} of {decoded:.0f} tokens only, on "
            f"{len(rows)} samples. No file was written."
        )
    return {name: Measured(error, constants[name], len(rows), agreement) for name in constants}


def agreed(got, wanted, mode: Mode) -> int:
    """How often the file's most likely token is Keras', or as likely within what the mode's rounding makes of it."""
    chosen = got.argmax(axis=-1)
    best, found = wanted.max(axis=-1), np.take_along_axis(wanted, chosen[:, None], axis=-1)[:, 0]
    tie = mode.tolerance * np.abs(wanted).max(axis=-1) if mode.name == "float32" else 0.0
    return int((best - found <= tie).sum())


def _decoded(runners: dict, row, lengths, cache_length: int, plan: Plan, slots):
    """Prefills the first part of a row, decodes the rest, and goes on by the most likely token.

    Returns:
        (all ids [S], the first decoded position, logits [S - start, V]).
    """
    cache = {name: np.zeros(*spec) for name, spec in plan.signature.inputs.items() if name.startswith(decoding.CACHE)}

    def run(signature, tokens, positions):
        outputs = runners[signature](tokens=tokens, input_pos=positions, **cache)
        cache.update({name: outputs[name] for name in cache})
        return outputs["logits"][0, 0] if "logits" in outputs else None

    start = max(len(row) - min(MOST_FORCED, -(-len(row) // 2)), 0)
    has_states = any(name.startswith(decoding.STATE) for name in cache)
    steps = decoding.DecodingSession(run, lengths, cache_length, slots, has_states)
    steps.prefill(row[:start])
    ids, logits = [int(i) for i in row], []
    for index in range(start, len(row) + CONTINUED):
        logits.append(steps.decode(ids[index]))
        if index + 1 == len(ids) < len(row) + CONTINUED:
            ids.append(int(logits[-1].argmax()))
    return np.asarray(ids, np.int32), start, np.stack(logits)


def _keras_logits(model, ids):
    """What Keras, without a cache, says of a whole row: float32 [S, V]."""
    return keras.ops.convert_to_numpy(model(_whole(ids), training=False))[0]


def _whole(ids) -> dict:
    return {"token_ids": ids[None], "padding_mask": np.ones((1, len(ids)), "int32")}
