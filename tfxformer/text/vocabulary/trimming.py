"""A vocabulary cut down to what some texts use: those texts keep their tokens, under new ids."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable
from typing import Any

import tokenizers
from tokenizers import pre_tokenizers

from tfxformer.text.inputs import as_texts, check_unicode

CHUNK = 1000  # texts tokenized at once
_BYTE_TOKENS = [f"<0x{byte:02X}>" for byte in range(256)]  # what byte fallback spells unknown characters with
_PAIR_PROCESSORS = ("BertProcessing", "RobertaProcessing")  # they name two tokens with their ids


def used_tokens(backend: tokenizers.Tokenizer, texts: Iterable[str]) -> set[int]:
    """The ids that a trimmed vocabulary keeps, so that each of these texts keeps its tokens.

    They are the tokens of the texts; all added tokens, special ones among them; and what other words can be spelled
    with. Of WordPiece that is every character of those tokens alone, at the beginning of a word and within one, and
    what an unknown word of the texts begins with: without it the word might be cut otherwise, and become known. Of BPE
    it is the tokens that those are merged from, down to their characters, and all bytes.

    Raises:
        ValueError: for a tokenizer that is neither, and no text at all. TypeError: for what is no text.
    """
    texts = as_texts(texts)
    if not texts:
        raise ValueError("The corpus is empty: give the texts that the model will meet.")
    check_unicode(texts)
    ways = {"WordPiece": _word_pieces, "BPE": _merged}
    kind = type(backend.model).__name__
    if kind not in ways:
        raise ValueError(
            f"Only {' and '.join(ways)} vocabularies can be trimmed so that texts keep their tokens; this one is "
            f"{kind}, which weighs each way to cut a text against all others. Take a model with one of those (BERT, "
            "MiniLM, ELECTRA, RoBERTa, GPT-2, Llama)."
        )
    return ways[kind](backend, texts) | set(backend.get_added_tokens_decoder())


def _word_pieces(backend: tokenizers.Tokenizer, texts: list[str]) -> set[int]:
    model = backend.model
    unknown, prefix = backend.token_to_id(model.unk_token), model.continuing_subword_prefix
    vocabulary, used = backend.get_vocab(with_added_tokens=False), set()
    for first in range(0, len(texts), CHUNK):
        chunk = texts[first : first + CHUNK]
        for text, encoding in zip(chunk, backend.encode_batch(chunk), strict=True):
            used.update(encoding.ids)
            if unknown in encoding.ids:
                for word in _words(backend, text):
                    used.update(_walk(word, vocabulary, prefix, model.max_input_chars_per_word))
    tokens = {index: token for token, index in vocabulary.items()}
    letters = {letter for index in used if index in tokens for letter in tokens[index].removeprefix(prefix)}
    spelled = {vocabulary[one] for letter in letters for one in (letter, prefix + letter) if one in vocabulary}
    return used | spelled | {unknown}


def _words(backend: tokenizers.Tokenizer, text: str) -> list[str]:
    """The words that WordPiece is asked to cut."""
    text = text if backend.normalizer is None else backend.normalizer.normalize_str(text)
    return [text] if backend.pre_tokenizer is None else [w for w, _ in backend.pre_tokenizer.pre_tokenize_str(text)]


def _walk(word: str, vocabulary: dict[str, int], prefix: str, longest: int) -> set[int]:
    """The pieces that greedy matching finds in a word up to where it finds no more: ids.

    Source: the longest match first of the reference's tokenization.py (arXiv:1810.04805).
    """
    found, begin = set(), 0
    while begin < len(word) <= longest:
        mark = prefix if begin else ""
        ends = (end for end in range(len(word), begin, -1) if mark + word[begin:end] in vocabulary)
        end = next(ends, None)
        if end is None:
            break
        found.add(vocabulary[mark + word[begin:end]])
        begin = end
    return found


def _merged(backend: tokenizers.Tokenizer, texts: list[str]) -> set[int]:
    """Merging takes the first of the merges that apply, again and again. Each one that made the tokens of the texts is
    kept, so with fewer to choose from it still comes first, and texts are cut as before.

    What happens within a token does not depend on what stands beside it: a merge across its end has not come first.
    So it is enough to make each token once more from its own characters.
    """
    model = json.loads(backend.to_str())["model"]
    for setting in ("dropout", "continuing_subword_prefix", "end_of_word_suffix"):
        if model.get(setting):
            raise ValueError(
                f"A BPE with {setting}={model[setting]!r} cannot be trimmed: tfxformer knows merges of characters, as "
                "GPT-2 and Llama have them."
            )
    vocabulary, ranks = model["vocab"], {pair: rank for rank, pair in enumerate(map(_pair, model["merges"]))}
    tokens = {index: token for token, index in vocabulary.items()}
    used = set()
    for first in range(0, len(texts), CHUNK):
        for encoding in backend.encode_batch_fast(texts[first : first + CHUNK]):
            used.update(encoding.ids)
    parts = {part for index in used if index in tokens for part in _made_of(tokens[index], ranks)}
    parts.update(pre_tokenizers.ByteLevel.alphabet(), _BYTE_TOKENS, [model.get("unk_token")])
    return used | {vocabulary[part] for part in parts if part in vocabulary}


def _made_of(token: str, ranks: dict[tuple[str, str], int]) -> set[str]:
    """All that a token is on the way from its characters."""
    parts = list(token)
    found = set(parts)
    while True:
        pairs = [(ranks[pair], place) for place, pair in enumerate(itertools.pairwise(parts)) if pair in ranks]
        if not pairs:
            return found
        _, place = min(pairs)
        parts[place : place + 2] = [parts[place] + parts[place + 1]]
        found.add(parts[place])


def _pair(merge: str | list[str]) -> tuple[str, str]:
    """A merge as files have it, in the old writing a string."""
    first, second = merge.split(" ") if isinstance(merge, str) else merge
    return first, second


def trimmed_parts(content: dict[str, Any], config: dict[str, Any], kept: list[int]) -> tuple[dict, dict]:
    """A tokenizer.json and its settings with the tokens of some ids only, numbered anew in their order.

    Args:
        content: tokenizer.json. config: tokenizer_config.json. kept: ids, ascending.

    Returns:
        (tokenizer.json, tokenizer_config.json).

    Raises:
        ValueError: for a post-processor that is not known to have no other ids.
    """
    new = {old: index for index, old in enumerate(kept)}
    content, config = json.loads(json.dumps(content)), json.loads(json.dumps(config))
    vocabulary = content["model"]["vocab"]
    content["model"]["vocab"] = {
        token: new[index] for token, index in sorted(vocabulary.items(), key=lambda item: item[1]) if index in new
    }
    if "merges" in content["model"]:
        kept_tokens = content["model"]["vocab"]
        content["model"]["merges"] = [
            merge
            for merge in content["model"]["merges"]
            if all(part in kept_tokens for part in (*_pair(merge), "".join(_pair(merge))))
        ]
    for token in content["added_tokens"]:
        token["id"] = new[token["id"]]
    for processor in _processors(content.get("post_processor")):
        _renumber(processor, new)
    if content.get("padding"):
        content["padding"]["pad_id"] = new[content["padding"]["pad_id"]]
    if "added_tokens_decoder" in config:
        declared = config["added_tokens_decoder"].items()
        config["added_tokens_decoder"] = {str(new[int(index)]): token for index, token in declared if int(index) in new}
    return content, config


def _processors(processor: dict | None) -> list[dict]:
    if processor is None:
        return []
    return processor["processors"] if processor["type"] == "Sequence" else [processor]


def _renumber(processor: dict, new: dict[int, int]) -> None:
    kind = processor["type"]
    if kind == "TemplateProcessing":
        for token in processor["special_tokens"].values():
            token["ids"] = [new[index] for index in token["ids"]]
    elif kind in _PAIR_PROCESSORS:
        for role in ("sep", "cls"):
            token, index = processor[role]
            processor[role] = [token, new[index]]
    elif kind != "ByteLevel":  # which changes offsets only
        raise ValueError(
            f"The tokenizer puts special tokens around texts by a {kind}, which is not known to tfxformer: its ids "
            f"could not be renumbered. Known: TemplateProcessing, ByteLevel, {', '.join(_PAIR_PROCESSORS)}."
        )
