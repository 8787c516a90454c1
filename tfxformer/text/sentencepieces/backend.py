"""A SentencePiece model as a `tokenizers` backend: the same pieces for every text, under the ids of a model's rows.

Source: google/sentencepiece, `src/normalizer.cc`, `unigram_model.cc`, `bpe_model.cc`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers

from tfxformer.text.sentencepieces.model_file import BPE, NORMAL, UNIGRAM, USER_DEFINED, Piece, SentencePieceModel

SPACE = "▁"  # U+2581, as which pieces hold a space
# No text has a space when it is cut, so a name with one is met in none; the decoder takes it away again.
UNMET = " "
_LEAST = -1e6  # the score of a token that is no piece: it is taken where nothing else can be
_NAME = re.compile(r"<.+>|\[.+\]")  # of special tokens; no normalized text is cut into one


class Row(NamedTuple):
    """A row of the model's table: its token, and the piece it is, or None for one that no text is cut into."""

    token: str
    piece: Piece | None = None


def make_backend(
    model: SentencePieceModel, rows: Sequence[Row], unknown: str, added: Sequence[AddedToken]
) -> tokenizers.Tokenizer:
    """The backend of a model.

    Args:
        model: whose rules are followed.
        rows: by their ids.
        unknown: the token for characters without a piece.
        added: tokens that are found in a text before it is normalized.

    Raises:
        ValueError: for a token that comes twice, and pieces that no tokenizer can be made of.
    """
    names = [row.token for row in rows]
    if len(set(names)) < len(names):
        double = max(names, key=names.count)
        raise ValueError(f"{model.path!r}: the token {double!r} comes twice, with the ids of two rows.")
    build = _bpe if model.kind == BPE else _unigram
    try:
        backend = tokenizers.Tokenizer(build(model, rows, unknown))
    except Exception as error:  # the Rust side raises bare Exception
        raise ValueError(f"{model.path!r}: no tokenizer can be made of its pieces ({error}).") from error
    backend.normalizer = _normalizer(model)
    if cut := _pre_tokenizers(model, rows):
        backend.pre_tokenizer = pre_tokenizers.Sequence(cut)
    backend.decoder = _decoder(model)
    special = [token for token in added if token.special]
    backend.add_special_tokens(special)
    backend.add_tokens([token for token in added if not token.special])
    return backend


def _unigram(model: SentencePieceModel, rows: Sequence[Row], unknown: str) -> models.Unigram:
    scores = [(row.token, _score(row)) for row in rows]
    index = next(index for index, row in enumerate(rows) if row.token == unknown)
    return models.Unigram(scores, index, model.byte_fallback)


def _score(row: Row) -> float:
    if row.piece is None:
        return 0.0 if _NAME.fullmatch(row.token) else _LEAST
    return row.piece.score


def _bpe(model: SentencePieceModel, rows: Sequence[Row], unknown: str) -> models.BPE:
    ids = {row.token: index for index, row in enumerate(rows)}
    user_defined = any(row.piece is not None and row.piece.kind == USER_DEFINED for row in rows)
    return models.BPE(
        ids, _merges(rows), unk_token=unknown, fuse_unk=True, byte_fallback=model.byte_fallback,
        ignore_merges=user_defined,
    )  # fmt: skip


def _merges(rows: Sequence[Row]) -> list[tuple[str, str]]:
    """Which two pieces become one, the first to be merged first: the piece they make has the highest score."""
    normal = {row.token: row.piece for row in rows if row.piece is not None and row.piece.kind == NORMAL}
    order = {token: index for index, token in enumerate(normal)}
    found = [
        (-piece.score, order[token], at, token)
        for token, piece in normal.items()
        for at in range(1, len(token))
        if token[:at] in normal and token[at:] in normal
    ]
    return [(token[:at], token[at:]) for _, _, at, token in sorted(found)]


def _normalizer(model: SentencePieceModel) -> normalizers.Normalizer:
    steps = [normalizers.Precompiled(model.charsmap)] if model.charsmap else []
    if model.remove_extra_whitespaces:  # of spaces alone: what else is white the rules have made spaces
        steps += [normalizers.Replace(Regex(r"\A +"), ""), normalizers.Replace(Regex(" {2,}"), " ")]
    if model.add_dummy_prefix:
        steps.append(normalizers.Prepend(SPACE))
    steps.append(normalizers.Replace(" ", SPACE))
    if model.remove_extra_whitespaces:
        steps.append(normalizers.Replace(Regex(rf"{SPACE}+\z"), ""))
    return normalizers.Sequence(steps)


def _pre_tokenizers(model: SentencePieceModel, rows: Sequence[Row]) -> list[pre_tokenizers.PreTokenizer]:
    """Where a text may be cut before its pieces are sought, without a difference to them."""
    pieces = [row.piece for row in rows if row.piece is not None]
    steps = []
    whole = sorted((piece.text for piece in pieces if piece.kind == USER_DEFINED), key=len, reverse=True)
    if whole:  # they are always taken whole
        steps.append(pre_tokenizers.Split(Regex("|".join(map(re.escape, whole))), "isolated"))
    names = sorted(row.token for row in rows if row.piece is None and _NAME.fullmatch(row.token))
    if names and model.kind == UNIGRAM:  # "<s>" in a normalized text is three characters: it is cut before the last
        cut = "|".join(f"{re.escape(name[:-1])}(?={re.escape(name[-1])})" for name in names)
        steps.append(pre_tokenizers.Split(Regex(cut), "merged_with_previous"))
    texts = {piece.text for piece in pieces if piece.kind == NORMAL}
    if SPACE in texts and not any(SPACE in text[1:] for text in texts):  # no piece reaches over the begin of a word
        steps.append(pre_tokenizers.Split(SPACE, "merged_with_next"))
    return steps


def _decoder(model: SentencePieceModel) -> decoders.Decoder:
    steps = [decoders.Replace(UNMET, "")]
    if not model.byte_fallback:
        scheme = "always" if model.add_dummy_prefix else "never"
        return decoders.Sequence([*steps, decoders.Metaspace(SPACE, prepend_scheme=scheme)])
    ends = [decoders.Fuse(), decoders.Strip(" ", int(model.add_dummy_prefix), 0)]
    return decoders.Sequence([*steps, decoders.Replace(SPACE, " "), decoders.ByteFallback(), *ends])
