"""A tokenizer out of a GGUF file's metadata: byte-level BPE of tokens, merges and the name of its pre-tokenizer, or
SentencePiece's BPE of tokens and scores (`sentencepieces.gguf_fields`).

A GGUF file does not hold the pattern that cuts a text into words, but a name for it; the patterns behind the names
are those of the tokenizers they were taken from. Source: llama.cpp, `conversion/base.py` (names) and
`src/llama-vocab.cpp` (patterns), and the models' own tokenizer.json.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, processors

from tfxformer.text.sentencepieces.gguf_fields import read_backend

_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_WORDS = r"[^\r\n\p{L}\p{N}]?\p{L}+"
_REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_LLAMA3 = rf"{_CONTRACTIONS}|{_WORDS}|\p{{N}}{{1,3}}|{_REST}"
_QWEN2 = rf"{_CONTRACTIONS}|{_WORDS}|\p{{N}}|{_REST}"


def _gpt2(prefix_space: bool):
    return pre_tokenizers.ByteLevel(add_prefix_space=prefix_space, use_regex=True)


def _digits(prefix_space: bool):
    return pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), _gpt2(prefix_space)])


def _split(pattern: str):
    def build(prefix_space: bool):
        cut = pre_tokenizers.Split(Regex(pattern), behavior="isolated")
        return pre_tokenizers.Sequence([cut, pre_tokenizers.ByteLevel(prefix_space, use_regex=False)])

    return build


PRE_TOKENIZERS = {
    **dict.fromkeys(("gpt-2", "gpt2"), _gpt2),
    **dict.fromkeys(("smollm", "starcoder"), _digits),
    **dict.fromkeys(("llama-bpe", "llama3", "llama-v3"), _split(_LLAMA3)),
    **dict.fromkeys(("qwen2", "deepseek-r1-qwen"), _split(_QWEN2)),
}
# Tokenizers that take a word as it is where the vocabulary has it, and begin each text with their begin token.
_LLAMA3_NAMES = ("llama-bpe", "llama3", "llama-v3")
_COMPOSING_NAMES = ("qwen2", "deepseek-r1-qwen")  # accents are composed first (NFC)

_SPECIAL, _USER, _UNUSED = (2, 3), 4, 5  # token types: unknown and control, user defined, unused; others are plain
_ROLES = {"bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "pad_token": "padding"}


def read_fields(fields: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The text of a tokenizer.json and the settings of a tokenizer_config.json.

    Args:
        fields: a GGUF file's metadata by their names ("tokenizer.ggml.tokens", ...), as Python values.

    Raises:
        ValueError: for another kind of tokenizer, an unknown pre-tokenizer, and fields that are missing or do not
            fit each other.
    """
    kind = fields.get("tokenizer.ggml.model")
    if kind not in KINDS:
        raise ValueError(
            f"The GGUF file's tokenizer is of the kind {kind!r}; of GGUF files byte-level BPE ('gpt2') and "
            "SentencePiece's BPE ('llama') are read. Pass the tokenizer of the model's own folder (tokenizer.json) "
            "instead."
        )
    tokens, types = _list(fields, "tokens", str), _list(fields, "token_type", int)
    if len(tokens) != len(types) or len(set(tokens)) != len(tokens):
        raise ValueError(f"The GGUF file has {len(tokens)} tokens, {len(set(tokens))} different, {len(types)} types.")
    config = _config(fields, tokens)
    backend, begin = KINDS[kind](fields, tokens, types)
    _add_ends(backend, fields, config, begin)
    return backend.to_str(), config


def _byte_level(fields, tokens, types) -> tuple[tokenizers.Tokenizer, bool]:
    """The backend, and whether texts begin with the begin token where the file does not say it."""
    name = fields.get("tokenizer.ggml.pre")
    if name not in PRE_TOKENIZERS:
        raise ValueError(
            f"The GGUF file's pre-tokenizer is {name!r}; known: {', '.join(PRE_TOKENIZERS)}. Guessing would give "
            "wrong tokens: pass the tokenizer of the model's own folder (tokenizer.json) instead."
        )
    prefix_space = bool(fields.get("tokenizer.ggml.add_space_prefix", False))
    return _backend(name, tokens, types, _merges(fields), prefix_space), name in _LLAMA3_NAMES


