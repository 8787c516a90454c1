"""What an app must know of a file besides its tensors: `model.json`, plain values that Kotlin and Swift read.

A phone's library gives the ids of a text without special tokens. What stands around them is found here by encoding
texts, so that one rule does for every tokenizer.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import tokenizers

from tfxformer.arguments import notices
from tfxformer.data.prompts import POOLED_MASK, Prompts
from tfxformer.runtime.format import flatbuffer, metadata
from tfxformer.runtime.generation import decoding
from tfxformer.runtime.model_file import ModelFile
from tfxformer.text import Tokenizer
from tfxformer.text.generation.settings import GenerationConfig
from tfxformer.text.generation.token_rules import TokenRules
from tfxformer.text.inputs import prompt_ids

WRITES = "text-generation"
OUTPUTS = {
    "text-classification": "probabilities",
    "text-embedding": "embedding",
    "token-classification": "logits",
    "question-answering": "logits",
}
TASKS = (*OUTPUTS, WRITES)
# Texts that show what a tokenizer does: words, signs, capitals, accents, another script, a character of four bytes.
SHOWING = ("It works", "Zürich, 3 km: naïve café (2024) 😀", "東京 is in Japan.", "don't  stop")


class Around(NamedTuple):
    """The ids of special tokens before a text, between two, and after."""

    before: list[int]
    between: list[int]
    after: list[int]


def task_of(file: ModelFile) -> str:
    """The task of a file that an app can be made of.

    Raises:
        ValueError: naming what the file is and what runs it instead.
    """
    if file.bundled:
        raise ValueError(f"{file.path} is a bundle for LiteRT-LM, whose own library runs it: name its .tflite file.")
    names = file.signatures
    task = WRITES if decoding.DECODE in names else file.own.get("task")
    if decoding.numbers(names, decoding.ENCODE) or task not in TASKS:
        found = "an encoder-decoder" if decoding.numbers(names, decoding.ENCODE) else f"the task {task!r}"
        raise ValueError(f"{file.path} is a file of {found}; apps are made of {', '.join(TASKS)}.")
    if file.tokenizer is None:
        raise ValueError(f"{file.path} carries no tokenizer: export the task, which has one, and not its backbone.")
    return task


def uses_mediapipe(file: ModelFile) -> bool:
    """Whether MediaPipe's text tasks read the file."""
    return flatbuffer.get_metadata(file.model, metadata.MEDIAPIPE_ENTRY) is not None


def describe(file: ModelFile) -> dict[str, Any]:
    """The content of `model.json`.

    Raises:
        ValueError: for a file that no app is made of, and for a tokenizer that tokenizer.json does not say whole.
    """
    task, tokenizer = task_of(file), file.tokenizer
    backend = tokenizers.Tokenizer.from_str(tokenizer.tokenizer_json())
    backend.no_truncation()
    backend.no_padding()
    _check_ids(tokenizer, backend)
    facts = {"task": task, "truncation_side": tokenizer.truncation_side, "padding_id": tokenizer.padding_id or 0}
    if task == WRITES:
        return facts | _writing(file, tokenizer, backend)
    own = file.own
    lengths = {name: length for name, length in own["signatures"].items() if length}
    inputs = {tensor.name for info in file.signatures.values() for tensor in info.inputs}
    facts |= {
        "labels": own.get("labels"),
        "problem_type": own.get("problem_type"),
        "output": "logits" if own.get("problem_type") == "regression" else OUTPUTS[task],
        "signatures": sorted(({"name": name, "length": length} for name, length in lengths.items()), key=_length),
        "max_length": min(max(lengths.values()), own.get("max_length") or math.inf),
        "inputs": sorted(inputs),
        **_special_tokens(tokenizer, backend),
    }
    if task == "token-classification":
        facts["word_prefix"] = word_prefix(tokenizer, backend)
    if task == "text-embedding":
        prompts = Prompts(own.get("prompts") or {}, own.get("default_prompt_name"), own.get("include_prompt", True))
        facts |= {"prompts": dict(prompts.texts), "default_prompt": prompts.choose()}
        facts["pooled_mask"] = POOLED_MASK if POOLED_MASK in inputs else None
    return facts


def _length(signature: dict) -> int:
    return signature["length"]


def plain_ids(backend: tokenizers.Tokenizer, text: str) -> list[int]:
    """The ids that the phone's library gives for a text, without special tokens."""
    return backend.encode(text, add_special_tokens=False).ids


