"""Vocabularies as files beside which no tokenizer.json lies: vocab.txt of BERT, vocab.json with merges.txt of GPT-2.

Source: the tokenizer classes of transformers 5.24 by the names in `BYTE_LEVEL`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, processors

from tfxformer import json_files
from tfxformer.arguments import notices

# Roles by the keys of tokenizer_config.json, with the names they conventionally have where no file says so.
SPECIAL_TOKENS = {
    "pad_token": ("[PAD]", "<pad>"),
    "unk_token": ("[UNK]", "<unk>"),
    "mask_token": ("[MASK]", "<mask>"),
    "cls_token": ("[CLS]", "<s>"),
    "sep_token": ("[SEP]", "</s>"),
    "bos_token": ("<s>", "<|endoftext|>"),
    "eos_token": ("</s>", "<|endoftext|>"),
}
VOCABULARY, MERGES = "vocab.json", "merges.txt"
_OF_ROBERTA = {
    **{"cls_token": "<s>", "sep_token": "</s>", "bos_token": "<s>", "eos_token": "</s>"},
    **{"unk_token": "<unk>", "pad_token": "<pad>", "mask_token": "<mask>"},
}
_OF_GPT2 = dict.fromkeys(("unk_token", "bos_token", "eos_token"), "<|endoftext|>")
# Tokenizer class -> its special tokens where no file says others.
BYTE_LEVEL: dict[str, dict[str, str]] = {
    **dict.fromkeys(("GPT2Tokenizer", "CodeGenTokenizer"), _OF_GPT2),
    **dict.fromkeys(("RobertaTokenizer", "BartTokenizer", "LongformerTokenizer", "LEDTokenizer"), _OF_ROBERTA),
    "BlenderbotTokenizer": _OF_ROBERTA,
    "Qwen2Tokenizer": dict.fromkeys(("unk_token", "eos_token", "pad_token"), "<|endoftext|>"),
    "DebertaTokenizer": {
        **{"cls_token": "[CLS]", "sep_token": "[SEP]", "bos_token": "[CLS]", "eos_token": "[SEP]"},
        **{"unk_token": "[UNK]", "pad_token": "[PAD]", "mask_token": "[MASK]"},
    },
}
_PAIRS_OF_ROBERTA = ("RobertaTokenizer", "BartTokenizer", "LongformerTokenizer", "LEDTokenizer")
_EATING_MASKS = ("BlenderbotTokenizer", "DebertaTokenizer")  # those of which a mask takes the space in front of it
_SPLITS_OF_QWEN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def read_vocabulary(path: str | Path) -> dict[str, int]:
    """Tokens and ids of a vocab.txt: one token a line, its id the line number."""
    path = Path(path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"No vocabulary file {str(path)!r}.")
    # Only line feeds split: a token may hold any other kind of space.
    lines = json_files.read_text(path).split("\n")
    if lines and not lines[-1]:
        lines.pop()
    vocabulary = {token: index for index, token in enumerate(lines)}
    if len(vocabulary) < len(lines):
        double = next(token for index, token in enumerate(lines) if vocabulary[token] != index)
        notices.warn(
            f"{path} has {len(lines) - len(vocabulary)} lines whose token comes again, such as {double!r} in line "
            f"{lines.index(double) + 1}: the last one counts, as in transformers, and the ids of the others mean "
            "nothing. Where they are a mistake, every id behind them is wrong: take the vocabulary as it was trained."
        )
    return vocabulary


def wordpiece(
    vocabulary: dict[str, int],
    lowercase: bool = True,
    strip_accents: bool | None = None,
    tokenize_chinese_chars: bool = True,
    roles: dict[str, str] | None = None,
) -> tokenizers.Tokenizer:
    """BERT's tokenizer over a vocabulary; `strip_accents=None` strips them exactly when lowercasing.

    Special tokens are BERT's, or those of `roles` ("cls_token": "<s>", ...), which stand in texts as RoBERTa's do.

    Source: Devlin et al. 2018 (arXiv:1810.04805) and its reference implementation's tokenization.py.
    """
    told = roles or {role: names[0] for role, names in SPECIAL_TOKENS.items()}
    unknown, first, end = (told[role] for role in ("unk_token", "cls_token", "sep_token"))
    missing = [token for token in (unknown, first, end) if token not in vocabulary]
    if missing:
        raise ValueError(f"The vocabulary of {len(vocabulary)} tokens lacks {missing}: not a BERT vocab.txt.")
    backend = tokenizers.Tokenizer(models.WordPiece(vocabulary, unk_token=unknown, max_input_chars_per_word=100))
    backend.normalizer = normalizers.BertNormalizer(
        clean_text=True,
        handle_chinese_chars=tokenize_chinese_chars,
        strip_accents=strip_accents,
        lowercase=lowercase,
    )
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece(prefix="##")
    backend.post_processor = processors.TemplateProcessing(
        single=f"{first}:0 $A:0 {end}:0",
        pair=f"{first}:0 $A:0 {end}:0 $B:1 {end}:1",
        special_tokens=[(token, vocabulary[token]) for token in (first, end)],
    )
    if roles:
        backend.post_processor = processors.RobertaProcessing(
            (end, vocabulary[end]), (first, vocabulary[first]), trim_offsets=True, add_prefix_space=False
        )
    tokens = [
        AddedToken(token, special=True, normalized=False, lstrip=bool(roles) and role == "mask_token")
        for role, token in told.items()
        if token in vocabulary
    ]
    backend.add_special_tokens(tokens)
    return backend


def is_byte_level(folder: Path, name: str | None) -> bool:
    """Whether a folder holds the vocabulary and the merges of a tokenizer class that is read from them."""
    return name in BYTE_LEVEL and all((folder / file).is_file() for file in (VOCABULARY, MERGES))


def byte_level(folder: Path, config: dict[str, Any], name: str) -> tokenizers.Tokenizer:
    """The byte-level BPE of a folder's vocab.json and merges.txt, as the class `name` makes it.

    Args:
        folder: where they lie.
        config: of tokenizer_config.json; gets the special tokens of the class that it does not name.
        name: a key of `BYTE_LEVEL`.

    Raises:
        ValueError: for a vocabulary that is no dict of ids, merges that are no pairs of its tokens, and one that lacks
            the tokens that stand around a text.
    """
    vocabulary, merges = _read_ids(folder / VOCABULARY), _read_merges(folder / MERGES)
    try:
        model = models.BPE(vocabulary, merges, continuing_subword_prefix="", end_of_word_suffix="")
    except Exception as error:  # the Rust side raises bare Exception
        raise ValueError(f"{folder / MERGES} does not fit {VOCABULARY} beside it: {error}.") from error
    for role, token in BYTE_LEVEL[name].items():
        config.setdefault(role, token)
    backend, prefix = tokenizers.Tokenizer(model), config.get("add_prefix_space")
    prefix = name == "BlenderbotTokenizer" if prefix is None else bool(prefix)
    backend.decoder = decoders.ByteLevel()
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix)
    if name == "Qwen2Tokenizer":
        backend.normalizer = normalizers.NFC()
        steps = [
            pre_tokenizers.Split(Regex(_SPLITS_OF_QWEN), "isolated"),
            pre_tokenizers.ByteLevel(prefix, use_regex=False),
        ]
        backend.pre_tokenizer = pre_tokenizers.Sequence(steps)
    told = {role: _text_of(config.get(role)) for role in BYTE_LEVEL[name]}
    there = {role: token for role, token in told.items() if token in vocabulary}
    backend.add_special_tokens(
        [
            AddedToken(token, special=True, normalized=False, lstrip=role == "mask_token" and name in _EATING_MASKS)
            for role, token in there.items()
        ]
    )
    around = [there.get(role) for role in ("cls_token", "sep_token")]
    if name in _PAIRS_OF_ROBERTA or name == "DebertaTokenizer":
        if None in around:
            raise ValueError(f"{folder / VOCABULARY} lacks {told['cls_token']!r} or {told['sep_token']!r} of {name}.")
        (first, start), (last, end) = ((token, vocabulary[token]) for token in around)
        pair = f"{first} $A {last} {last} $B {last}"
        backend.post_processor = (
            processors.RobertaProcessing((last, end), (first, start), trim_offsets=True, add_prefix_space=prefix)
            if name in _PAIRS_OF_ROBERTA
            else processors.TemplateProcessing(f"{first} $A {last}", pair, [(first, start), (last, end)])
        )
    else:
        _put_around(backend, config)
    return backend


def _put_around(backend: tokenizers.Tokenizer, config: dict[str, Any]) -> None:
    """Puts the tokens around a text that the settings ask for: add_bos_token (OPT), add_eos_token."""
    told = {role: _text_of(config.get(role)) for role in ("bos_token", "eos_token") if config.get(f"add_{role}")}
    asked = {role: token for role, token in told.items() if token and backend.token_to_id(token) is not None}
    if not asked:
        return
    begin, end = asked.get("bos_token"), asked.get("eos_token")

    def one(text: str, kind: int) -> list[str]:
        return [f"{token}:{kind}" for token in (begin, text, end) if token is not None]

    backend.post_processor = processors.TemplateProcessing(
        single=one("$A", 0),
        pair=[*one("$A", 0), *one("$B", 1)],
        special_tokens=[(token, backend.token_to_id(token)) for token in dict.fromkeys(asked.values())],
    )


def _text_of(token) -> str | None:
    return token.get("content") if isinstance(token, dict) else token


def _read_ids(path: Path) -> dict[str, int]:
    vocabulary = json_files.read_json(path)
    if not all(type(index) is int and index >= 0 for index in vocabulary.values()):
        wrong = next(token for token, index in vocabulary.items() if type(index) is not int or index < 0)
        raise ValueError(f"{path} gives {wrong!r} the id {vocabulary[wrong]!r}: wanted whole numbers from 0 on.")
    return vocabulary


def _read_merges(path: Path) -> list[tuple[str, str]]:
    """The merges of a file, first to last: a pair of tokens a line; the first line may name the version."""
    merges = []
    for number, line in enumerate(json_files.read_text(path).split("\n"), 1):
        if not line or (number == 1 and line.startswith("#version")):
            continue
        first, space, second = line.rstrip("\r").partition(" ")
        if not (first and space and second) or " " in second:
            raise ValueError(f"{path}, line {number}: {line!r:.80} is no pair of tokens with a space between them.")
        merges.append((first, second))
    return merges