def _sentence_pieces(fields, tokens, types) -> tuple[tokenizers.Tokenizer, bool]:
    return read_backend(fields, tokens, types), True


# What `tokenizer.ggml.model` says -> what reads it.
KINDS = {"gpt2": _byte_level, "llama": _sentence_pieces}


def _list(fields: Mapping[str, Any], key: str, kind: type) -> list:
    values = fields.get(f"tokenizer.ggml.{key}")
    if not isinstance(values, list) or not all(type(value) is kind for value in values):
        raise ValueError(f"The GGUF file's tokenizer.ggml.{key} is not a list of {kind.__name__}.")
    return values


def _merges(fields: Mapping[str, Any]) -> list[tuple[str, str]]:
    merges = [tuple(merge.split(" ")) for merge in _list(fields, "merges", str)]
    wrong = next((index for index, merge in enumerate(merges) if len(merge) != 2), None)
    if wrong is not None:
        raise ValueError(f"The GGUF file's merge {wrong} is {' '.join(merges[wrong])!r}, not two tokens.")
    return merges


def _backend(name, tokens, types, merges, prefix_space) -> tokenizers.Tokenizer:
    # Names that a converter gave to rows of the table without a token are no tokens.
    vocabulary = {
        token: index for index, (token, kind) in enumerate(zip(tokens, types, strict=True)) if kind != _UNUSED
    }
    try:
        model = models.BPE(vocabulary, merges, ignore_merges=name in _LLAMA3_NAMES)
    except Exception as error:  # the Rust side raises bare Exception
        raise ValueError(f"The GGUF file's merges do not fit its tokens: {error}.") from error
    backend = tokenizers.Tokenizer(model)
    if name in _COMPOSING_NAMES:
        backend.normalizer = normalizers.NFC()
    backend.pre_tokenizer = PRE_TOKENIZERS[name](prefix_space)
    backend.decoder = decoders.ByteLevel()
    named = list(zip(tokens, types, strict=True))
    special = [AddedToken(token, special=True, normalized=False) for token, kind in named if kind in _SPECIAL]
    backend.add_special_tokens(special)
    backend.add_tokens([AddedToken(token, normalized=False) for token, kind in named if kind == _USER])
    return backend


def _config(fields: Mapping[str, Any], tokens: list[str]) -> dict[str, Any]:
    config: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast"}
    for role, key in _ROLES.items():
        index = fields.get(f"tokenizer.ggml.{key}_token_id")
        if index is None:
            config[role] = None  # said, so that no conventional name is taken for it
            continue
        if type(index) is not int or not 0 <= index < len(tokens):
            raise ValueError(f"The GGUF file's {role} has the id {index!r}, but there are {len(tokens)} tokens.")
        config[role] = tokens[index]
    template = fields.get("tokenizer.chat_template")
    if template is not None:
        config["chat_template"] = template
    context = fields.get(f"{fields.get('general.architecture')}.context_length")
    if type(context) is int:
        config["model_max_length"] = context
    return config


def _add_ends(backend: tokenizers.Tokenizer, fields: Mapping[str, Any], config: dict, begin: bool) -> None:
    """Makes the backend put begin and end tokens around a text, where the file says so."""
    ends = {}
    for role, default in (("bos", begin), ("eos", False)):
        wanted = fields.get(f"tokenizer.ggml.add_{role}_token", default)
        token = config[f"{role}_token"]
        if wanted and token is None:
            raise ValueError(f"The GGUF file's tokenizer adds a {role} token to each text, but has none.")
        ends[role] = [token] if wanted else []
    if not any(ends.values()):
        return
    backend.post_processor = processors.TemplateProcessing(
        single=[*ends["bos"], "$A", *ends["eos"]],
        pair=[
            *ends["bos"],
            "$A",
            *ends["eos"],
            *(f"{token}:1" for token in ends["bos"]),
            "$B:1",
            *(f"{token}:1" for token in ends["eos"]),
        ],
        special_tokens=[(token, backend.token_to_id(token)) for token in {*ends["bos"], *ends["eos"]}],
    )
