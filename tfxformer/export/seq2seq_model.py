"""What the file of an encoder-decoder offers, and how it is checked against Keras.

`encode_{S}` reads a source of up to S tokens, once: it gives each layer's cross keys and values, and the mask of the
source. `decode` reads them, writes one token into the cache of self-attention, and gives the logits of the next. Of
several S all but the longest give keys and values that are padded to it, so that one `decode` serves all.

Shape letters: S tokens of a source, T slots of the cache, G key/value heads, H head width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import keras
import numpy as np
from keras import ops

from tfxformer import generation
from tfxformer.export.convert import Converted, Signature
from tfxformer.export.errors import ExportError
from tfxformer.export.language_model import agreed, check_mode, decode_slots, generation_facts
from tfxformer.export.plan import DEFAULT_LENGTH, SAMPLE_TEXTS, SEQ2SEQ_LM, ExportJob, Plan, equalized
from tfxformer.export.quantization.quantize import Mode
from tfxformer.export.verify import Measured, check_content, check_error, check_finite, open_runners
from tfxformer.layers import Cache
from tfxformer.models.encoder_decoder import SOURCE_INPUTS
from tfxformer.runtime.generation import decoding
from tfxformer.runtime.quiet import quiet

WRITTEN = 24  # tokens that the file writes behind each sample
SEEN = 16  # tokens behind each sample from which the products of a decoder are equalized


def is_seq2seq(model) -> bool:
    """Whether the model is an encoder-decoder of ours that writes."""
    return getattr(model, "task_name", None) == SEQ2SEQ_LM and hasattr(model, "step")


def prepare(model, mode: Mode, lengths: Sequence[int], cache_length, samples) -> Callable[[], ExportJob]:
    """Checks the arguments of an export; returns what makes its job."""
    cache_length = check_cache_length(model, cache_length)
    check_mode(mode)
    rows = sample_rows(model, samples, lengths[-1])

    def make():
        written = equalized(model, mode, _observed(model, rows, cache_length)) if mode.equalized else mode
        plans = plan_signatures(model, written, lengths, cache_length)

        def check(converted):
            return verify(model, converted, plans, mode, rows, cache_length)

        return ExportJob(plans, check, len(rows), facts={**generation_facts(model), **_language_facts(model)})

    return make


def _language_facts(model) -> dict:
    """What a file says of the languages that the task has been told: it is of this pair of them."""
    spoken = model.spoken(sources=model.tokenizer is not None, targets=model.tokenizer is not None)
    return {
        "generation_config": model.settings_of_call(model.generation_config).to_dict(),
        "decoder_start_token_id": _start(model),
        "sources": {"language": spoken.source, "word": spoken.word},
        "targets": {"first": [] if spoken.first is None else [spoken.first], "last": list(spoken.last)},
    }


def _start(model) -> int:
    """The id that the decoder begins with."""
    start = model.spoken().start
    return model.decoder_start_token_id if start is None else start


def check_cache_length(model, cache_length: int | None) -> int:
    """T: as given, or the task's `target_length`, or 128, as far as the model reaches.

    Raises:
        ValueError: for what is no such number.
    """
    most = model.backbone.longest_text
    if cache_length is None:
        return min(model.target_length or DEFAULT_LENGTH, most)
    if isinstance(cache_length, bool) or int(cache_length) != cache_length or not 1 <= cache_length <= most:
        raise ValueError(f"cache_length={cache_length!r} is the most tokens of a target: 1 to {most} of this model.")
    return cache_length


# ---- signatures --------------------------------------------------------------------------------------------------


def plan_signatures(model, mode: Mode, lengths: Sequence[int], cache_length: int) -> list[Plan]:
    """`encode_{S}` for each S, `decode_{T'}` for each T' that pays, and `decode`."""
    signatures = [_encode_signature(model, mode, length, lengths[-1]) for length in lengths]
    for slots in (*decode_slots(cache_length), None):
        signatures.append(_decode_signature(model, mode, lengths[-1], cache_length, slots))
    return [Plan(one, None, [_drawn(model, one)], None) for one in signatures]


def _pair_shapes(prefix: str, model, length: int) -> dict:
    """Names and shapes of the keys and values of all layers with `length` slots."""
    stack = model.backbone.config.decoder
    heads, width = stack.key_value_heads, stack.head_width
    shapes = {}
    for layer in range(stack.num_layers):
        shapes[f"{prefix}k_{layer}"] = (1, heads, length, width)
        shapes[f"{prefix}v_{layer}"] = (1, heads, width, length)
    return shapes