def _check_ids(tokenizer: Tokenizer, backend: tokenizers.Tokenizer) -> None:
    """Refuses a tokenizer that changes ids, which a library that reads tokenizer.json alone would not do."""
    for text in SHOWING:
        if tokenizer.ids([text], special_tokens=False)[0] != plain_ids(backend, text):
            raise ValueError(
                "The tokenizer of this file is more than its tokenizer.json, which is all that the libraries for "
                "Android and iOS read: they would give other ids. LiteRTModel runs the file from Python."
            )


def _special_tokens(tokenizer: Tokenizer, backend: tokenizers.Tokenizer) -> dict[str, Any]:
    """What stands around a text, and around two of them."""
    first, second = SHOWING[:2]
    one, other = plain_ids(backend, first), plain_ids(backend, second)
    single = tokenizer.encode([first]).token_ids[0].tolist()
    pair = tokenizer.encode([first], [second], sequence_length=None)
    joined, segments = pair.token_ids[0].tolist(), pair.segment_ids[0].tolist()
    start = _find(single, one)
    begin = _find(joined, one)
    middle = begin + len(one)
    follow = middle + _find(joined[middle:], other)
    end = follow + len(other)
    return {
        "single": Around(single[:start], [], single[start + len(one) :])._asdict(),
        "pair": Around(joined[:begin], joined[middle:follow], joined[end:])._asdict(),
        "second_segment": segments[follow],
    }


def _find(ids: list[int], part: list[int]) -> int:
    """Where some ids stand in others."""
    for start in range(len(ids) - len(part) + 1):
        if ids[start : start + len(part)] == part:
            return start
    raise ValueError(
        "The tokenizer of this file gives a text other ids with special tokens around it than without: an app cannot "
        "put them there itself."
    )


def word_prefix(tokenizer: Tokenizer, backend: tokenizers.Tokenizer) -> str:
    """What to put before a word so that it gets the ids that it has in a list of words: "" or a space.

    Raises:
        ValueError: if neither does.
    """
    words = [word for text in SHOWING for word in text.split()]
    encoding = tokenizer.encode([words], is_split_into_words=True, return_offsets=True)
    wanted = [
        encoding.token_ids[0][encoding.word_ids[0] == index].tolist()
        for index in range(len(words))
    ]  # fmt: skip
    for prefix in ("", " "):
        if [plain_ids(backend, prefix + word) for word in words] == wanted:
            return prefix
    raise ValueError("The tokenizer of this file gives words other ids in a list than alone: an app cannot tag them.")


def _writing(file: ModelFile, tokenizer: Tokenizer, backend: tokenizers.Tokenizer) -> dict[str, Any]:
    """Of a language model: its calls, its cache, what ends a text."""
    info = file.signatures[decoding.DECODE]
    cache = [tensor for tensor in info.inputs if tensor.name.startswith(decoding.CACHE)]
    vocabulary = next(tensor for tensor in info.outputs if tensor.name == "logits").shape[-1]
    settings = generation_settings(file)
    text = SHOWING[0]
    ids, whole = plain_ids(backend, text), prompt_ids(tokenizer, text)
    start = _find(whole, ids)
    return {
        "vocabulary_size": vocabulary,
        "cache_length": decoding.cache_slots(file.own, info.inputs)[0],
        "prefill_lengths": list(decoding.numbers(file.signatures, decoding.PREFILL)),
        "decode_slots": list(decoding.numbers(file.signatures, decoding.DECODE_FIRST)),
        "whole_chunks": any(tensor.name.startswith(decoding.STATE) for tensor in info.inputs),
        "cache": [
            {"name": tensor.name, "bytes": int(np.prod(tensor.shape)) * np.dtype(tensor.dtype).itemsize}
            for tensor in cache
        ],
        "prompt": Around(whole[:start], [], whole[start + len(ids) :])._asdict(),
        "stop_ids": list(settings.ends_in(vocabulary)),
        "stop_strings": list(settings.stop_strings),
    }


def generation_settings(file: ModelFile) -> GenerationConfig:
    """How an app generates: as the file says, without rules that change logits; says so where there are some."""
    settings = GenerationConfig.from_dict(file.own.get("generation_config") or {}, str(file.path))
    if not settings.eos_token_id:
        settings = replace(settings, eos_token_id=tuple(file.own.get("stop_ids") or ()))
    plain = TokenRules(eos_token_id=settings.eos_token_id)
    if not settings.rules.change_nothing:
        notices.warn(
            f"{file.path} says rules of generation, such as penalties for repetition, that the app does not follow: "
            "it takes the most probable token."
        )
    return replace(settings, **{name: getattr(plain, name) for name in plain.__dataclass_fields__})
