"""What a page must know of a file: Python reads the file, JavaScript reads these facts as JSON."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from tfxformer.runtime.generation import decoding
from tfxformer.runtime.litert_generator import LiteRTGenerator
from tfxformer.runtime.model_file import ModelFile
from tfxformer.text import Tokenizer
from tfxformer.text.chat import templates
from tfxformer.text.files import special_tokens
from tfxformer.text.generation.stopping import read_stops
from tfxformer.text.sentencepieces.rules import SETTINGS

READERS = ("text-classification", "text-embedding", "token-classification", "question-answering", "masked-lm")
MODEL = "model.tflite"  # its name in a page's folder
_WORDS = ("a", "the", "1", ".", "x")  # one of which every tokenizer knows


def facts(file: ModelFile) -> dict:
    """All of a file that a page reads, JSON-ready.

    Raises:
        ValueError: for a file that carries no task and tokenizer of ours, or a tokenizer that JavaScript cannot follow.
    """
    own, writes = file.own, decoding.DECODE in file.signatures
    if file.tokenizer is None or not (writes or own.get("task") in READERS):
        raise ValueError(
            f"{file.path} carries no task and tokenizer, so a page would not know what to do with a text: export a "
            "task (a TextClassifier, CausalLM, ...) that has its tokenizer."
        )
    lengths = sorted((length, name) for name, length in (own.get("signatures") or {}).items() if length)
    return {
        "title": Path(file.path).stem,
        "file": MODEL,
        "bytes": len(file.content),
        "task": own.get("task"),
        "labels": own.get("labels"),
        "problem_type": own.get("problem_type"),
        "quantization": own.get("quantization"),
        "max_length": own.get("max_length"),
        "prompts": own.get("prompts"),
        "default_prompt_name": own.get("default_prompt_name"),
        "include_prompt": own.get("include_prompt", True),
        "lengths": lengths,
        "signatures": {name: _tensors(info) for name, info in file.signatures.items()},
        "tokenizer": tokenizer_facts(file.tokenizer, str(file.path)),
        "generation": generation_facts(file) if writes else None,
    }


def _tensors(info) -> dict:
    return {side: [dataclasses.asdict(tensor) for tensor in getattr(info, side)] for side in ("inputs", "outputs")}


def tokenizer_facts(tokenizer: Tokenizer, source: str) -> dict:
    """What tokenizer.json does not say, or says in ways that JavaScript's tokenizer reads otherwise.

    Args:
        tokenizer: of the file.
        source: the file's name, for messages.

    Raises:
        ValueError: for a tokenizer made of SentencePiece models.
    """
    stored = json.loads(tokenizer.to_json())
    content, config = stored["tokenizer"], stored["config"]
    if config.get(SETTINGS):
        raise ValueError(
            f"{source}: its tokenizer was made of a SentencePiece model, whose rules no JavaScript tokenizer has: a "
            "page would read other tokens. Run the file in Python, or train the model with another tokenizer."
        )
    cuts = content.get("pre_tokenizer") or {}
    cuts = cuts.get("pretokenizers", [cuts])
    steps = [step for step in cuts if step.get("type") == "ByteLevel"]
    normalizer = json.dumps(content.get("normalizer") or {})
    lowercases = '"BertNormalizer"' in normalizer and '"lowercase": true' in normalizer
    single, pair = _templates(tokenizer)
    return {
        "kind": tokenizer.kind,
        "single": single[0],
        "pair": pair[0],
        "segments": {"single": single[1]["A"], "pair": [pair[1]["A"], pair[1]["B"]]},
        **{role: getattr(tokenizer, role) for role in ("padding_id", "unknown_id", "mask_id", "eos_id", "bos_id")},
        "mask_token": None if tokenizer.mask_id is None else tokenizer.vocabulary()[tokenizer.mask_id],
        "special_ids": list(tokenizer.special_ids),
        "vocabulary_size": tokenizer.vocabulary_size,
        "truncation_side": tokenizer.truncation_side,
        "cleans_spaces": bool(config.get("clean_up_tokenization_spaces")) and tokenizer.kind != "BPE",
        "byte_level": bool(steps) or _maps_bytes(content),
        "prefix_space": any(step.get("add_prefix_space") for step in steps),
        "glues_words": any(not step.get("add_prefix_space") for step in steps),
        "trims_offsets": _trims_offsets(content),
        "metaspace": _metaspace(cuts),
        "lowercases_letters": lowercases or '"Lowercase"' in normalizer,
        "spaces_characters": '"handle_chinese_chars": true' in normalizer,
        "added_tokens": [token["content"] for token in content.get("added_tokens") or []],
    }


def _maps_bytes(content: dict) -> bool:
    return (content.get("decoder") or {}).get("type") == "ByteLevel"


def _trims_offsets(content: dict) -> bool:
    """Whether tokens stand in a text without the spaces that they begin with."""
    step = content.get("post_processor") or {}
    steps = step.get("processors", [step])
    return any(one.get("type") in ("ByteLevel", "RobertaProcessing") and one.get("trim_offsets", True) for one in steps)


def _metaspace(steps: list[dict]) -> dict | None:
    """How spaces become marks before words, as SentencePiece has them; None for a tokenizer without."""
    kinds = [step.get("type") for step in steps]
    if "Metaspace" not in kinds:
        return None
    step = steps[kinds.index("Metaspace")]
    scheme = step.get("prepend_scheme") or ("always" if step.get("add_prefix_space", True) else "never")
    splits_first = "WhitespaceSplit" in kinds[: kinds.index("Metaspace")]
    return {"mark": step.get("replacement", "\u2581"), "prepends": scheme != "never", "splits_first": splits_first}


def _templates(tokenizer: Tokenizer) -> list[tuple[list, dict]]:
    """(special tokens around a text, and around two; the segments of the texts in each), as the tokenizer writes them.

    A special token is [id, segment]; "A" and "B" stand for the texts.
    """
    (word,) = [word for word in _WORDS if tokenizer.ids([word], special_tokens=False)[0]][:1]
    found = []
    for pairs in (None, [word]):
        encoding = tokenizer.encode([word], pairs, return_offsets=True)
        template, segments = [], {"A": 0, "B": 0}
        rows = (encoding.token_ids[0], encoding.segment_ids[0], encoding.sequence_ids[0])
        for index, segment, sequence in zip(*(row.tolist() for row in rows), strict=True):
            part = [index, segment] if sequence < 0 else "AB"[sequence]
            if sequence >= 0:
                segments[part] = segment
            if sequence < 0 or part not in template:
                template.append(part)
        found.append((template, segments))
    return found


def generation_facts(file: ModelFile) -> dict:
    """How a file writes: its cache, where its texts end and how the checkpoint wants them drawn."""
    model = LiteRTGenerator(file.path, num_threads=1)
    tokenizer, settings = model.tokenizer, model.generation_config
    vocabulary = next(t.shape[-1] for t in file.signatures[decoding.DECODE].outputs if t.name == "logits")
    stops = read_stops(tokenizer, (), settings.ends_in(vocabulary), settings.stop_strings)
    rules = settings.rules
    changed = {one.name: getattr(rules, one.name) for one in dataclasses.fields(rules) if one.name != "eos_token_id"}
    try:
        drawing = model.default_sampling()
    except ValueError:  # by beams, or in a way that there is none for here
        drawing = {}
    return {
        "cache_length": model.cache_length,
        "prefill_lengths": list(model.prefill_lengths),
        "slots": list(decoding.numbers(file.signatures, decoding.DECODE_FIRST)),
        "has_states": any(t.name.startswith(decoding.STATE) for t in file.signatures[decoding.DECODE].inputs),
        "source_lengths": list(model.source_lengths),
        "start": file.own.get("decoder_start_token_id") or 0,
        "source_word": (file.own.get("sources") or {}).get("word") or "",
        "stop_ids": list(stops.ids),
        "chat_stop_ids": [] if tokenizer.eos_id is None else [tokenizer.eos_id],
        "stop_strings": list(stops.strings),
        "rules": None if rules.change_nothing else {"eos_token_id": rules.eos_token_id, **changed},
        "max_new_tokens": settings.max_new_tokens,
        "max_length": settings.max_length,
        "drawing": drawing,
        "chat": None if model.source_lengths else _chat(tokenizer),
    }


def _chat(tokenizer: Tokenizer) -> dict | None:
    """The chat template and the special tokens that it may name; None for a model without one."""
    if tokenizer.chat_template is None:
        return None
    parts = json.loads(tokenizer.to_json())
    import tokenizers

    backend = tokenizers.Tokenizer.from_str(json.dumps(parts["tokenizer"]))
    named = special_tokens(backend, parts["config"])
    return {
        "template": templates.chosen_template(parts["config"]),
        "tokens": {role: token for role, token in named.items() if token is not None},
    }