def _pairs(tensors: dict, names) -> tuple:
    names = list(names)
    return tuple((tensors[key], tensors[value]) for key, value in zip(names[::2], names[1::2], strict=True))


def _encode_signature(model, mode: Mode, length: int, longest: int) -> Signature:
    names = list(_pair_shapes(decoding.CROSS, model, longest))

    def function(inputs):
        cache = model.backbone.new_cache(1, 1, inputs, mode.graph_form)
        missing, (mask,) = longest - length, cache.source_mask
        # Float, as all that goes from one signature to the other; an output that is its input LiteRT would not give.
        outputs = {decoding.SOURCE_MASK: _padded(ops.cast(mask, "float32"), 1, missing)}
        for (keys, values), key, value in zip(cache.cross_attention, names[::2], names[1::2], strict=True):
            outputs[key], outputs[value] = _padded(keys, 2, missing), _padded(values, 3, missing)
        return outputs

    inputs = dict.fromkeys(SOURCE_INPUTS, ((1, length), "int32"))
    return Signature(f"{decoding.ENCODE}{length}", inputs, function)


def _padded(tensor, axis: int, count: int):
    """The tensor with `count` zeros behind its last value along an axis."""
    if not count:
        return tensor
    return ops.pad(tensor, [(0, count if index == axis else 0) for index in range(len(tensor.shape))])


def _decode_signature(model, mode: Mode, source_length: int, cache_length: int, slots: int | None) -> Signature:
    own = _pair_shapes(decoding.CACHE, model, cache_length)
    cross = _pair_shapes(decoding.CROSS, model, source_length)

    def function(inputs):
        cache = Cache(_pairs(inputs, own), _pairs(inputs, cross), (ops.cast(inputs[decoding.SOURCE_MASK], "int32"),))
        step = {"token_ids": inputs["tokens"], "cache_positions": inputs["input_pos"]}
        logits, cache = model.step(step, cache, mode.graph_form, "last", slots)
        outputs = dict(zip(own, (tensor for pair in cache.self_attention for tensor in pair), strict=True))
        return {**outputs, "logits": logits}

    inputs = {"tokens": ((1, 1), "int32"), "input_pos": ((1,), "int32")}
    shapes = {**own, **cross, decoding.SOURCE_MASK: (1, source_length)}
    inputs |= {name: (shape, "float32") for name, shape in shapes.items()}
    return Signature(decoding.DECODE if slots is None else decoding.decode_name(slots), inputs, function)


def _drawn(model, signature: Signature) -> dict:
    """Inputs of a signature: random ids, and caches that are not empty."""
    generator, batch = np.random.default_rng(0), {}
    for name, (shape, dtype) in signature.inputs.items():
        batch[name] = generator.normal(size=shape).astype(dtype)
    config = model.backbone.config
    for name, rows in (("tokens", config.vocabulary_size), (SOURCE_INPUTS[0], config.read_vocabulary_size)):
        if name in batch:
            batch[name] = generator.integers(0, rows, batch[name].shape, "int32")
    for name in (SOURCE_INPUTS[1], decoding.SOURCE_MASK):
        if name in batch:
            batch[name] = np.ones_like(batch[name])
    if "input_pos" in batch:
        batch["input_pos"] = np.zeros(1, "int32")
    return batch


# ---- samples -----------------------------------------------------------------------------------------------------


def sample_rows(model, samples, longest: int) -> list[np.ndarray]:
    """Token ids of the sources that a file is verified on, ours or the given ones: int32 [S] each, cut to S."""
    texts = [text for text in SAMPLE_TEXTS if text] if samples is None else list(samples)
    if texts and not isinstance(texts[0], str):
        rows = [np.asarray(row, np.int32).reshape(-1) for row in texts]
    elif model.tokenizer is None:
        generator, size = np.random.default_rng(0), model.backbone.config.read_vocabulary_size
        rows = [generator.integers(0, size, count).astype(np.int32) for count in (2, 5, 20, 40)]
    else:
        spoken = model.spoken(sources=True, targets=True)
        told = model.told_sources(texts, spoken)
        encoding = model.tokenizer.encode(told, sequence_length=longest, language=spoken.source)
        rows = [row[mask > 0] for row, mask in zip(encoding.token_ids, encoding.padding_mask, strict=True)]
    rows = [row[:longest] for row in rows if len(row)]
    if not rows:
        raise ValueError("There is no sample to verify the file on: give a source of one token at least.")
    return rows


