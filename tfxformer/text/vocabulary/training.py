"""Vocabularies made from texts: byte-level BPE, WordPiece, and one id a character."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from tfxformer.text.inputs import as_texts, check_unicode
from tfxformer.text.vocabulary import stored

_BYTES = 256
_UNKNOWN = "<unk>"
_BERT_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def byte_level_bpe(
    texts: Iterable[str], vocabulary_size: int, special_tokens: Sequence[str]
) -> tuple[str, dict[str, Any]]:
    """tokenizer.json and settings of a byte-level BPE: every text can be written with it, and read back exactly.

    Source: Radford et al. 2019, "Language Models are Unsupervised Multitask Learners" (GPT-2).
    """
    texts, special = _training_texts(texts), _special_tokens(special_tokens)
    least = _BYTES + len(special)
    if vocabulary_size < least:
        raise ValueError(
            f"A vocabulary of {vocabulary_size} cannot hold {_BYTES} bytes and {special}: at least {least}."
        )
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary_size,
        min_frequency=2,  # a pair seen once is no pattern
        special_tokens=special,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    end = special[0] if special else None
    config = dict.fromkeys(("bos_token", "eos_token", "pad_token"), end) | {"unk_token": None}
    return backend.to_str(), config | {"tokenizer_class": "PreTrainedTokenizerFast"}


def word_piece(texts: Iterable[str], vocabulary_size: int, lowercase: bool) -> tuple[str, dict[str, Any]]:
    """tokenizer.json and settings of a BERT tokenizer with a vocabulary learned from texts.

    Pieces are merged by their frequency, as `tokenizers` does it.
    """
    texts = _training_texts(texts)
    backend = stored.wordpiece({token: index for index, token in enumerate(_BERT_TOKENS)}, lowercase)
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocabulary_size,
        min_frequency=2,
        special_tokens=list(_BERT_TOKENS),
        continuing_subword_prefix="##",
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    learned = backend.get_vocab()
    if len(learned) > vocabulary_size:
        raise ValueError(
            f"A vocabulary of {vocabulary_size} cannot hold the special tokens and the characters of these texts: "
            f"at least {len(learned)}."
        )
    # Anew: the trainer leaves the model with settings of its own (the longest word, the tokens' flags).
    return stored.wordpiece(dict(sorted(learned.items(), key=lambda item: item[1])), lowercase).to_str(), {}


def _training_texts(texts: Iterable[str]) -> list[str]:
    texts = as_texts(texts)
    check_unicode(texts)
    if not any(texts):
        raise ValueError("There is no text to learn a vocabulary from.")
    return texts


def characters(text: str | Iterable[str], special_tokens: Sequence[str] = ()) -> tuple[str, dict[str, Any]]:
    """tokenizer.json and settings of a tokenizer with one id for each character of a text or of several."""
    text = text if isinstance(text, str) else "".join(_training_texts(text))
    if not text:
        raise ValueError("There is no text to take characters from.")
    check_unicode(text, "text")
    special = _special_tokens(special_tokens)
    if _UNKNOWN in special or set(special) & set(text):
        raise ValueError(f"Special tokens must be neither {_UNKNOWN!r} nor a character of the text, got {special}.")
    vocabulary = {token: index for index, token in enumerate([*special, *sorted(set(text)), _UNKNOWN])}
    # BPE without a merge: a word is its characters, and the whole text is one word.
    backend = tokenizers.Tokenizer(models.BPE(vocabulary, [], unk_token=_UNKNOWN))
    backend.decoder = decoders.Fuse()
    backend.add_special_tokens(special)
    end = special[0] if special else None
    config = {"unk_token": _UNKNOWN, "pad_token": end or _UNKNOWN, "bos_token": end, "eos_token": end}
    return backend.to_str(), config | {"tokenizer_class": "PreTrainedTokenizerFast"}


def _special_tokens(tokens: Sequence[str]) -> list[str]:
    special = as_texts(tokens, "special_tokens")
    if len(set(special)) < len(special) or "" in special:
        raise ValueError(f"Special tokens must be different and not empty, got {special}.")
    return special