def source_inputs(row, length: int) -> dict:
    """The inputs of an encoder for one source, padded to `length`: int32 [1, S]."""
    ids, mask = np.zeros((1, length), np.int32), np.zeros((1, length), np.int32)
    ids[0, : len(row)], mask[0, : len(row)] = row, 1
    return dict(zip(SOURCE_INPUTS, (ids, mask), strict=True))


def _observed(model, rows, cache_length: int) -> list[dict]:
    """Batches without padding: each source, and what the model itself writes behind it."""
    start, longest = [_start(model)], max(map(len, rows))
    padded = [source_inputs(row, longest) for row in rows]
    source = {name: np.concatenate([one[name] for one in padded]) for name in SOURCE_INPUTS}
    count = min(SEEN, cache_length)
    texts = generation.generate(model, [start] * len(rows), count, source=source, jit_compile=False)
    return [
        {**source_inputs(row, len(row)), **_decoder_inputs([*start, *written])}
        for row, written in zip(rows, texts, strict=True)
    ]


def _decoder_inputs(ids) -> dict:
    ids = np.asarray([ids], np.int32)
    return {"decoder_token_ids": ids, "decoder_padding_mask": np.ones_like(ids)}


# ---- the check ---------------------------------------------------------------------------------------------------


def verify(model, converted: Converted, plans: list[Plan], mode: Mode, rows, cache_length: int) -> dict:
    """Checks a converted file on sources; returns what was measured by signature.

    Each source is read by the shortest `encode_{S}` that holds it, and the longest one too; the file writes its most
    likely tokens behind it, and Keras, without a cache, says what it would have written at each of these places.

    Raises:
        ExportError: naming the figure, what was wanted, and the way out.
    """
    constants = check_content(converted, [plan.signature.name for plan in plans], mode)
    runners = open_runners(converted.content)
    lengths = decoding.numbers(constants, decoding.ENCODE)
    decode_names = [name for name in constants if not name.startswith(decoding.ENCODE)]
    shapes = plans[-1].signature.inputs
    difference = size = found = written = 0.0
    for index, row in enumerate(rows):
        fitting = next(length for length in lengths if len(row) <= length)
        for length in dict.fromkeys((fitting, lengths[-1])):
            with quiet():
                ids, got = _decoded(model, runners, row, length, decode_names[index % len(decode_names) :], shapes)
            inputs = {**source_inputs(row, len(row)), **_decoder_inputs(ids)}
            wanted = keras.ops.convert_to_numpy(model(inputs, training=False))[0]
            check_finite(decoding.DECODE, "logits", got, wanted, mode)
            difference += float(np.square(got - wanted).sum(dtype=np.float64))
            size += float(np.square(wanted).sum(dtype=np.float64))
            found += agreed(got, wanted, mode)
            written += len(got)
    error = check_error(decoding.DECODE, "logits", difference, size, len(rows), mode)
    if mode.name == "float32" and found < written:
        raise ExportError(
            f"Greedy tokens of the file are those of Keras after {found:.0f} of {written:.0f} tokens only, on "
            f"{len(rows)} samples. No file was written."
        )
    return {name: Measured(error, constants[name], len(rows), found / written) for name in constants}


def _decoded(model, runners: dict, row, length: int, decode_names, shapes) -> tuple[list[int], np.ndarray]:
    """(the ids that the decoder read, the logits behind each [tokens, V]) of the file's own greedy continuation."""
    source = runners[f"{decoding.ENCODE}{length}"](**source_inputs(row, length))
    cache = {name: np.zeros(*spec) for name, spec in shapes.items() if name.startswith(decoding.CACHE)}
    room = next(iter(cache.values())).shape[2]  # keys [1, G, T, H]
    slots = decoding.numbers(decode_names, decoding.DECODE_FIRST)

    def run(signature, tokens, positions):
        outputs = runners[signature](tokens=tokens, input_pos=positions, **cache, **source)
        cache.update({name: outputs[name] for name in cache})
        return outputs["logits"][0, 0]

    steps, ids, logits = decoding.DecodingSession(run, (), room, slots), [_start(model)], []
    while True:
        logits.append(steps.decode(ids[-1]))
        if len(ids) >= min(WRITTEN, room):
            return ids, np.stack(logits)
        ids.append(int(logits[-1].argmax()))
